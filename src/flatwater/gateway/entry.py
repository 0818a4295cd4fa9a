"""A stored response, and how it is packed into bytes."""

from __future__ import annotations

from struct import Struct
from typing import NamedTuple

from flatwater.gateway import moment
from flatwater.gateway.freshness import Terms
from flatwater.gateway.shelf import PREFIX, Packed
from flatwater.gateway.validation import Headers, Response

VALIDATE = 1  # never used without validation
STRICT = 2  # never used stale
MARKER = 4  # says which fields select the response; the responses stand elsewhere

_FIXED = Struct("<dIIIHBI")
_WHOLE = Struct(PREFIX.format + _FIXED.format[1:])
_START = _WHOLE.size


class Stored(NamedTuple):
    """``until`` and ``base`` are moments of the monotonic clock; ``now - base`` is the age in seconds.

    ``key`` is the one under which it stands: that of the URL, or of one variant.
    """

    key: bytes
    until: float
    base: float
    lifetime: int
    stale_while_revalidate: int
    stale_if_error: int
    status: int
    flags: int
    headers: Headers
    body: bytes

    @property
    def response(self) -> Response:
        return Response(self.status, self.headers, self.body)


def pack(status: int, headers: Headers, terms: Terms, now: float) -> bytes | None:
    """The fixed part and the head, as :meth:`Shelf.put` takes it; None when a field holds a line break.

    The head is kept as it is sent, so that a plain hit need not take it apart.
    """
    head = b"".join([b"%b: %b\r\n" % item for item in headers])
    if head.count(b"\n") != len(headers) or head.count(b"\r") != len(headers):
        return None
    return (
        _FIXED.pack(
            now - terms.age,
            terms.lifetime,
            terms.stale_while_revalidate,
            terms.stale_if_error,
            status,
            VALIDATE * terms.validate | STRICT * terms.strict,
            _START + len(head),
        )
        + head
    )


def kept(status: int, headers: Headers, length: int, omitted: frozenset[bytes], now: float) -> Headers:
    """The fields to store: without ``omitted``, with the length of the body and a date. ``now`` by the wall clock."""
    found = [item for item in headers if item[0] not in omitted and item[0] != b"content-length"]
    if status != 204:
        found.append((b"content-length", b"%d" % length))
    if not any(name == b"date" for name, _ in found):
        found.append((b"date", moment.write(now)))
    return found


def pack_marker(names: tuple[bytes, ...], generation: bytes) -> tuple[bytes, bytes]:
    """Head and body of an entry that lists the selecting fields.

    ``generation`` is part of the keys of the variants: a new one makes the old variants unreachable.
    """
    head = b"\n".join(names)
    return _FIXED.pack(0.0, 0, 0, 0, 0, MARKER, _START + len(head)) + head, generation


def fresh(packed: Packed, now: float, told: bytes) -> tuple[int, bytes, bytes] | None:
    """Status, header lines as they are sent and body, for a request without demands; None when there is more to think
    about. ``told`` are lines to be added, a format for the age and what is left of the freshness."""
    whole, aside = (packed, None) if isinstance(packed, bytes) else packed
    _, until, base, lifetime, _, _, status, flags, end = _WHOLE.unpack_from(whole)
    age = now - base
    left = lifetime - age
    if left <= 0 or until <= now or flags & (MARKER | VALIDATE):
        return None
    return status, whole[_START:end] + told % (age, left), whole[end:] if aside is None else aside


def fields(head: bytes) -> Headers:
    """The fields of a head as it is sent."""
    return [(name, value) for line in head.split(b"\r\n")[:-1] for name, _, value in (line.partition(b": "),)]


def unpack(key: bytes, packed: Packed) -> Stored:
    """The entry. Its header list is made anew, so that it may be appended to."""
    whole, aside = (packed, None) if isinstance(packed, bytes) else packed
    _, until, base, lifetime, revalidate, error, status, flags, end = _WHOLE.unpack_from(whole)
    headers = fields(whole[_START:end])
    body = whole[end:] if aside is None else aside
    return Stored(key, until, base, lifetime, revalidate, error, status, flags, headers, body)


def marker(packed: Packed) -> tuple[tuple[bytes, ...], bytes, float] | None:
    """The selecting fields, the generation and the end of a marker's time; None when this is a response."""
    if not isinstance(packed, bytes):
        return None
    _, until, _, _, _, _, _, flags, end = _WHOLE.unpack_from(packed)
    if not flags & MARKER:
        return None
    return tuple(packed[_START:end].split(b"\n")), packed[end:], until
