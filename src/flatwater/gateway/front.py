"""The gateway's own HTTP/1.1 protocol for uvicorn: llhttp in front of an ASGI app, with the limits that uvicorn's own
lacks (heads, time for a head, connections), response trailers, chunks never sent to HTTP/1.0, and tunnels.

It is passed as ``uvicorn.Config(http=…)``; uvicorn keeps what it does well: sockets, start and graceful stop. The app
finds ``flatwater.abort`` (cut the connection) and ``flatwater.tunnel`` (see flatwater.gateway.tunnel) in
``scope["extensions"]``.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Any, Protocol, cast
from urllib.parse import unquote

import httptools

from flatwater.bounded import Ledger, TaskGroup
from flatwater.bounded.ledger import Usage
from flatwater.errors import ClosedError, LimitError
from flatwater.gateway.config import Front as FrontRule
from flatwater.gateway.config import Listen
from flatwater.gateway.cycle import Cycle, Job
from flatwater.gateway.error import HeadSizeError, OverloadError, RefusedError
from flatwater.gateway.head import Head, Heads
from flatwater.gateway.intake import split
from flatwater.gateway.message import Headers
from flatwater.gateway.proxy import Known, Write
from flatwater.gateway.refusing import Refusing, malformed
from flatwater.gateway.sweeper import Sweeper
from flatwater.gateway.transit import Scope

log = logging.getLogger(__name__)

_READ_HIGH_BYTES = 64 * 1024
_LINGER_S = 2.0


class App(Protocol):
    """An ASGI app that may know heads it has seen, and answer at once: flatwater.gateway.proxy.Proxy says how."""

    heads: Heads

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None: ...
    def recognise(
        self, method: str, version: str, path: bytes, query: bytes, fields: Headers, scheme: str, keep_alive: bool
    ) -> Head | None: ...
    def glance(self, head: Head, fields: Headers, id: bytes, client: str, write: Write) -> bool: ...
    def quick(self, head: Head, client: str, write: Write) -> Known | None: ...
    def express(self, outlet: Cycle, head: Head, client: str) -> bool: ...


class FrontStatistics(Usage, frozen=True, kw_only=True):
    """``size`` connections of clients are open, of ``bound``; ``bytes`` wait for clients that take them slowly. The
    rest counts since the start."""

    accepted: int
    requests: int
    refused: int
    timeouts: int


class Hall:
    """What the connections of one listener share: limits, tasks, the clock. ``connection`` is uvicorn's protocol."""

    kind = "client connections"

    def __init__(
        self,
        app: App,
        listen: Listen,
        front: FrontRule,
        tasks: TaskGroup,
        *,
        ledger: Ledger,
        name: str = "gateway clients",
    ) -> None:
        self.name = name
        self.app = app
        self.known = app.heads.get
        self.listen = listen
        self.front = front
        self.tasks = tasks
        self.connections: set[FrontConnection] = set()
        self.sweeper = Sweeper(tick_s=1.0)
        self.sweeper.add(self)
        self.now = 0.0
        self.draining = False
        self.accepted = self.requests = self.refused = self.timeouts = 0
        ledger.register(self)

    def connection(self, **given: Any) -> FrontConnection:
        return FrontConnection(self, given["server_state"])

    def sweep(self, now: float) -> None:
        self.now = now
        for connection in list(self.connections):
            connection.sweep(now)

    def close_idle(self) -> None:
        """Ask all connections to end: idle ones now, others with their answer."""
        for connection in list(self.connections):
            connection.shutdown()

    def statistics(self) -> FrontStatistics:
        return FrontStatistics(
            size=len(self.connections),
            bound=self.listen.max_connections,
            bytes=sum(connection.transport.get_write_buffer_size() for connection in self.connections),
            accepted=self.accepted,
            requests=self.requests,
            refused=self.refused,
            timeouts=self.timeouts,
        )


