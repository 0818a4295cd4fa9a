"""What a request must be before it is forwarded, and what of it is.

ASGI servers hide the framing, and not all of them refuse what is ambiguous; so everything on which two parsers could
disagree is checked here again (RFC 9112, sections 3.2, 6.1, 6.3 and 11.2).
"""

from __future__ import annotations

import ipaddress
import re
import secrets
import time
from collections.abc import MutableMapping, Sequence
from functools import lru_cache
from itertools import chain, count
from typing import Any

from flatwater.gateway.config import Front
from flatwater.gateway.demand import DEMANDING
from flatwater.gateway.error import (
    CodingError,
    ExpectationError,
    FramingError,
    HeadSizeError,
    HostError,
    LoopError,
    MethodError,
    RefusedError,
    TargetError,
    TargetSizeError,
    VersionError,
)
from flatwater.gateway.message import Header, Headers, tokens
from flatwater.gateway.moment import write as write_date

Scope = MutableMapping[str, Any]

_VISIBLE = bytes(range(0x21, 0x7F))
_TARGET = bytes(set(_VISIBLE) - set(b"#\\"))
HOST_CHARACTERS = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789.-_:[]%"
_NAME = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789!#$%&'*+-.^_`|~"
_REFUSED_METHODS = frozenset({b"CONNECT", b"TRACE", b"PRI"})
_BAD_ESCAPE = re.compile(rb"%(?![0-9A-Fa-f]{2})|%00")
_MAX_VIA = 10
_MAX_ID_BYTES = 128

_SPECIAL = frozenset(
    {
        *(b"host", b"content-length", b"transfer-encoding", b"expect", b"via", b"x-request-id"),
        *(b"forwarded", b"x-forwarded-for", b"x-forwarded-proto", b"x-forwarded-host"),
        *(b"connection", b"keep-alive", b"proxy-authenticate", b"proxy-authorization", b"proxy-connection"),
        *(b"te", b"trailer", b"upgrade"),
    }
)
NOTED = _SPECIAL | DEMANDING
"""Fields that are more than what is passed on: the gateway or its cache heeds them."""

_ONCE = frozenset({b"host", b"content-length", b"transfer-encoding", b"expect", b"upgrade", b"x-request-id"})
_LISTS = frozenset({b"connection", b"via", b"forwarded", b"x-forwarded-for", b"te"})
_FIRST = frozenset({b"x-forwarded-proto", b"x-forwarded-host"})

_CONTINUED = frozenset({b"via", b"forwarded", b"x-forwarded-for", b"x-forwarded-proto", b"x-forwarded-host", b"te"})

_METHODS = {name: name.encode() for name in ("GET", "HEAD", "POST", "PUT", "DELETE", "PATCH", "OPTIONS")}

_id_prefix = secrets.token_hex(6).encode()
_ids = count(1)


class Request:
    """A request that has passed the checks. ``headers`` are those to forward, without Host and framing.

    ``path`` is raw (percent-encoded), without what the app is mounted under; ``query`` begins with its question mark,
    which may be all of it; ``target`` is what the upstream gets;
    ``length`` of the body: None when chunked. ``special`` holds the fields that the gateway deals with, by name;
    ``demands`` tells whether others are there that a cache must heed.
    """

    __slots__ = (
        "client",
        "demands",
        "expects",
        "headers",
        "host",
        "id",
        "length",
        "method",
        "path",
        "query",
        "scheme",
        "special",
        "takes_trailers",
        "target",
        "upgrade",
        "version",
    )

    method: bytes
    path: bytes
    query: bytes
    target: bytes
    host: bytes
    client: str
    headers: Headers
    length: int | None
    expects: bool
    upgrade: bytes
    takes_trailers: bool
    id: bytes
    version: str
    scheme: str
    special: dict[bytes, bytes]
    demands: bool

    def arrived(self, client: str) -> Request:
        """The same request from ``client``, with an id of its own unless the head gave one."""
        request = Request()
        request.method = self.method
        request.path = self.path
        request.query = self.query
        request.target = self.target
        request.host = self.host
        request.client = client
        request.headers = self.headers
        request.length = self.length
        request.expects = self.expects
        request.upgrade = self.upgrade
        request.takes_trailers = self.takes_trailers
        request.id = self.id or fresh_id()
        request.version = self.version
        request.scheme = self.scheme
        request.special = self.special
        request.demands = self.demands
        return request


