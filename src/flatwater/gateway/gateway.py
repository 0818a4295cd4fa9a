"""The gateway as one thing: ``async with Gateway(config, ledger=…) as gateway``, then serve ``gateway.app``."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from contextlib import AsyncExitStack
from types import TracebackType
from typing import Self

import msgspec

from flatwater.bounded import History, Ledger, TaskGroup, TaskGroupStatistics, TaskInfo
from flatwater.errors import ClosedError, SettingError
from flatwater.gateway.cache import HttpCache, HttpCacheStatistics
from flatwater.gateway.caching import Caching
from flatwater.gateway.config import Config
from flatwater.gateway.flight import Flights, FlightStatistics
from flatwater.gateway.head import Heads
from flatwater.gateway.overload import Overload, OverloadStatistics, Read, Thresholds
from flatwater.gateway.proxy import Hook, Proxy
from flatwater.gateway.request import Inspector
from flatwater.gateway.route import Routes
from flatwater.gateway.sweeper import Sweeper
from flatwater.gateway.transit import Record, record_bytes
from flatwater.gateway.upstream import ServiceStatistics, Upstream

log = logging.getLogger(__name__)

_RETIRE_EVERY = 10  # ticks
_MAX_HOOKS_AT_ONCE = 1000


class GatewayStatistics(msgspec.Struct, frozen=True, kw_only=True):
    """``active`` requests are under way, of ``max_requests``. ``refused`` counts by reason what was malformed or
    found no service; what services refused is theirs. ``retiring``: services of former configurations that still
    have connections."""

    active: int
    max_requests: int
    requests: int
    refused: dict[str, int]
    reloads: int
    draining: bool
    retiring: int
    services: list[ServiceStatistics]
    tasks: TaskGroupStatistics
    background: TaskGroupStatistics
    history: int
    cache: HttpCacheStatistics | None
    flights: FlightStatistics | None
    overload: OverloadStatistics | None


class Gateway:
    """Composition of a gateway. ``read_memory`` gives bytes used and the limit; without it only lag counts as overload.

    ``reload`` replaces services and what they may; what a listener or a bound was made with stays until a restart.
    """

    def __init__(
        self,
        config: Config,
        *,
        ledger: Ledger,
        read_memory: Read | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.config = config
        self.ledger = ledger
        self._clock = clock
        front = config.front
        self.tasks = TaskGroup("gateway requests", max_tasks=front.max_tasks, ledger=ledger)
        self.background = TaskGroup("gateway background work", max_tasks=_MAX_HOOKS_AT_ONCE, ledger=ledger)
        self.history: History[Record] = History(
            "gateway history",
            max_entries=front.history_entries,
            max_bytes=front.history_bytes,
            sizeof=record_bytes,
            ledger=ledger,
        )
        self._sweeper = Sweeper()
        self._read_memory = read_memory
        self.cache: HttpCache | None = None
        self.flights: Flights | None = None
        self.overload: Overload | None = None
        self._services: dict[str, Upstream] = {}
        self._retiring: list[Upstream] = []
        self._reloads = 0
        self._ticks = 0
        self._stack: AsyncExitStack | None = None
        if any(service.cache.enabled for service in config.services.values()):
            self._make_cache()
        if config.overload.enabled:
            self.overload = self._make_overload()
        self.app = Proxy(
            Inspector(front),
            self.tasks,
            self.background,
            self.history,
            Heads(
                max_entries=front.memo_entries,
                max_bytes=front.memo_bytes,
                max_head_bytes=front.memo_head_bytes,
                ledger=ledger,
            ),
            max_requests=front.max_requests,
            linger_s=front.linger_s,
            pressure=self.overload,
        )

    async def __aenter__(self) -> Self:
        if self._stack is not None:
            raise ClosedError("a gateway is entered once")
        self._stack = stack = AsyncExitStack()
        try:
            await stack.enter_async_context(self.tasks)
            await stack.enter_async_context(self.background)
            await stack.enter_async_context(self._sweeper)
            stack.push_async_callback(self._stop_services)
            self._sweeper.add(self.app)
            self._sweeper.add(self)
            self._apply(self.config)
            if self.overload is not None:
                await stack.enter_async_context(self.overload)
        except BaseException:
            await stack.aclose()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()

    def add_hook(self, hook: Hook) -> None:
        """Call ``hook.after(request, record)`` in the background after each request that named a service or was well
        formed; at most 1000 run at a time, more are left out and logged."""
        self.app.hooks.append(hook)

    def reload(self, config: Config) -> list[str]:
        """Go over to another configuration without dropping a request; returns what takes a restart to change.

        Services that are the same keep their connections, health and counts. Raises SettingError when the new one
        cannot be applied (a TLS file does not serve, say); then the old one stays.
        """
        if self._stack is None:
            raise ClosedError("the gateway is not open")
        self._apply(config)
        self._reloads += 1
        before, self.config = self.config, config
        sections = ("listen", "front", "cache", "overload", "log", "alert", "admin")
        return [section for section in sections if getattr(before, section) != getattr(config, section)]

    async def drain(self, timeout_s: float) -> bool:
        """Close connections with their next answer and wait until no request is under way; False when time was up."""
        self.app.draining = True
        deadline = asyncio.get_running_loop().time() + timeout_s
        while len(self.app):
            if asyncio.get_running_loop().time() >= deadline:
                return False
            await asyncio.sleep(0.02)
        return await self.background.drain(max(0.0, deadline - asyncio.get_running_loop().time()))

    async def stop(self) -> None:
        """End requests, background work and connections. Idempotent."""
        if self._stack is not None:
            self.app.abort()
            await self._stack.aclose()

    def sweep(self, now: float) -> None:
        """Let go of services that have retired, and of what expired in the cache."""
        self._ticks += 1
        if self.cache is not None:
            self.cache.expire(200)
        if self._ticks % _RETIRE_EVERY == 0 and self._retiring:
            for upstream in [upstream for upstream in self._retiring if upstream.retired]:
                self._retiring.remove(upstream)
                upstream.forget()

    def services(self) -> dict[str, Upstream]:
        """The services by name."""
        return dict(self._services)

    def running(self) -> list[TaskInfo]:
        """The background work that runs, oldest first."""
        return self.background.tasks()

    def statistics(self) -> GatewayStatistics:
        return GatewayStatistics(
            active=len(self.app),
            max_requests=self.config.front.max_requests,
            requests=self.app.requests,
            refused=dict(self.app.refused),
            reloads=self._reloads,
            draining=self.app.draining,
            retiring=len(self._retiring),
            services=[upstream.statistics() for upstream in self._services.values()],
            tasks=self.tasks.statistics(),
            background=self.background.statistics(),
            history=len(self.history),
            cache=None if self.cache is None else self.cache.statistics(),
            flights=None if self.flights is None else self.flights.statistics(),
            overload=None if self.overload is None else self.overload.statistics(),
        )

    def _apply(self, config: Config) -> None:
        services: dict[str, Upstream] = {}
        fresh: list[Upstream] = []
        for name, service in config.services.items():
            same = self._services.get(name)
            if same is not None and same.service == service:
                services[name] = same
                continue
            upstream = Upstream(
                name, service, ledger=self.ledger, sweeper=self._sweeper, tasks=self.background, clock=self._clock
            )
            if same is not None:
                upstream.succeed(same)
            services[name] = upstream
            fresh.append(upstream)
        if self.cache is None and any(service.cache.enabled for service in config.services.values()):
            self._make_cache()
        routes: Routes[Upstream] = Routes()
        for upstream in services.values():
            service = upstream.service
            routes.add(upstream, path=service.path, hosts=service.hosts, strip=service.strip_prefix)
        for upstream in fresh:
            upstream.start()
        gone = [upstream for upstream in self._services.values() if upstream not in services.values()]
        self._services = services
        self.app.use(routes)
        if self.cache is not None and self.flights is not None and self.app.caching is None:
            self.app.caching = Caching(self.cache, self.flights, self.app.forwarder, self.background)
        for upstream in gone:
            upstream.retire()
            self._retiring.append(upstream)

    async def _stop_services(self) -> None:
        services = [*self._services.values(), *self._retiring]
        self._services, self._retiring = {}, []
        for upstream in services:
            await upstream.stop()

    def _make_cache(self) -> None:
        rule = self.config.cache
        self.cache = HttpCache(
            ledger=self.ledger,
            max_entries=rule.max_entries,
            max_bytes=rule.max_bytes,
            max_entry_bytes=rule.max_entry_bytes,
            max_recording_bytes=rule.max_recording_bytes,
            max_age_s=rule.max_age_s,
            keep_stale_s=rule.keep_stale_s,
            label=self.config.front.via.encode(),
            clock=self._clock,
        )
        self.flights = Flights(ledger=self.ledger, max_wait_s=rule.max_wait_s)
        if self.overload is not None:  # a reload has switched the cache on
            self.overload.use(self.cache)

    def _make_overload(self) -> Overload:
        rule = self.config.overload
        try:
            thresholds = Thresholds(
                shrink_at=rule.shrink_percent / 100,
                drain_at=rule.drain_percent / 100,
                refuse_at=rule.refuse_percent / 100,
                drain_lag_s=rule.drain_lag_s,
                refuse_lag_s=rule.refuse_lag_s,
            )
        except ValueError as error:
            raise SettingError(str(error), where="overload") from None
        return Overload(
            self._memory,
            self.cache,
            self.tasks,
            ledger=self.ledger,
            thresholds=thresholds,
            interval_s=rule.every_s,
        )

    def _memory(self) -> tuple[int, int | None]:
        if self._read_memory is None:
            return 0, None
        used, limit = self._read_memory()
        return used, self.config.overload.limit_bytes or limit