class FrontConnection(Refusing):
    """A client's connection. Requests that arrive while one is answered wait their turn, and reading pauses."""

    __slots__ = (
        *(
            "_address",
            "_bare",
            "_client",
            "_early",
            "_extensions",
            "_hall",
            "_keep_alive",
        ),
        *("_latest", "_repeated", "_server", "_state", "_version"),
    )

    def __init__(self, hall: Hall, state: Any) -> None:
        super().__init__(hall)
        self._hall: Hall = hall
        self._state = state
        self._early = b""  # bytes after the head of an upgrade
        self._bare = False  # this is a request without a body whose turn it is
        self._version = ""
        self._keep_alive = True  # after it
        self._repeated = False  # the bytes of this read have come before
        self._latest: Head | None = None  # the last request without a body in this read
        self._extensions = {
            "http.response.trailers": {},
            "flatwater.abort": self.abort,
            "flatwater.interim": self._inform,
        }

    # asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self._address = transport.get_extra_info("peername")
        self._server = transport.get_extra_info("sockname")
        if isinstance(self._address, tuple):
            self._address = self._address[:2]
            self._server = self._server[:2]
        else:
            self._address = None
        self._client = self._address[0] if self._address else ""
        self._scheme = "https" if transport.get_extra_info("sslcontext") is not None else "http"
        hall = self._hall
        hall.accepted += 1
        hall.connections.add(self)
        self._state.connections.add(self)
        if len(hall.connections) > hall.listen.max_connections:
            self._refuse_now(OverloadError("too many connections"))

    def data_received(self, data: bytes) -> None:
        resting = self._resting
        if resting and (head := self._hall.known(data)) is not None and head.request.scheme == self._scheme:
            self._idle_from = 0.0
            self._head_bytes = 0
            self._answer(head)
            return
        self._resting = False
        if self.side is not None:
            self.side.feed(data)
            return
        if self._refusal is not None:
            self._linger(len(data))
            return
        self._idle_from = 0.0
        self._head_bytes += len(data)
        self._repeated = resting and self._hall.app.heads.again(data)
        self._parse(data)
        if self._repeated and (head := self._latest) is not None and self._refusal is None and self._is_one(data):
            self._hall.app.heads.enter(data, head)
        self._begun = 0
        self._latest = None

    def _parse(self, data: bytes) -> None:
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            rest = data[upgrade.args[0] :]
            if self._stopped:
                self._go_on()
                if rest:
                    self._parse(rest)
            else:
                self._early = rest
                self.pause_reading()
        except httptools.HttpParserError as error:
            self._malformed(error)
        else:
            if self._head_bytes > self._hall.front.max_head_bytes:
                self._check_head()
            elif self.cycle is None:
                self._rest()

    def _malformed(self, error: httptools.HttpParserError) -> None:
        """Not done in ``_parse``: the cause holds that frame, so that frame must not hold the cause."""
        cause = error.__context__
        if cause is not None and not isinstance(cause, RefusedError):
            log.error("the front failed over a request", exc_info=cause)
        if self._between and not self._keep_alive:  # what follows the last request is not looked at
            self._refusal = RefusedError()
        else:
            self._refuse(cause if isinstance(cause, RefusedError) else malformed(str(error)))

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._hall.connections.discard(self)
        self._state.connections.discard(self)
        if self.side is not None:
            self.side.lost()
        for cycle in (self.cycle, *self._queue):
            if cycle is not None:
                cycle.disconnect()
        self._queue.clear()
        # No cycle is left for the collector: connections may come and go faster than it runs.
        self.cycle = self._latest = self._refusal = None
        self._extensions = {}
        del self._parser

    def resume_writing(self) -> None:
        super().resume_writing()
        if self.cycle is not None:
            self.cycle.resume()

    # httptools

    def on_headers_complete(self) -> None:
        self._in_head = False
        self._survey(self._head_bytes)
        self._head_bytes = 0
        parser = self._parser
        if self._url[:1] != b"/":
            self._take_authority()
        upgrades = parser.should_upgrade() and not self._carries_on()
        self._version = version = parser.get_http_version()
        last = upgrades or (self._stopped and self._framed)
        self._keep_alive = not last and version == "1.1" and parser.should_keep_alive()
        busy = self.cycle is not None
        if not (busy or upgrades or self._framed or self._expects):
            self._bare = True  # on_message_complete follows at once
            return
        path, query = split(self._url)
        self._expects = self._expects and version == "1.1"
        cycle = self._cycle(parser.get_method().decode("ascii"), version, path, query, self._headers)
        if upgrades:
            cycle.scope["extensions"] = {**self._extensions, "flatwater.tunnel": self}
        if busy:
            self._queue.append(cycle)
            self.pause_reading()
        else:
            self._start(cycle)

    def on_body(self, data: bytes) -> None:
        cycle = self._queue[-1] if self._queue else self.cycle
        self._head_bytes = 0
        if cycle is not None and cycle.feed(data) > _READ_HIGH_BYTES:
            self.pause_reading()

    def on_trailer(self, name: bytes, value: bytes) -> None:
        cycle = self._queue[-1] if self._queue else self.cycle
        if cycle is not None and cycle.trail(name, value) > self._limits.max_headers:
            raise HeadSizeError(f"there are more than {self._limits.max_headers} trailers")

    def on_chunk_header(self) -> None:
        self._head_bytes = 0

    def on_message_complete(self) -> None:
        if self._stopped and self._framed:
            return  # the parser thinks so: its body follows
        self._between = True
        if self._bare:
            self._bare = False
            self._begin()
            return
        cycle = self._queue[-1] if self._queue else self.cycle
        if cycle is not None:
            cycle.end()

    # For cycles and tunnels.

    def tunnel(self, side: Any) -> bytes:
        """From now on the bytes are ``side``'s; returns those that came after the head."""
        self.side = side
        early, self._early = self._early, b""
        return early

    def finished(self, cycle: Cycle) -> None:
        """The answer of ``cycle`` is written."""
        if self.cycle is not cycle or self.closed:
            return
        self.cycle = None
        self._state.total_requests += 1
        if not cycle.keep_alive or self._hall.draining:
            self.close() if self._refusal is None and not cycle.receiving else self._part()
        elif self._queue:
            self._start(self._queue.popleft())
        elif self._refusal is not None:
            self._refuse_now(self._refusal)
        else:
            self._idle_from = 0.0
            self._rest()
            self.resume_reading()

    def _inform(self, status: int, headers: list[tuple[bytes, bytes]]) -> None:
        """An interim answer to the request under way."""
        if self.cycle is not None:
            self.cycle.inform(status, headers)

    def shutdown(self) -> None:
        """For uvicorn and for drains: end soon."""
        if self.side is not None:
            self.abort()
        elif self.cycle is None:
            self.close()
        else:
            self.cycle.keep_alive = False

    def sweep(self, now: float) -> None:
        """Close what was idle too long, or dawdles with a head."""
        if self._refusal is not None and self.cycle is None:
            if now - self._idle_from >= _LINGER_S:
                self.abort()
            return
        if self._half_closed:
            self.silent_from = self.silent_from or now
            if now - self.silent_from >= self._hall.front.half_close_s:
                self.abort()
            return
        if self.side is not None or (self.cycle is not None and not self._in_head):
            return
        if not self._idle_from:
            self._idle_from = now
        if self.cycle is not None:
            return
        dawdles = self._head_bytes > 0
        allowed_s = self._hall.listen.head_s if dawdles else self._hall.listen.keep_alive_s
        if now - self._idle_from >= allowed_s:
            self._hall.timeouts += 1
            self.abort() if dawdles else self.close()

    def _rest(self) -> None:
        """Nothing is under way; perhaps the next bytes begin a request."""
        self._resting = self._between and self._refusal is None and self.side is None

    def _begin(self) -> None:
        """Start a request without a body, which is here in full and whose turn it is."""
        app = self._hall.app
        place = self._place
        if place is not None and self._keep_alive and not self._repeated and self._glance(place):
            return
        path, query = split(self._url)
        method, version = self._parser.get_method().decode("ascii"), self._version
        head = app.recognise(method, version, path, query, self._headers, self._scheme, self._keep_alive)
        if head is not None and head.plain and head.key and place is not None and app.heads.again(place):
            app.heads.enter(place, head)
        if head is None:
            cycle = self._cycle(method, version, path, query, self._headers)
            cycle.end()
            self._start(cycle)
        else:
            self._latest = head
            self._answer(head)

    def _glance(self, place: tuple[bytes, bytes]) -> bool:
        """Answer a GET of what others asked for with fields that made no difference, if the cache can."""
        hall = self._hall
        head = hall.known(place)
        if head is None or head.request.scheme != self._scheme or self._parser.get_method() != b"GET":
            return False
        if self.writing_paused or not hall.app.glance(
            head, self._headers, self._id, self._client, self.transport.write
        ):
            return False
        self._answered(head)
        return True

    def _answered(self, head: Head) -> None:
        hall = self._hall
        hall.requests += 1
        self._state.total_requests += 1
        if not head.keep_alive or hall.draining:
            self._resting = False
            self.close()

    def _answer(self, head: Head) -> None:
        """Answer a request without a body from the cache, or with a task."""
        known: Known | None = None
        hall = self._hall
        if head.express and not self.writing_paused and self._express(head):
            return
        if not self.writing_paused and (known := hall.app.quick(head, self._client, self.transport.write)) is None:
            self._answered(head)
            return
        self._resting = False
        request = head.request
        self._keep_alive = head.keep_alive
        self._expects = False
        cycle = self._cycle(head.method, request.version, request.path, request.query, head.fields)
        cycle.end()
        if known is not None:
            cycle.scope["flatwater.known"] = known
        self._start(cycle)

    def _express(self, head: Head) -> bool:
        """Let the app forward a request without a task; False when it needs one."""
        hall = self._hall
        self.cycle = cycle = Cycle(self, head.method, head.request.version, keep_alive=head.keep_alive)
        cycle.head = head
        cycle.end()
        self._resting = False
        if hall.app.express(cycle, head, self._client):
            hall.requests += 1
            return True
        self.cycle = None
        return False

    def scope(self, cycle: Cycle, head: Head) -> Scope:
        """A request without a body as an ASGI app gets it."""
        request = head.request
        return _scope(self, cycle, request.path, request.query, head.fields)

    def _cycle(self, method: str, version: str, path: bytes, query: bytes, headers: Headers) -> Cycle:
        """A request as an ASGI app gets it."""
        cycle = Cycle(self, method, version, keep_alive=self._keep_alive, expects=self._expects)
        cycle.scope = _scope(self, cycle, path, query, headers)
        return cycle

    def _start(self, cycle: Cycle) -> None:
        self.cycle = cycle
        self._hall.requests += 1
        self.run(cycle, self._hall.app)

    def run(self, cycle: Cycle, app: Job) -> bool:
        """Answer with a task; False when there can be none, which is said to the client."""
        try:
            self._hall.tasks.start(cycle.run(app), name="request")
        except (LimitError, ClosedError):
            self._refuse_now(OverloadError("too many requests are under way"))
            return False
        return True


_ASGI = {"version": "3.0", "spec_version": "2.4"}


def _scope(front: FrontConnection, cycle: Cycle, path: bytes, query: bytes, headers: Headers) -> Scope:
    text = path.decode("latin-1")
    return {
        "type": "http",
        "asgi": _ASGI,
        "http_version": cycle.version,
        "server": front._server,
        "client": front._address,
        "scheme": front._scheme,
        "method": cycle.method,
        "root_path": "",
        "path": unquote(text) if "%" in text else text,
        "raw_path": path,
        "query_string": query[1:],
        "flatwater.query": query,
        "headers": headers,
        "extensions": front._extensions,
        "flatwater.whole": cycle.whole,
    }
