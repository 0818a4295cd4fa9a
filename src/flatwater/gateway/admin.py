"""What operators ask of a gateway: health, metrics, statistics and history, on a listener of their own."""

from __future__ import annotations

import hmac
import time
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

import msgspec

from flatwater.bounded import TaskInfo
from flatwater.gateway.transit import Record

if TYPE_CHECKING:
    from flatwater.gateway.gateway import Gateway, GatewayStatistics

MAX_RECORDS = 500
_METRICS = b"text/plain; version=0.0.4; charset=utf-8"
_NAMES = frozenset({"localhost", "127.0.0.1", "::1"})


class View(msgspec.Struct, frozen=True, kw_only=True):
    """A gateway at a moment: its statistics, the newest requests (the last one first), and managed work that runs."""

    now: float
    statistics: GatewayStatistics
    history: list[Record]
    background: list[TaskInfo]


def view(gateway: Gateway, *, limit: int = 100) -> View:
    """What the admin API and the page show, with at most ``limit`` requests of the history."""
    records = list(gateway.history)[-limit:]
    return View(now=time.time(), statistics=gateway.statistics(), history=records[::-1], background=gateway.running())


class Admin:
    """An ASGI app: ``/livez``, ``/readyz``, ``/metrics`` and ``/api/gateway``.

    With a ``token`` the last two need ``Authorization: Bearer TOKEN``; without one the host must be a loopback name, so
    that a page of another site cannot read them through a name that it points here.
    """

    def __init__(self, gateway: Gateway, *, token: str = "") -> None:
        self._gateway = gateway
        self._token = token

    async def __call__(
        self, scope: Any, receive: Callable[[], Awaitable[Any]], send: Callable[[Any], Awaitable[None]]
    ) -> None:
        if scope["type"] != "http":
            raise RuntimeError(f"the admin listener speaks HTTP alone, not {scope['type']}")
        status, body, kind = self._answer(scope)
        headers = [(b"content-type", kind), (b"content-length", b"%d" % len(body)), (b"cache-control", b"no-store")]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": b"" if scope["method"] == "HEAD" else body})

    def _answer(self, scope: Any) -> tuple[int, bytes, bytes]:
        path = scope["path"]
        if scope["method"] not in ("GET", "HEAD"):
            return _json(405, {"error": "only GET is possible here"})
        if path == "/livez":
            return _json(200, {"ok": True})
        if path == "/readyz":
            draining = self._gateway.app.draining
            return _json(503 if draining else 200, {"ready": not draining})
        if path not in ("/metrics", "/api/gateway"):
            return _json(404, {"error": "there are /livez, /readyz, /metrics and /api/gateway"})
        if not self._allowed(scope):
            return _json(401 if self._token else 403, {"error": "a token, or a loopback host name, is needed"})
        if path == "/metrics":
            from flatwater.gateway.exposition import exposition  # the library costs 2 MB: only for those who scrape

            return 200, exposition(self._gateway), _METRICS
        return _json(200, view(self._gateway, limit=MAX_RECORDS))

    def _allowed(self, scope: Any) -> bool:
        headers = dict(scope["headers"])
        if self._token:
            kind, _, given = headers.get(b"authorization", b"").partition(b" ")
            return kind.lower() == b"bearer" and hmac.compare_digest(given.strip(), self._token.encode())
        host = headers.get(b"host", b"").decode("latin-1").lower()
        name = host[1:].partition("]")[0] if host.startswith("[") else host.partition(":")[0]
        return name in _NAMES


def _json(status: int, value: object) -> tuple[int, bytes, bytes]:
    return status, msgspec.json.encode(value, enc_hook=repr), b"application/json"
