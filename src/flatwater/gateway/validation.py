"""Conditions and ranges of requests, answered from a stored response (RFC 9110 §13 and §14, RFC 9111 §4.3)."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple

from flatwater.gateway import moment
from flatwater.gateway.directive import field

Headers = list[tuple[bytes, bytes]]

_TAG = re.compile(rb'(?:W/)?"[^"]*"')
_RANGE = re.compile(rb"bytes[ \t]*=[ \t]*(\d{0,18})-(\d{0,18})", re.IGNORECASE)
_OF_CONTENT = frozenset(
    (b"content-length", b"content-type", b"content-encoding", b"content-language", b"content-range")
)


class Response(NamedTuple):
    """A complete response. The header names are in lower case."""

    status: int
    headers: Headers
    body: bytes


def validators(headers: Headers) -> Headers:
    """The conditions that ask the origin whether a stored response is still good; none when it has no validator."""
    found = []
    if (tag := field(headers, b"etag")) is not None:
        found.append((b"if-none-match", tag))
    if (changed := field(headers, b"last-modified")) is not None:
        found.append((b"if-modified-since", changed))
    return found


def same_strong(first: bytes | None, second: bytes | None) -> bool:
    """Whether two entity tags are equal by the strong comparison (RFC 9110 §8.8.3.2)."""
    return first is not None and first == second and not first.startswith(b"W/")


def answer(stored: Response, request: Sequence[tuple[bytes, bytes]], method: bytes) -> Response:
    """What a request gets that a stored response may answer: itself, a part of it (206, 416), or 304.

    ``stored`` has the status that the origin sent; conditions count for 200 only. HEAD gets no body.
    """
    if stored.status == 200:
        if not_modified(stored.headers, request):
            return Response(304, [item for item in stored.headers if item[0] not in _OF_CONTENT], b"")
        if method == b"GET" and (wanted := field(request, b"range")) is not None:
            return _part(stored, wanted, field(request, b"if-range"))
    return stored if method == b"GET" else Response(stored.status, stored.headers, b"")


def not_modified(headers: Headers, request: Sequence[tuple[bytes, bytes]]) -> bool:
    """Whether the conditions of a request find nothing new. If-None-Match goes before If-Modified-Since."""
    if (wanted := field(request, b"if-none-match")) is not None:
        return _matches(wanted, field(headers, b"etag"))
    since = field(request, b"if-modified-since")
    if since is None or (limit := moment.parse(since)) is None:
        return False
    changed = field(headers, b"last-modified") or field(headers, b"date")
    at = moment.parse(changed) if changed is not None else None
    return at is not None and at <= limit


def _matches(wanted: bytes, tag: bytes | None) -> bool:
    """Weak comparison of an If-None-Match list with an entity tag (RFC 9110 §13.1.2)."""
    if wanted.strip() == b"*":
        return True
    if tag is None:
        return False
    tags = _TAG.findall(wanted) or [wanted.strip()]
    return _weak(tag) in map(_weak, tags)


def _weak(tag: bytes) -> bytes:
    return tag[2:] if tag.startswith(b"W/") else tag


def _part(stored: Response, wanted: bytes, condition: bytes | None) -> Response:
    """The part of a body that a single range asks for; the whole when there are several, or the condition fails."""
    found = _RANGE.fullmatch(wanted.strip(b" \t"))
    if found is None or found[0].endswith(b"=-") or not (found[1] or found[2]):
        return stored
    if condition is not None and not _unchanged(stored.headers, condition):
        return stored
    length = len(stored.body)
    if not found[1]:  # the last so many bytes
        first, last = max(0, length - int(found[2])), length - 1
    else:
        first, last = int(found[1]), min(int(found[2] or length), length - 1)
        if found[2] and int(found[2]) < first:
            return stored  # not a valid range: ignored
    headers = [item for item in stored.headers if item[0] not in (b"content-length", b"content-range")]
    if first > last or first >= length:
        headers = [
            item for item in headers if item[0] not in _OF_CONTENT and item[0] not in (b"etag", b"last-modified")
        ]
        return Response(416, [*headers, (b"content-range", b"bytes */%d" % length), (b"content-length", b"0")], b"")
    span = (b"content-range", b"bytes %d-%d/%d" % (first, last, length))
    return Response(
        206, [*headers, span, (b"content-length", b"%d" % (last - first + 1))], stored.body[first : last + 1]
    )


def _unchanged(headers: Headers, condition: bytes) -> bool:
    """If-Range: a strong entity tag, or exactly the date of the last change (RFC 9110 §13.1.5)."""
    if b'"' in condition:
        return same_strong(condition, field(headers, b"etag"))
    return condition == field(headers, b"last-modified")
