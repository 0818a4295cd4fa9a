"""What operators ask of a gateway and tell it, on a listener of their own: health, metrics, statistics, history;
purge the cache, take an endpoint out of rotation, load the configuration again."""

from __future__ import annotations

import hmac
import logging
import time
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

import msgspec

from flatwater.bounded import TaskInfo
from flatwater.errors import FlatwaterError
from flatwater.gateway.purge import Purge, matcher
from flatwater.gateway.reload import Reloaded
from flatwater.gateway.transit import Record

if TYPE_CHECKING:
    from flatwater.gateway.exposition import Alarming
    from flatwater.gateway.gateway import Gateway, GatewayStatistics

log = logging.getLogger(__name__)

MAX_RECORDS = 500
MAX_BODY_BYTES = 64 * 1024
_METRICS = b"text/plain; version=0.0.4; charset=utf-8"
_NAMES = frozenset({"localhost", "127.0.0.1", "::1"})
_GETS = ("/livez", "/readyz", "/metrics", "/api/gateway")
_POSTS = ("/api/gateway/purge", "/api/gateway/rotation", "/api/gateway/reload")

Answer = tuple[int, bytes, bytes]


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


class Rotation(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Whether an ``endpoint`` (its URL, as the configuration has it) of a ``service`` is ``out`` of rotation."""

    service: str
    endpoint: str
    out: bool


class Admin:
    """An ASGI app: ``/livez``, ``/readyz``, ``/metrics`` and ``/api/gateway``; and by POST, ``/api/gateway/purge``,
    ``…/rotation`` and ``…/reload``.

    With a ``token`` all but the first two need ``Authorization: Bearer TOKEN``; without one the host must be a loopback
    name, so that a page of another site cannot reach them through a name that it points here. A POST must say that it
    is JSON, which no page can send to another site without having asked. ``reload``: what loads the configuration
    again; without it none can be.
    """

    def __init__(
        self,
        gateway: Gateway,
        *,
        token: str = "",
        reload: Callable[[], Reloaded] | None = None,
        alarm: Alarming | None = None,
    ) -> None:
        self._gateway = gateway
        self._token = token
        self._reload = reload
        self._alarm = alarm

    async def __call__(
        self, scope: Any, receive: Callable[[], Awaitable[Any]], send: Callable[[Any], Awaitable[None]]
    ) -> None:
        if scope["type"] != "http":
            raise RuntimeError(f"the admin listener speaks HTTP alone, not {scope['type']}")
        status, body, kind = await self._told(scope, receive) if scope["method"] == "POST" else self._answer(scope)
        headers = [(b"content-type", kind), (b"content-length", b"%d" % len(body)), (b"cache-control", b"no-store")]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": b"" if scope["method"] == "HEAD" else body})

    def _answer(self, scope: Any) -> Answer:
        path = scope["path"]
        if scope["method"] not in ("GET", "HEAD"):
            return _wrong(405, "only GET and POST are possible here")
        if path == "/livez":
            return _json(200, {"ok": True})
        if path == "/readyz":
            draining = self._gateway.app.draining
            return _json(503 if draining else 200, {"ready": not draining})
        if path not in _GETS:
            return _wrong(405 if path in _POSTS else 404, f"GET is for {', '.join(_GETS)}")
        if not self._allowed(scope):
            return self._forbidden()
        if path == "/metrics":
            from flatwater.gateway.exposition import exposition  # the library costs 2 MB: only for those who scrape

            return 200, exposition(self._gateway, self._alarm), _METRICS
        return _json(200, view(self._gateway, limit=MAX_RECORDS))

    async def _told(self, scope: Any, receive: Callable[[], Awaitable[Any]]) -> Answer:
        """Do what a POST says."""
        path = scope["path"]
        if path not in _POSTS:
            return _wrong(405 if path in _GETS else 404, f"POST is for {', '.join(_POSTS)}")
        headers = dict(scope["headers"])
        if not self._allowed(scope):
            return self._forbidden()
        if headers.get(b"content-type", b"").partition(b";")[0].strip().lower() != b"application/json":
            return _wrong(415, "send JSON, and say so: Content-Type: application/json")
        if (body := await _body(receive)) is None:
            return _wrong(413, f"the body has more than {MAX_BODY_BYTES} bytes")
        client = (scope.get("client") or ("?",))[0]
        try:
            if path.endswith("purge"):
                return self._purge(msgspec.json.decode(body, type=Purge), client)
            if path.endswith("rotation"):
                return self._rotate(msgspec.json.decode(body, type=Rotation), client)
            return self._load(client)
        except (msgspec.MsgspecError, UnicodeError) as error:
            return _wrong(400, str(error))
        except FlatwaterError as error:
            return _wrong(400, str(error))

    def _purge(self, wanted: Purge, client: str) -> Answer:
        if wanted.service and wanted.service not in self._gateway.services():
            return _wrong(404, f"there is no service {wanted.service!r}")
        matches = matcher(wanted)
        cache = self._gateway.cache
        purged = 0 if cache is None else cache.purge(matches)
        what = wanted.url or (f"{wanted.prefix}…" if wanted.prefix else "all")
        _audit(client, "purge", f"{what!r} of {wanted.service or 'all services'}: {purged} entries")
        return _json(200, {"purged": purged})

    def _rotate(self, wanted: Rotation, client: str) -> Answer:
        upstream = self._gateway.services().get(wanted.service)
        if upstream is None:
            return _wrong(404, f"there is no service {wanted.service!r}")
        try:
            changed = upstream.take_out(wanted.endpoint, wanted.out)
        except KeyError:
            known = ", ".join(backend.url for backend in upstream.backends)
            return _wrong(404, f"{wanted.service} has no endpoint {wanted.endpoint!r}; it has {known}")
        left = sum(endpoint.state == "up" for endpoint in upstream.statistics().endpoints)
        state = "out of rotation" if wanted.out else "back in rotation"
        told = f"{wanted.endpoint} of {wanted.service} is {state}, {left} are up"
        _audit(client, "rotation", told if changed else f"{told} (as before)")
        return _json(200, {"changed": changed, "up": left})

    def _load(self, client: str) -> Answer:
        if self._reload is None:
            return _wrong(409, "this gateway's configuration comes from no file")
        found = self._reload()
        _audit(client, "reload", "refused" if found.problem else "done")
        return _wrong(422, found.problem) if found.problem else _json(200, {"restart": found.restart})

    def _allowed(self, scope: Any) -> bool:
        headers = dict(scope["headers"])
        if self._token:
            kind, _, given = headers.get(b"authorization", b"").partition(b" ")
            return kind.lower() == b"bearer" and hmac.compare_digest(given.strip(), self._token.encode())
        host = headers.get(b"host", b"").decode("latin-1").lower()
        name = host[1:].partition("]")[0] if host.startswith("[") else host.partition(":")[0]
        return name in _NAMES

    def _forbidden(self) -> Answer:
        return _wrong(401 if self._token else 403, "a token, or a loopback host name, is needed")


async def _body(receive: Callable[[], Awaitable[Any]]) -> bytes | None:
    """None when it is too long."""
    body = b""
    while True:
        event = await receive()
        body += bytes(event.get("body", b""))
        if len(body) > MAX_BODY_BYTES:
            return None
        if not event.get("more_body"):
            return body


def _audit(client: str, action: str, told: str) -> None:
    """What an operator did; a warning, so that it is in every log."""
    log.warning("operator at %s: %s %s", client, action, told, extra={"audit": action, "client": client})


def _wrong(status: int, error: str) -> Answer:
    return _json(status, {"error": error})


def _json(status: int, value: object) -> Answer:
    return status, msgspec.json.encode(value, enc_hook=repr), b"application/json"