class Inspector:
    """Checks requests by the rules of ``front``, for one gateway."""

    def __init__(self, front: Front) -> None:
        self._front = front
        self.max_message_bytes = front.max_message_bytes
        self._max_target_bytes = front.max_target_bytes
        self.via = b"1.1 " + front.via.encode()
        networks = [ipaddress.ip_network(network) for network in front.trusted_proxies]

        @lru_cache(maxsize=1024)
        def trusted(client: str) -> bool:
            try:
                address = ipaddress.ip_address(client)
            except ValueError:
                return False
            return any(address in network for network in networks)

        self._trusted = trusted if networks else (lambda client: False)

    def inspect(self, scope: Scope) -> Request:
        """Raises RefusedError (and its kinds) with the status that the client gets."""
        path = scope.get("raw_path") or scope["path"].encode()
        root = scope.get("root_path")
        if root and path.startswith(root_path := root.encode()):
            path = path[len(root_path) :] or b"/"
        scheme = scope.get("scheme", "http")
        query = scope.get("flatwater.query")
        if query is None:
            query = b"?" + scope["query_string"] if scope["query_string"] else b""
        request = self.check(scope["method"], scope["http_version"], path, query, scope["headers"], scheme)
        client = scope.get("client")
        request.client = client[0] if client else ""
        request.id = request.id or fresh_id()
        return request

    def check(
        self, method: str, version: str, path: bytes, query: bytes, headers: Headers, scheme: str = "http"
    ) -> Request:
        """What follows from the head alone: the client is open, and so is the id unless the head gives one.

        Raises as ``inspect``."""
        request = Request()
        request.method = _METHODS.get(method) or _method(method)
        request.version = version
        if version != "1.1" and version not in ("1.0", "2", "3"):
            raise VersionError(version) if version != "0.9" else RefusedError("there is no HTTP version")
        self._target(request, path, query)
        request.client = ""
        request.scheme = scheme
        request.special = special = self._fields(request, headers)
        host = special.get(b"host")
        if not host or host.translate(None, HOST_CHARACTERS):
            host = self._odd_host(version, host)
        request.host = host
        request.id = given_id(special[b"x-request-id"]) if b"x-request-id" in special else b""
        if len(special) == (host != b"") + (request.id != b""):  # nothing but Host and an id, as most are
            request.length = 0
            request.expects = request.takes_trailers = False
            request.upgrade = b""
        else:
            self._framing(request, special)
            self._connection(request, special)
        return request

    def _target(self, request: Request, path: bytes, query: bytes) -> None:
        if len(path) + len(query) > self._max_target_bytes:
            raise TargetSizeError(f"it is longer than {self._front.max_target_bytes} bytes")
        if not path.startswith(b"/") and (path != b"*" or request.method != b"OPTIONS"):
            raise TargetError("it does not begin with a slash")
        if path.translate(None, _TARGET) or (query and query.translate(None, _TARGET)):
            raise TargetError("it holds characters that must be percent-encoded")
        if b".." in path or b"%" in path:
            _refuse_disguise(path)
        request.path = path
        request.query = query
        request.target = b""

    def _fields(self, request: Request, headers: Headers) -> dict[bytes, bytes]:
        """Fill ``request.headers`` with what is forwarded as it is; return the rest by name."""
        if len(headers) > self._front.max_headers:
            raise HeadSizeError(f"there are more than {self._front.max_headers} fields")
        kept: Headers = []
        special: dict[bytes, bytes] = {}
        request.demands = False
        for item in headers:
            name, value = item
            if name not in NOTED:
                kept.append(item)
            elif name not in _SPECIAL:
                kept.append(item)
                request.demands = True
            elif name not in special:
                special[name] = value
            elif name in _LISTS:
                special[name] += b", " + value
            elif name in _ONCE:
                _refuse_twice(name)
        if sum(map(len, chain.from_iterable(headers))) > self._front.max_head_bytes:
            raise HeadSizeError(f"it is larger than {self._front.max_head_bytes} bytes")
        request.headers = kept
        return special

    def _framing(self, request: Request, special: dict[bytes, bytes]) -> None:
        length = special.get(b"content-length")
        coding = special.get(b"transfer-encoding")
        if length is None:
            request.length = 0
        elif not length.isdigit() or len(length) > 18:
            raise FramingError("Content-Length is no number")
        else:
            request.length = int(length)
        if coding is not None:
            if length is not None:
                raise FramingError("both Content-Length and Transfer-Encoding are given")
            if request.version == "1.0":
                raise FramingError("Transfer-Encoding does not exist in HTTP/1.0")
            if coding.lower() != b"chunked":
                raise CodingError(repr(coding[:40])[1:])
            request.length = None
        expects = special.get(b"expect", b"") if request.version != "1.0" else b""  # RFC 9110, 10.1.1
        request.expects = bool(expects)
        if expects and expects.lower() != b"100-continue":
            raise ExpectationError(repr(expects[:40])[1:])

    def _odd_host(self, version: str, host: bytes | None) -> bytes:
        if host is None and version == "1.0":
            return b""
        raise HostError("the Host field holds characters that no host has" if host else "there is no Host field")

    def _connection(self, request: Request, special: dict[bytes, bytes]) -> None:
        request.upgrade = b""
        request.takes_trailers = b"te" in special and b"trailers" in tokens(special[b"te"])
        connection = special.get(b"connection")
        if connection is None:
            return
        named = tokens(connection)
        if b"upgrade" in named and request.version == "1.1" and _is_handshake(request.method, special):
            request.upgrade = special[b"upgrade"]
        named = [name for name in named if name not in (b"keep-alive", b"close", b"upgrade", b"te")]
        if named:  # whatever the sender meant for this connection only
            request.headers = [item for item in request.headers if item[0] not in named]

    def forwarded(self, request: Request) -> tuple[bytes, int]:
        """What a proxy adds, as lines and their count: Via, Forwarded (RFC 7239), X-Forwarded-*, X-Request-Id (last).

        Raises LoopError when the request has come through here too often."""
        return self.added(request, request.client, request.id)

    def added(self, request: Request, client: str, id: bytes) -> tuple[bytes, int]:
        """``forwarded`` of a request that does not know its client and id."""
        special = request.special
        host = request.host
        if _CONTINUED.isdisjoint(special):
            start = _client_lines(self.via, client, request.scheme)
            return b'%b%b"\r\nx-forwarded-host: %b\r\nx-request-id: %b\r\n' % (start, host, host, id), 6
        via = special.get(b"via")
        if via is not None and via.count(self.via) >= _MAX_VIA:
            raise LoopError(f"Via names {self._front.via} {_MAX_VIA} times")
        name, forwarded, proto = _client_fields(client, request.scheme)
        forwarded += b';host="' + host + b'"'
        if self._trusted(client):
            if (before := special.get(b"x-forwarded-for")) is not None:
                name = before + b", " + name
            if (before := special.get(b"forwarded")) is not None:
                forwarded = before + b", " + forwarded
            proto = special.get(b"x-forwarded-proto", proto)
            host = special.get(b"x-forwarded-host", host)
        fields = [
            b"via: " + (self.via if via is None else via + b", " + self.via),
            b"forwarded: " + forwarded,
            b"x-forwarded-for: " + name,
            b"x-forwarded-proto: " + proto,
            b"x-forwarded-host: " + host,
        ]
        if request.takes_trailers:
            fields += (b"te: trailers", b"connection: te")
        fields.append(b"x-request-id: " + id)
        return b"\r\n".join(fields) + b"\r\n", len(fields)


