"""One leak has one name: a hash over what stays the same when it is found again."""

from __future__ import annotations

import re
from hashlib import blake2s

_KEYS = re.compile(r"\[(?:\d+|'[^']*'|\"[^\"]*\"|[\w.]+)\]")
_PLACE = re.compile(r" \(([^():]+):\d+\)")
_ENDING = re.compile(r" \([^()]*(?:/s|entries)\)$")
_REPEATED = re.compile(r" × [\d,]+")


def shape(path_text: str) -> str:
    """A path without what differs from run to run: indexes, keys, line numbers and sizes."""
    text = _REPEATED.sub("", _ENDING.sub("", path_text))
    return _KEYS.sub("[]", _PLACE.sub(r" (\1)", text))


def signature(kind: str, path_text: str, item_type: str, function: str) -> str:
    """Twelve hex digits: the verdict's kind, the owner path's shape, the items' type, and the inserting function.

    Line numbers, sizes and keys do not count, so the same leak in the next release keeps its name.
    """
    text = "\0".join((kind, shape(path_text), item_type, function))
    return blake2s(text.encode(), digest_size=6).hexdigest()
