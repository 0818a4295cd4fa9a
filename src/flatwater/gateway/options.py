"""OPTIONS requests that go no further than the gateway (RFC 9110, sections 7.6.2 and 9.3.7)."""

from __future__ import annotations

from flatwater.gateway.error import RefusedError
from flatwater.gateway.message import Header, field
from flatwater.gateway.request import Request, response_headers
from flatwater.gateway.transit import Transit

_ALLOWED = ((b"allow", b"GET, HEAD, POST, PUT, DELETE, PATCH, OPTIONS"), (b"content-length", b"0"))


def may_end_here(request: Request) -> bool:
    return request.path == b"*" or field(request.headers, b"max-forwards") is not None


def ends_here(request: Request) -> bool:
    """Whether the gateway is the last recipient: the request asks for the server as a whole, or its Max-Forwards has
    come to 0. One that goes on has it lowered. Raises RefusedError when it is no number."""
    if request.path == b"*":
        return True
    given = field(request.headers, b"max-forwards")
    if given is None:
        return False
    if not given.isdigit() or len(given) > 9:
        raise RefusedError("Max-Forwards is no number")
    left = int(given) - 1
    if left < 0:
        return True
    others = [item for item in request.headers if item[0] != b"max-forwards"]
    request.headers = [*others, (b"max-forwards", b"%d" % left)]
    return False


async def tell_options(transit: Transit, via: Header) -> None:
    """Say what the gateway itself allows; its services may know more methods, or fewer."""
    request = transit.request
    assert request is not None
    extra = [*_ALLOWED, via, (b"x-request-id", request.id)]
    await transit.start(200, response_headers([], extra, bodyless=False))
    await transit.send({"type": "http.response.body", "body": b""})
