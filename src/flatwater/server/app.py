"""The composition root: opens every part in one stack, and makes the ASGI application of them."""

from __future__ import annotations

import logging
import secrets
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager, contextmanager
from time import time
from typing import Any

import msgspec
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.routing import Route as Mount
from starlette.types import ASGIApp

from flatwater.bounded import Ledger, TaskGroup
from flatwater.bounded.notify import Notifier
from flatwater.engine.blocks import functions, load
from flatwater.engine.driver import RobotDriver
from flatwater.engine.engine import Engine
from flatwater.engine.option import EngineOptions
from flatwater.listener.address import is_loopback
from flatwater.memory import sampler as allocation_sampler
from flatwater.memory.heap_model import HeapError
from flatwater.server import gate
from flatwater.server.alarm import alarm
from flatwater.server.api import routes
from flatwater.server.auth import Guard, token_for
from flatwater.server.counts import Counts
from flatwater.server.endpoint import Endpoint
from flatwater.server.gate import Gate
from flatwater.server.instrument import Instruments
from flatwater.server.news import SiteNews, robot_news
from flatwater.server.page import Page
from flatwater.server.pulse import Pulse
from flatwater.server.retention import Retention
from flatwater.server.route import Route
from flatwater.server.service import Service
from flatwater.server.status import Sampler
from flatwater.settings import Settings
from flatwater.store import Store
from flatwater.store.ident import new_id
from flatwater.store.option import StoreOptions

log = logging.getLogger(__name__)
Opening = Callable[[], AbstractAsyncContextManager[Service]]
DriverOf = Callable[[Store], AbstractAsyncContextManager[RobotDriver]]
Attachment = Callable[[Service], AbstractAsyncContextManager[Any]]


def build(settings: Settings, *, driver: DriverOf | None = None, attachments: Sequence[Attachment] = ()) -> Starlette:
    """The server as an ASGI application; its lifespan opens and closes everything.

    ``driver`` makes the robots' driver from the open store. ``attachments`` run beside the engine for as long as the
    server does (the demo plant is one).
    """
    settings = with_token(settings)
    return application(settings, lambda: opened(settings, driver=driver, attachments=attachments))


def with_token(settings: Settings) -> Settings:
    """The settings with tokens where they are needed and none are set: off loopback, and for the instruments always."""
    server = settings.server
    token = token_for(server.host, server.token)
    diagnostic = server.diagnostic_token or token or secrets.token_urlsafe(24)
    filled = msgspec.structs.replace(server, token=token, diagnostic_token=diagnostic)
    return msgspec.structs.replace(settings, server=filled)


def application(settings: Settings, opening: Opening | None = None) -> Starlette:
    """The ASGI application over the service that ``opening`` gives; without one, each request's state has it."""

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[dict[str, Any]]:
        if opening is None:
            yield {}
            return
        async with opening() as service:
            yield {"service": service}

    server = settings.server
    guard = Middleware(
        Guard,
        token=server.token,
        diagnostic_token=server.diagnostic_token,
        loopback=is_loopback(server.host),
        hosts=server.allowed_hosts,
    )
    by_path: dict[str, list[Route]] = {}
    for route in routes(compatibility=server.compatibility):
        by_path.setdefault(route.path, []).append(route)
    app = Starlette(
        routes=[Mount(path, Endpoint(found)) for path, found in by_path.items()],
        middleware=[Middleware(Gate), guard],
        lifespan=lifespan,
    )
    app.router.redirect_slashes = False
    page: ASGIApp = Page()
    app.router.default = page
    return app


@asynccontextmanager
async def opened(
    settings: Settings,
    *,
    driver: DriverOf | None = None,
    attachments: Sequence[Attachment] = (),
    notifier: Notifier | None = None,
) -> AsyncIterator[Service]:
    """Every part of a server, open and at work; closed in the opposite order."""
    ledger = Ledger()
    async with AsyncExitStack() as stack:
        enter = stack.enter_async_context
        store = await enter(Store.open(settings.store.url, _options(StoreOptions, settings.store), ledger))
        fleet = await enter(driver(store)) if driver is not None else None
        instruments = await enter(Instruments())
        stack.enter_context(_sampling(settings.server.sample_allocations_bytes))
        engine = await enter(_engine(settings, store, fleet, instruments, ledger))
        streams = await enter(TaskGroup("server.streams", max_tasks=settings.engine.max_subscribers, ledger=ledger))
        tasks = await enter(TaskGroup("server.tasks", max_tasks=20, ledger=ledger))
        alive = notifier.alive if notifier is not None and notifier.watchdog_s else None
        sampler = Sampler(settings.status, ledger=ledger, alive=alive)
        counts = Counts(store)
        gateway = await enter(gate.opened(settings.gateway.config, ledger)) if settings.gateway.config else None
        watchman = await enter(alarm(settings.alert, sampler, gateway, settings.status.sample_s, ledger=ledger))
        pulse = Pulse(engine, counts, sampler, settings.stream.status_s)
        service = Service(
            settings=settings,
            ledger=ledger,
            store=store,
            engine=engine,
            tasks=tasks,
            streams=streams,
            sampler=sampler,
            counts=counts,
            pulse=pulse,
            instruments=instruments,
            gateway=gateway,
            alarm=watchman,
            routes=routes(compatibility=settings.server.compatibility),
            boot=new_id(),
            started_at=time(),
            token_required=bool(settings.server.token),
        )
        news = SiteNews(store, engine.events, settings.stream.site_poll_s)
        for part in (sampler, watchman, pulse, news, Retention(store, settings.retention)):
            tasks.start(part.run(), name=f"{type(part).__name__.lower()} loop")
        if fleet is not None:
            stack.callback(fleet.listen(robot_news(engine.events)))
        for attachment in attachments:
            await enter(attachment(service))
        yield service


@contextmanager
def _sampling(interval_bytes: int) -> Iterator[None]:
    """The sampler of allocations, unless it is off or cannot be had: the server shall not fail for it."""
    if not interval_bytes:
        yield
        return
    try:
        allocation_sampler.start(interval_bytes)
    except HeapError as error:
        log.warning("allocations are not sampled: %s", error)
        yield
        return
    try:
        yield
    finally:
        allocation_sampler.stop()


def _engine(
    settings: Settings, store: Store, driver: RobotDriver | None, instruments: Instruments, ledger: Ledger
) -> Engine:
    return Engine(
        store,
        registry=load(settings.engine.blocks),
        functions=functions(settings.engine.blocks),
        driver=driver,
        databases=settings.databases,
        modbus=settings.modbus,
        options=_options(EngineOptions, settings.engine),
        ledger=ledger,
        on_overdue=instruments.holders,
    )


def _options(kind: Any, settings: msgspec.Struct) -> Any:
    """A part's own options from the settings of the same names."""
    names = set(getattr(kind, "__struct_fields__", None) or kind.__slots__)
    return kind(**{name: value for name, value in msgspec.structs.asdict(settings).items() if name in names})
