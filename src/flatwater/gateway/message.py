"""Heads of requests and responses, and how a request's head is written (RFC 9112)."""

from __future__ import annotations

from collections.abc import Iterable
from http import HTTPStatus

import msgspec

from flatwater.gateway.error import FramingError

Header = tuple[bytes, bytes]
Headers = list[Header]

STATUS_LINES = {
    status: b"HTTP/1.1 %d %b\r\n" % (status, HTTPStatus(status).phrase.encode() if status in set(HTTPStatus) else b"")
    for status in range(200, 600)
}

IDEMPOTENT = frozenset({b"GET", b"HEAD", b"OPTIONS", b"TRACE", b"PUT", b"DELETE"})
"""Methods that may be sent again when nobody knows whether they were acted on (RFC 9110, section 9.2.2)."""

SAFE = frozenset({b"GET", b"HEAD", b"OPTIONS", b"TRACE"})
"""Methods that ask for no change (RFC 9110, section 9.2.1)."""

HOP_BY_HOP = frozenset(
    {
        b"connection",
        b"keep-alive",
        b"proxy-authenticate",
        b"proxy-authorization",
        b"proxy-connection",
        b"te",
        b"trailer",
        b"transfer-encoding",
        b"upgrade",
    }
)
"""Fields of one connection, never forwarded as they are (RFC 9110, section 7.6.1)."""


class RequestHead(msgspec.Struct):
    """``headers`` have lower-case names and raw values, in order; they hold Host but no framing (the client adds it).

    ``lines`` are ``line_count`` more fields, written already, each with its line end. ``upgrade`` asks the client to
    let the upstream switch protocols (``Connection: upgrade``). ``trailers`` follow a body that goes chunked and whole.
    """

    method: bytes
    target: bytes
    headers: Headers
    lines: bytes = b""
    line_count: int = 0
    upgrade: bytes = b""
    trailers: Headers = []


class ResponseHead(msgspec.Struct):
    """``status`` in 200 … 599 (or 101 after an upgrade), ``headers`` with lower-case names, framing included. The
    reason phrase means nothing (RFC 9112, section 4) and is not kept."""

    status: int
    headers: Headers


def write_request(head: RequestHead, length: int | None) -> bytes:
    """The bytes of a request's head; ``length`` of the body, None when it goes chunked.

    Raises FramingError when a name, a value or the target would break out of its line.
    """
    headers = head.headers
    count = len(headers) + head.line_count + 2
    framing = b"\r\n"
    if length is None:
        framing = b"transfer-encoding: chunked\r\n\r\n"
        count += 1
    elif length or head.method in _BODY_EXPECTED:
        framing = b"content-length: %d\r\n\r\n" % length
        count += 1
    if head.upgrade:
        framing = b"connection: upgrade\r\nupgrade: %b\r\n%b" % (head.upgrade, framing)
        count += 2
    fields = [name + b": " + value for name, value in headers]
    text = b"%b %b HTTP/1.1\r\n%b\r\n%b%b" % (head.method, head.target, b"\r\n".join(fields), head.lines, framing)
    if text.count(b"\n") != count or text.count(b"\r") != count or b"\0" in text:
        raise FramingError("a header or the target holds a line break or NUL")
    return text


_BODY_EXPECTED = frozenset({b"POST", b"PUT", b"PATCH"})  # RFC 9110, 8.6: these say "content-length: 0"


def write_chunk(data: bytes) -> bytes:
    """One chunk; ``data`` must not be empty, for an empty chunk ends the body."""
    return b"%x\r\n%b\r\n" % (len(data), data)


def write_end(trailers: Iterable[Header] = ()) -> bytes:
    """The last chunk and the trailer section. Raises FramingError when a trailer would break out of its line."""
    fields = [name + b": " + value for name, value in trailers]
    text = b"\r\n".join([b"0", *fields, b"", b""])
    if text.count(b"\n") != len(fields) + 2 or text.count(b"\r") != len(fields) + 2:
        raise FramingError("a trailer holds a line break")
    return text


def tokens(value: bytes) -> list[bytes]:
    """The lower-case members of a comma-separated list (RFC 9110, section 5.6.1)."""
    if b"," not in value:
        found = value.strip().lower()
        return [found] if found else []
    return [token for part in value.lower().split(b",") if (token := part.strip())]


def field(headers: Iterable[Header], name: bytes) -> bytes | None:
    """The first value of a field, None when it is absent."""
    for other, value in headers:
        if other == name:
            return value
    return None
