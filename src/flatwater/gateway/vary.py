"""Vary: which request fields select a stored response, and the part of the key that they make (RFC 9111 §4.1)."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache
from hashlib import blake2b

from flatwater.gateway.directive import Headers, field

_PREFERENCES = frozenset({b"accept", b"accept-encoding", b"accept-language", b"accept-charset"})
_QUALITY = re.compile(rb";[ \t]*q=(\d(?:\.\d{0,3})?)[ \t]*$")
_MAX_PLAIN_BYTES = 96
_MAX_REMEMBERED_BYTES = 256


def fields(value: bytes | None) -> tuple[bytes, ...] | None:
    """The names that a Vary value lists, in lower case and in order; None when ``*`` is among them: no request matches.

    An absent Vary lists nothing.
    """
    listed = {part for line in (value or b"").split(b",") if (part := line.strip(b" \t").lower())}
    return None if b"*" in listed else tuple(sorted(listed))


def variant(names: Sequence[bytes], request: Headers) -> bytes:
    """What a request's fields of these names say, normalised, as a piece of a key.

    An absent field differs from an empty one. Long values are hashed (BLAKE2b, 256 bits).
    """
    told = b"\x00".join([_told(name, field(request, name)) for name in names])
    return told if len(told) <= _MAX_PLAIN_BYTES else blake2b(told, digest_size=32).digest()


def _told(name: bytes, value: bytes | None) -> bytes:
    if value is None:
        return b""
    if name in _PREFERENCES and b'"' not in value:
        return b"=" + (_remembered(value) if len(value) <= _MAX_REMEMBERED_BYTES else _preferences(value))
    if b"," not in value:
        return b"=" + value.strip(b" \t")
    return b"=" + b",".join([part.strip(b" \t") for part in value.split(b",")])


@lru_cache(maxsize=1024)
def _remembered(value: bytes) -> bytes:
    return _preferences(value)


def _preferences(value: bytes) -> bytes:
    """A list of preferences, the dearest first, those of equal weight in the order of the alphabet."""
    weighed = []
    for part in value.lower().split(b","):
        if item := part.strip(b" \t"):
            found = _QUALITY.search(item)
            weight = float(found[1]) if found else 1.0
            weighed.append((-weight, _QUALITY.sub(b"", item).strip(b" \t").replace(b" ", b"")))
    return b",".join(item if weight == -1 else b"%s;q=%g" % (item, -weight) for weight, item in sorted(set(weighed)))
