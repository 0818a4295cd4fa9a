"""The heads of a connection's requests as llhttp finds them, within limits."""

from __future__ import annotations

import httptools

from flatwater.gateway.config import Front
from flatwater.gateway.error import HeadSizeError, TargetError, TargetSizeError
from flatwater.gateway.flow import Flow
from flatwater.gateway.message import Headers
from flatwater.gateway.request import HOST_CHARACTERS, NOTED, given_id


class Intake(Flow):
    """Gathers one head after the other. Raises HeadSizeError and TargetSizeError from within the parser."""

    __slots__ = (
        "_begun",
        "_between",
        "_expects",
        "_framed",
        "_headers",
        "_id",
        "_in_head",
        "_limits",
        "_max_headers",
        "_noted",
        "_parser",
        "_place",
        "_stopped",
        "_url",
    )

    def __init__(self, limits: Front) -> None:
        super().__init__()
        self._limits = limits
        self._max_headers = limits.max_headers
        self._parser = httptools.HttpRequestParser(self)
        self._between = True  # the parser is between two requests
        self._stopped = False  # the parser stops after this head, though it need not
        self._begun = 0  # requests in this read
        self._in_head = True
        self._url = b""
        self._headers: Headers = []
        self._noted: Headers = []  # those of them that are not for the upstream alone
        self._expects = self._framed = False
        self._place: tuple[bytes, bytes] | None = None  # host and target, if no field tells the cache more
        self._id = b""

    def on_message_begin(self) -> None:
        self._begun += 1
        self._between = False
        self._in_head = True
        self._url = b""
        self._headers = []
        self._noted = []

    def on_url(self, url: bytes) -> None:
        self._url += url
        if len(self._url) > self._limits.max_target_bytes:
            raise TargetSizeError(f"it is longer than {self._limits.max_target_bytes} bytes")

    def on_header(self, name: bytes, value: bytes) -> None:
        if not self._in_head:
            self.on_trailer(name.lower(), value)  # kept apart: nobody has checked it (RFC 9110, 6.5.1)
            return
        name = name.lower()
        headers = self._headers
        item = (name, value)
        headers.append(item)
        if len(headers) > self._max_headers:
            raise HeadSizeError(f"there are more than {self._max_headers} fields")
        if name in NOTED:
            self._noted.append(item)

    def _is_one(self, data: bytes) -> bool:
        """Whether one head has been found in what was parsed last, whole and without a body, and nothing else."""
        return self._begun == 1 and self._between and data.find(b"\r\n\r\n") == len(data) - 4

    def _survey(self, size: int) -> None:
        """What the fields of a whole head tell; it has no more than ``size`` bytes."""
        host: bytes | None = None
        id: bytes | None = None
        self._expects = self._framed = False
        plain = self._url[:1] == b"/" and size <= self._limits.max_head_bytes
        for name, value in self._noted:
            if name == b"host" and host is None:
                host = value
            elif name == b"x-request-id" and id is None:
                id = value
            elif name != b"connection" or value.lower() != b"keep-alive":
                plain = False
                if name == b"expect":
                    self._expects = value.lower() == b"100-continue"
                elif name == b"content-length" or name == b"transfer-encoding":
                    self._framed = True
        self._id = given_id(id) if id else b""
        self._place = (host, self._url) if plain and host else None

    def _carries_on(self) -> bool:
        """llhttp stops at any Upgrade, and would lose the body. Nobody has to heed one (RFC 9110, 7.8), and but for
        websockets nobody does here."""
        method = self._parser.get_method()
        if method == b"CONNECT":
            return False
        websocket = any(name == b"upgrade" and value.lower() == b"websocket" for name, value in self._headers)
        self._stopped = self._framed or not websocket or method != b"GET"
        return self._stopped

    def _go_on(self) -> None:
        """Parse what follows the head at which the parser has stopped; a body is the last that is parsed."""
        self._stopped = False
        if not self._framed:
            self._parser = httptools.HttpRequestParser(self)
            return
        self._parser = httptools.HttpRequestParser(_Body(self))
        framing = [item for item in self._headers if item[0] in (b"content-length", b"transfer-encoding")]
        lines = b"".join([b"%b: %b\r\n" % item for item in framing])
        self._parser.feed_data(b"POST / HTTP/1.1\r\nconnection: close\r\n" + lines + b"\r\n")

    def on_body(self, data: bytes) -> None:
        raise NotImplementedError

    def on_trailer(self, name: bytes, value: bytes) -> None:
        raise NotImplementedError

    def on_chunk_header(self) -> None:
        raise NotImplementedError

    def on_message_complete(self) -> None:
        raise NotImplementedError

    def _take_authority(self) -> None:
        """A target in absolute form: its authority replaces the Host field (RFC 9112, 3.2.2). Raises TargetError."""
        scheme, separator, rest = self._url.partition(b"://")
        if not separator or scheme.lower() not in (b"http", b"https"):
            return  # the app refuses it
        cut = min((at for at in (rest.find(b"/"), rest.find(b"?")) if at >= 0), default=len(rest))
        authority, path = rest[:cut], rest[cut:]
        if not authority or b"@" in authority:
            raise TargetError("its authority is not acceptable")
        hosts = [index for index, (name, _) in enumerate(self._headers) if name == b"host"]
        if len(hosts) == 1 and not self._headers[hosts[0]][1].translate(None, HOST_CHARACTERS):
            self._headers[hosts[0]] = (b"host", authority)
        self._url = path if path.startswith(b"/") else b"/" + path


class _Body:
    """Tells an intake of a body alone."""

    def __init__(self, intake: Intake) -> None:
        self.on_body = intake.on_body
        self.on_chunk_header = intake.on_chunk_header
        self.on_message_complete = intake.on_message_complete


def split(target: bytes) -> tuple[bytes, bytes]:
    """The path, and the query with its question mark: to a server ``/`` and ``/?`` are two things (RFC 3986, 6.2.3)."""
    cut = target.find(b"?")
    return (target, b"") if cut < 0 else (target[:cut], target[cut:])