@lru_cache(maxsize=1024)
def _client_lines(via: bytes, client: str, scheme: str) -> bytes:
    """The first of the added lines, up to the host in Forwarded."""
    name, forwarded, proto = _client_fields(client, scheme)
    return b'via: %b\r\nx-forwarded-for: %b\r\nx-forwarded-proto: %b\r\nforwarded: %b;host="' % (
        *(via, name, proto, forwarded),
    )


@lru_cache(maxsize=1024)
def _client_fields(client: str, scheme: str) -> tuple[bytes, bytes, bytes]:
    """The client as X-Forwarded-For, Forwarded and X-Forwarded-Proto tell it."""
    name = client.encode("ascii", "replace") or b"unknown"
    node = b'"[%b]"' % name if b":" in name else name
    proto = scheme.encode()
    return name, b"for=%b;proto=%b" % (node, proto), proto


def fresh_id() -> bytes:
    """An id for a request that brought none: unique in this process, and most likely among processes."""
    return b"%b%010x" % (_id_prefix, next(_ids))


def given_id(given: bytes) -> bytes:
    """The id that a request brought; empty when it could not be passed on."""
    return given if len(given) <= _MAX_ID_BYTES and not given.translate(None, _VISIBLE) else b""


def _method(name: str) -> bytes:
    """Any other method. Raises MethodError when it is none, or not to be forwarded."""
    method = name.encode()
    if not method or method in _REFUSED_METHODS or method.translate(None, _NAME):
        raise MethodError(name)
    return method


