"""Cache directives: the fields Cache-Control and Pragma (RFC 9111 §5.2, §5.4), and targeted fields (RFC 9213).

A set of directives is a dict from the lower-case name to its argument, None when there is none. Where a sender
contradicts itself the cautious reading wins: two different numbers are an invalid number, and an invalid number is
zero seconds of freshness.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from functools import lru_cache

Directives = Mapping[bytes, bytes | None]

MAX_SECONDS = 2**31
"""Greater numbers of seconds mean this (RFC 9111 §1.2.2)."""

INVALID = b"invalid"
"""The argument of a directive that was given twice with different arguments, or in a form that is not allowed."""

NONE: Directives = {}

_NUMERIC = frozenset(
    {b"max-age", b"s-maxage", b"max-stale", b"min-fresh", b"stale-while-revalidate", b"stale-if-error"}
)
_LISTING = frozenset({b"private", b"no-cache"})
_STALE: Directives = dict.fromkeys((b"max-age", b"s-maxage", b"must-revalidate"), INVALID)
_MAX_REMEMBERED_BYTES = 256
_SIGN = re.compile(rb'[",]')
_REST_OF_QUOTED = re.compile(rb'(?:[^"\\]|\\.)*+"', re.DOTALL)

Headers = Iterable[tuple[bytes, bytes]]
Fields = Mapping[bytes, bytes]


def field(headers: Headers, name: bytes) -> bytes | None:
    """All lines of a field as one value (RFC 9110 §5.3); None when there is no line."""
    lines = [value for key, value in headers if key == name]
    if not lines:
        return None
    return lines[0] if len(lines) == 1 else b", ".join(lines)


def joined(headers: Headers) -> Fields:
    """All fields, their lines joined."""
    found: dict[bytes, bytes] = {}
    for name, value in headers:
        found[name] = found[name] + b", " + value if name in found else value
    return found


def parse(value: bytes | None) -> Directives:
    """The directives of a Cache-Control value."""
    if not value:
        return NONE
    return _remembered(value) if len(value) <= _MAX_REMEMBERED_BYTES else _parse(value)


def seconds(directives: Directives, name: bytes) -> int | None:
    """The argument as seconds; None when the directive is absent, 0 when its argument is not a number."""
    if name not in directives:
        return None
    return number(directives[name]) or 0


def number(text: bytes | None) -> int | None:
    """Delta-seconds (RFC 9111 §1.2.2), capped; None when ``text`` is none."""
    if not text or not text.isdigit():
        return None
    return min(int(text), MAX_SECONDS) if len(text) < 12 else MAX_SECONDS


def names(argument: bytes | None) -> frozenset[bytes]:
    """The field names in the argument of ``no-cache`` or ``private``, in lower case."""
    return frozenset(name for part in (argument or b"").split(b",") if (name := part.strip().lower()))


def _parse(value: bytes) -> Directives:
    pieces = _pieces(value) if b'"' in value else value.split(b",")
    if pieces is None:  # an open quote must not hide what stands behind it; and nothing here is fresh
        return {**_gathered(value.replace(b'"', b"").split(b",")), **_STALE}
    return _gathered(pieces)


def _pieces(value: bytes) -> list[bytes] | None:
    """What stands between commas outside of quotes; None when a quote is not closed."""
    pieces: list[bytes] = []
    begin = at = 0
    while (found := _SIGN.search(value, at)) is not None:
        at = found.end()
        if found[0] == b",":
            pieces.append(value[begin : at - 1])
            begin = at
        elif (quoted := _REST_OF_QUOTED.match(value, at)) is not None:
            at = quoted.end()
        else:
            return None
    pieces.append(value[begin:])
    return pieces


def _gathered(pieces: Iterable[bytes]) -> dict[bytes, bytes | None]:
    found: dict[bytes, bytes | None] = {}
    for piece in pieces:
        name, argument = _split(piece)
        if name:
            found[name] = _merged(name, found[name], argument) if name in found else argument
    return found


def _split(piece: bytes) -> tuple[bytes, bytes | None]:
    name, equals, argument = piece.strip(b" \t").partition(b"=")
    if not equals:
        return name.lower(), None
    spaced = name != name.rstrip(b" \t") or argument != argument.strip(b" \t")  # not allowed around "="
    if spaced and name.strip().lower() in _NUMERIC:
        return name.strip().lower(), INVALID
    argument = argument.strip(b" \t")
    if len(argument) > 1 and argument[:1] == b'"' == argument[-1:]:
        argument = re.sub(rb"\\(.)", rb"\1", argument[1:-1], flags=re.DOTALL)
    return name.strip().lower(), argument


def _merged(name: bytes, first: bytes | None, second: bytes | None) -> bytes | None:
    if name in _LISTING:  # without a list it is about the whole response
        return None if first is None or second is None else first + b"," + second
    return first if first == second or name not in _NUMERIC else INVALID


_remembered = lru_cache(maxsize=512)(_parse)


# Structured fields (RFC 8941), as far as a dictionary of directives needs them.
_KEY = rb"[a-z*][a-z0-9_\-.*]*"
_ITEM = (
    rb'(?:-?\d{1,15}(?:\.\d{1,3})?|"(?:[\x20\x21\x23-\x5b\x5d-\x7e]|\\["\\])*"|\?[01]'
    rb"|:[A-Za-z0-9+/=]*:|[A-Za-z*][!#$%&'*+\-.^_`|~0-9A-Za-z:/]*)"
)
_PARAMETERS = rb"(?:; *" + _KEY + rb"(?:=" + _ITEM + rb")?)*"
_LIST = rb"\( *(?:" + _ITEM + _PARAMETERS + rb"(?: +" + _ITEM + _PARAMETERS + rb")* *)?\)"
_MEMBER = re.compile(rb"(" + _KEY + rb")(?:=(" + _ITEM + rb"|" + _LIST + rb"))?" + _PARAMETERS + rb"[ \t]*(,?)[ \t]*")
_INTEGER = re.compile(rb"-?\d{1,15}")


def parse_targeted(value: bytes | None) -> Directives | None:
    """The directives of a targeted field such as CDN-Cache-Control.

    None when the field is absent, empty, or not a valid structured dictionary: then it counts for nothing. A directive
    whose argument has the wrong type is left out.
    """
    text = (value or b"").strip(b" ")
    members: dict[bytes, bytes | None] = {}
    at = 0
    while at < len(text):
        found = _MEMBER.match(text, at)
        if found is None or (found.end() == len(text)) == bool(found[3]) or (found.end() < len(text) and not found[3]):
            return None
        members[found[1]] = found[2]
        at = found.end()
    typed = {name: argument for name, raw in members.items() if (argument := _typed(name, raw)) is not False}
    return typed if members else None  # type: ignore[return-value]


def _typed(name: bytes, raw: bytes | None) -> bytes | bool | None:
    """The argument if its type is that of the directive, None for a bare name; False when it is to be ignored."""
    if name in _NUMERIC:
        return raw if raw is not None and _INTEGER.fullmatch(raw) else False
    if raw is None or raw == b"?1":
        return None
    if raw == b"?0":
        return False
    return raw.strip(b'"')
