"""The service itself: health, figures, metrics, description, and the live stream."""

from __future__ import annotations

from time import time
from typing import Any

import msgspec

from flatwater import __version__
from flatwater.server.openapi import document
from flatwater.server.reply import Send
from flatwater.server.request import Receive
from flatwater.server.route import Reply, Table
from flatwater.server.service import Service
from flatwater.server.stream import Stream, chooser
from flatwater.server.type.system import Alive, Check, Info, LedgerItem, LedgerList, Readiness, Status
from flatwater.server.type.trigger import StreamHeaders, StreamQuery

table = Table("service")

METRICS = "text/plain; version=0.0.4; charset=utf-8"


@table.add("GET", "/livez", public=True)
async def livez(service: Service) -> Alive:
    """The process answers."""
    return Alive()


@table.add("GET", "/readyz", public=True, also=(503,))
async def readyz(service: Service) -> Reply[Readiness]:
    """Whether work may be sent here: the store writes, there is room for it, and the server is not leaving."""
    checks = readiness(service)
    ready = all(check.ok for check in checks.values())
    return Reply(Readiness(ready, checks), 200 if ready else 503, {} if ready else {"Retry-After": "1"})


def readiness(service: Service) -> dict[str, Check]:
    writer = service.store.writer
    figures = writer.statistics()
    full = figures.size >= figures.bound or (figures.bytes or 0) >= (figures.max_bytes or 1)
    trouble = "another process has taken over this one's runs" if writer.fenced else writer.degraded or ""
    return {
        "store": Check(not trouble, trouble),
        "queue": Check(not full, f"{figures.size} writes are pending" if full else ""),
        "draining": Check(not service.draining, "the server is stopping" if service.draining else ""),
    }


@table.add("GET", "/metrics", media=METRICS)
async def metrics(service: Service) -> bytes:
    """The figures in Prometheus's text format."""
    from flatwater.server.metrics import exposition  # the library costs 2 MB: only for those who scrape

    return exposition(service, await service.counts.get())


@table.add("GET", "/openapi.json")
async def openapi(service: Service) -> dict[str, Any]:
    """This API, described."""
    return document(service.routes)


@table.add("GET", "/api/info")
async def info(service: Service) -> Info:
    """What is running here."""
    return Info(
        version=__version__,
        started_at=service.started_at,
        database=service.store.dialect.name,
        demo=service.settings.demo.enabled,
        token_required=service.token_required,
        gateway=service.gateway is not None,
    )


@table.add("GET", "/api/status")
async def status(service: Service) -> Status:
    """Memory with its past, runs by state, and the parts' own figures."""
    counts = await service.counts.get()
    engine = service.engine.statistics()
    return Status(
        now=time(),
        uptime_s=time() - service.started_at,
        memory=service.sampler.memory(),
        runs={
            **counts.by_state,
            "active": engine.scheduler.active,
            "pending": counts.pending,
            "waiting": counts.waiting,
        },
        capped=counts.capped,
        waits=counts.waits,
        contexts={"live": engine.contexts.live, "overdue": engine.contexts.overdue},
        engine=msgspec.to_builtins(engine),
        store=msgspec.to_builtins(service.store.statistics()),
        alerts=service.alarm.active(),
        rate_per_s=service.pulse.rate_per_s,
    )


@table.add("GET", "/api/ledger")
async def ledger(service: Service) -> LedgerList:
    """Everything that may hold things for long, with what it holds and its bounds."""
    return LedgerList([msgspec.convert(entry, LedgerItem, from_attributes=True) for entry in service.ledger.entries()])


@table.add("GET", "/api/stream", media="text/event-stream", raw=True)
async def stream(service: Service, receive: Receive, send: Send, query: StreamQuery, headers: StreamHeaders) -> None:
    """Live events (server-sent events), from now on or from `Last-Event-ID` on.

    Events are `run`, `block`, `site`, `robot`, `log`, `status`, and `gap` when some were lost.
    """
    settings = service.settings
    place = Stream(
        service.engine.events,
        service.streams,
        boot=service.boot,
        heartbeat_s=settings.stream.heartbeat_s,
        write_timeout_s=settings.server.write_timeout_s,
    )
    await place.respond(chooser(query.types, query.run), headers.last_event_id, receive, send)
