"""ASGI: ``app = flatwater.guard.asgi.install(app)``. Any framework, under uvicorn, alone or as gunicorn's worker."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

import msgspec

from flatwater.bounded import check_bound
from flatwater.guard.channel import Killed
from flatwater.guard.departure import Departure, Siblings
from flatwater.guard.meter import Call
from flatwater.guard.policy import Level, Limits
from flatwater.guard.route import Names, Scope, label
from flatwater.guard.worker import Quarantined, Worker, WorkerStatistics

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

_FOLLOWED = 64  # requests in flight whose peak is followed, and which are named when the process is killed
_TRIM_LOOK_S, _TRIM_WAIT_S = 0.01, 5.0
_CLOSE = (b"connection", b"close")
_KEY = "flatwater.guard"  # in the scope


def install(app: App, **options: Any) -> GuardMiddleware:
    """The app, guarded; serve what this returns. The options are those of :class:`GuardMiddleware`."""
    return GuardMiddleware(app, **options)


class GuardMiddleware:
    """Guards the process that serves an ASGI app: the outermost layer, or ``add_middleware(GuardMiddleware, soft=…)``.

    Limits are bytes, or text as in "600MiB"; None: no limit. At ``soft`` the process leaves without dropping a request:
    each response asks to close its connection, idle ones end by themselves within ``drain_s``, then it takes no more
    and uvicorn finishes what it has. Of the workers of one gunicorn, or of ``uvicorn --workers``, one leaves at a time.
    Who replaces it is gunicorn, or uvicorn's parent, or ``flatwater guard``. At ``hard``, and not before two seconds
    there, the process is killed.

    A row of the table is a route's template where the framework puts its route into the scope (Starlette, FastAPI),
    else the method and the path with its ids folded; at most ``max_names``. Each ``watch_every_s`` at most one
    request's scope is expected dead ``dead_after_s`` after its response. With ``quarantine`` a route in flight at
    several kills is answered 503; it is off because requests in flight at a kill are mostly innocent.
    Raises SettingError for limits that make no sense.
    """

    def __init__(
        self,
        app: App,
        *,
        soft: Level = None,
        hard: Level = None,
        grace_s: float = 600.0,
        drain_s: float = 6.0,
        collect: bool = True,
        quarantine: bool = False,
        max_names: int = 64,
        watch_every_s: float = 0.1,
        dead_after_s: float = 5.0,
        name: str = "",
    ) -> None:
        check_bound("watch_every_s", watch_every_s, where="guard")
        check_bound("dead_after_s", dead_after_s, where="guard")
        self.app = app
        self.departure = Departure(drain_s=drain_s)
        self.worker = RequestWorker(
            f"asgi:{name or getattr(app, '__name__', type(app).__name__)}",
            limits=Limits.given(soft, hard, grace_s),
            departure=self.departure,
            trim=collect,
            quarantine=quarantine,
            max_names=max_names,
        )
        self._names = Names()
        self._watch_every_s, self._dead_after_s = watch_every_s, dead_after_s
        self._next_watch = -float("inf")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        kind = scope["type"]
        if kind == "http":
            method = scope["method"]
        elif kind == "websocket":
            method = "WS"
        else:
            await (self._live if kind == "lifespan" else self.app)(scope, receive, send)
            return
        worker, departure, names = self.worker, self.departure, self._names
        path = scope["path"]
        asked = f"{method} {path}"
        try:
            call = worker.enter(asked)
        except Quarantined as error:
            await _refuse(send, str(error), method)
            return
        token = None
        if call.began >= self._next_watch and method != "WS":
            self._next_watch = call.began + self._watch_every_s
            token = scope[_KEY] = _Token()
        status = 0

        def seen(message: Message) -> Awaitable[None]:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                if departure.asked and scope["http_version"].startswith("1"):  # later versions forbid the header
                    message = closing(message)
            return send(message)

        failed = True
        try:
            await self.app(scope, receive, seen)
            failed = status >= 500
        finally:
            name = asked if asked in names.fixed else names.learn(method, path, scope, status)
            if token is not None:
                worker.expectation.expect_dead(token, f"the request of {name}", after_s=self._dead_after_s)
            worker.leave(call, name, failed)

    async def _live(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.worker.start()
        try:
            await self.app(scope, receive, send)
        finally:
            if self.departure.asked or not self.worker.statistics().size:
                self.worker.close()  # an app without lifespan ends here at once: the first request begins anew


class RequestWorker(Worker):
    """A worker whose tasks overlap in one thread, and which trims between them."""

    def __init__(
        self, name: str, *, limits: Limits, departure: Departure, trim: bool, quarantine: bool, max_names: int
    ) -> None:
        self._in_flight = 0
        self._departure, self._quarantines = departure, quarantine
        self._siblings = Siblings()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._trim_by: float | None = None
        super().__init__(
            name, limits=limits, on_recycle=self._recycle, on_killed=_noted, collect=trim, max_names=max_names
        )

    def enter(self, asked: str) -> Call:
        """A request begins; its name is not known yet. Raises Quarantined, and then ``leave`` must not be called."""
        if self._gauge is None:
            self.start()  # what is quarantined is read then
        if self._quarantine:
            self.admit(label(asked))
        call = self._open(asked, "")
        call.alone = self._in_flight == 0
        self._in_flight += 1
        if len(self._running) < _FOLLOWED:
            self._running[call.number] = call
        return call

    def leave(self, call: Call, name: str, failed: bool) -> None:
        """A request has ended, and its route is known."""
        self._running.pop(call.number, None)
        self._in_flight -= 1
        call.name = name
        self._shut(call, failed)

    def statistics(self) -> WorkerStatistics:
        return msgspec.structs.replace(super().statistics(), size=self._in_flight)

    def _begin_anew(self) -> None:
        self._in_flight, self._trim_by = 0, None
        try:
            self._loop = asyncio.get_running_loop()
        except RuntimeError:  # another kind of loop: it is asked to leave by a signal
            self._loop = None
        self._siblings.look()
        super()._begin_anew()

    def _news(self) -> None:
        super()._news()
        if not self._quarantines:
            self._quarantine = frozenset()

    def _consider(self, rss: int) -> None:
        if self.leaving or not self._policy.over(rss) or not self._siblings.take():
            return
        super()._consider(rss)
        if not self.leaving:  # born large, and little of it is its own
            self._siblings.release()

    def _recycle(self, reason: str) -> None:
        self._departure.ask(self._loop)

    def _trim(self, level: int) -> int:
        if self._trim_by is None and self._loop is not None:
            self._trim_by = time.monotonic() + _TRIM_WAIT_S
            self._loop.call_later(_TRIM_LOOK_S, self._trim_idle)
        return level

    def _trim_idle(self) -> None:
        """Trim while no request waits for it; when there is always one, after five seconds."""
        if self._trim_by is None or self._gauge is None or self._loop is None:
            return
        if self._in_flight and time.monotonic() < self._trim_by:
            self._loop.call_later(_TRIM_LOOK_S, self._trim_idle)
            return
        self._trim_by = None
        super()._trim(self._gauge.rss())


class _Token:
    """Lies in the scope and lives as long; unlike the scope it can be referenced weakly."""

    __slots__ = ("__weakref__",)


def closing(message: Message) -> Message:
    """The start of a response that asks to close the connection."""
    headers = [row for row in message.get("headers", ()) if row[0].lower() != b"connection"]
    return {**message, "headers": [*headers, _CLOSE]}


async def _refuse(send: Send, why: str, method: str) -> None:
    """503 for a quarantined route."""
    if method == "WS":
        await send({"type": "websocket.close", "code": 1013, "reason": why[:100]})
        return
    headers = [(b"content-type", b"text/plain; charset=utf-8"), (b"retry-after", b"60")]
    await send({"type": "http.response.start", "status": 503, "headers": headers})
    await send({"type": "http.response.body", "body": why.encode()})


def _noted(note: Killed) -> None:
    """The log has it already; a killed request has no result that it could be written into."""
