"""Fields after a body, and which of them may be there (RFC 9110, section 6.5.1): none that must be known before it, and
none that a recipient could take for a field of the head that has been checked."""

from __future__ import annotations

from collections.abc import Iterable

from flatwater.gateway.message import HOP_BY_HOP, Header, Headers, tokens

FORBIDDEN = HOP_BY_HOP | frozenset(
    {
        *(b"content-length", b"content-encoding", b"content-type", b"content-range", b"host"),
        *(b"authorization", b"cookie", b"set-cookie", b"www-authenticate", b"age", b"date", b"expires", b"location"),
        *(b"retry-after", b"vary", b"warning", b"cache-control", b"pragma", b"expect", b"max-forwards", b"range"),
        *(b"if-match", b"if-none-match", b"if-modified-since", b"if-unmodified-since", b"if-range"),
        *(b"via", b"forwarded", b"x-forwarded-for", b"x-forwarded-proto", b"x-forwarded-host", b"x-request-id"),
    }
)
"""Framing, routing, modifiers of requests, authentication, control data, what says how to take the content, and what
the gateway vouches for."""


def permitted(trailers: Iterable[Header]) -> Headers:
    return [item for item in trailers if item[0] not in FORBIDDEN]


def announced(headers: Iterable[Header]) -> Headers:
    """The Trailer field of a message of which ``permitted`` trailers are sent, if it had one (RFC 9110, 6.6.2)."""
    names = [name for field, value in headers if field == b"trailer" for name in tokens(value) if name not in FORBIDDEN]
    return [(b"trailer", b", ".join(names))] if names else []