def _is_handshake(method: bytes, special: dict[bytes, bytes]) -> bool:
    """Whether a protocol may be switched: what is no GET, or has a body, is a request like others (RFC 6455, 4.1)."""
    unframed = b"content-length" not in special and b"transfer-encoding" not in special
    return b"upgrade" in special and method == b"GET" and unframed


def _refuse_twice(name: bytes) -> None:
    if name == b"host":
        raise HostError("the Host field is there twice")
    if name in (b"content-length", b"transfer-encoding"):
        raise FramingError(f"{name.decode()} is there twice")
    raise RefusedError(f"{name.decode()} is there twice")


def _refuse_disguise(path: bytes) -> None:
    """Segments of dots would leave the prefix by which the service was chosen (RFC 3986, 5.2.4); what is no encoding,
    or that of NUL, is read in more than one way."""
    if _BAD_ESCAPE.search(path):
        raise TargetError("it holds a '%' that encodes no character, or NUL")
    plain = path.lower().replace(b"%2e", b".").replace(b"%2f", b"/").replace(b"%5c", b"/")
    if b".." in plain.split(b"/"):
        raise TargetError("it holds a '..' segment")


def response_headers(headers: Headers, extra: Sequence[Header], *, bodyless: bool, interim: bool = False) -> Headers:
    """What of an answer's head goes to the client: no hop-by-hop fields, and those that the gateway adds, with a Date
    for an answer that has none (RFC 9110, 6.6.1); ``interim`` ones need none.

    ``bodyless``: 204 and 304, whose Content-Length tells of a body that is not there.
    """
    kept: Headers = []
    named: list[bytes] = []
    dated = interim
    for item in headers:
        name = item[0]
        if name not in _RESPONSE_SPECIAL:
            kept.append(item)
        elif name == b"connection":
            if item[1].lower() not in _PERSISTENCE:
                named += tokens(item[1])
        elif name == b"date":
            dated = True
            kept.append(item)
        elif name == b"content-length" and not bodyless:
            kept.append(item)
    if not dated:
        kept.append((b"date", write_date(time.time())))
    if named:
        kept = [item for item in kept if item[0] not in named or item[0] == b"content-length"]
    kept += extra
    return kept


_PERSISTENCE = frozenset({b"keep-alive", b"close"})  # options of Connection that name no field

_RESPONSE_SPECIAL = frozenset(
    {
        *(b"connection", b"keep-alive", b"proxy-connection", b"te", b"trailer", b"transfer-encoding", b"upgrade"),
        *(b"x-request-id", b"content-length", b"x-flatwater-reason", b"date"),
    }
)
