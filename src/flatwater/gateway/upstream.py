"""A service while the gateway runs: its endpoints, their health, and what limits it."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from math import log as logarithm
from time import perf_counter
from typing import Protocol

import msgspec

from flatwater.bounded import Histogram, HistogramStatistics, Ledger, TaskGroup
from flatwater.gateway.balance import BALANCES
from flatwater.gateway.breaker import Breaker, BreakerStatistics
from flatwater.gateway.check import Checker
from flatwater.gateway.client import HttpClient, tls_context
from flatwater.gateway.config import Service
from flatwater.gateway.error import BodySizeError, EndpointError, GatewayError, RateError
from flatwater.gateway.health import Health, may_eject
from flatwater.gateway.outlier import outliers
from flatwater.gateway.pool import PoolStatistics, origin
from flatwater.gateway.rate import Rate
from flatwater.gateway.retry import RetryBudget
from flatwater.gateway.sweeper import Sweeper

log = logging.getLogger(__name__)

Factory = Callable[[str, Service, Ledger], HttpClient]


class EndpointStatistics(msgspec.Struct, frozen=True, kw_only=True):
    """One endpoint: ``state`` is up, out (taken out by an operator), down (by its checks) or ejected: so often, and of
    these ``ejected_for`` each kind of reason (failures in a row, failure_ratio, latency)."""

    url: str
    state: str
    weight: int
    active: int
    successes: int
    failures: int
    ejections: int
    ejected_for: dict[str, int]
    last_error: str
    pool: PoolStatistics


class ServiceStatistics(msgspec.Struct, frozen=True, kw_only=True):
    """One service since it was configured as it is now. ``statuses`` counts answers by class (2xx … 5xx), ``499``
    the clients that left. ``refused`` counts by reason what the gateway answered itself."""

    name: str
    requests: int
    statuses: dict[str, int]
    refused: dict[str, int]
    retries: int
    retries_refused: int
    limited: int
    latency: HistogramStatistics
    breaker: BreakerStatistics
    endpoints: list[EndpointStatistics]


class Backend:
    """One endpoint of a service. Satisfies :class:`flatwater.gateway.balance.Candidate`."""

    __slots__ = ("active", "authority", "client", "health", "url", "weight")

    def __init__(self, url: str, weight: int, client: HttpClient, health: Health) -> None:
        self.url = url
        self.authority = origin(url).authority.encode()
        self.weight = weight
        self.client = client
        self.health = health
        self.active = 0

    def statistics(self, now: float) -> EndpointStatistics:
        health = self.health
        out = "out" if health.taken_out else "down" if health.checked_out else ""
        state = out or ("ejected" if health.ejected(now) else "up")
        return EndpointStatistics(
            url=self.url,
            state=state,
            weight=self.weight,
            active=self.active,
            successes=health.successes,
            failures=health.failures,
            ejections=health.ejections,
            ejected_for=dict(health.ejected_for),
            last_error=health.last_error,
            pool=self.client.statistics(),
        )


class Observed(Protocol):
    """What is told about a finished request."""

    status: int
    reason: str


class Upstream:
    """A service. ``start`` begins its active checks; ``retire`` lets it go without harming requests under way."""

    def __init__(
        self,
        name: str,
        service: Service,
        *,
        ledger: Ledger,
        sweeper: Sweeper,
        tasks: TaskGroup,
        clock: Callable[[], float],
        connect: Factory | None = None,
    ) -> None:
        self.name = name
        self.service = service
        self.breaker = Breaker(max_requests=service.breaker.max_requests, max_retries=service.breaker.max_retries)
        self.budget = RetryBudget(service.retry, clock=clock)
        self.host = None if service.host_header in ("keep", "endpoint") else service.host_header.encode()
        self.policy = service.cache.policy()
        self.namespace = name.encode()
        self._clock = clock
        self._sweeper = sweeper
        self._tasks = tasks
        self._balance = BALANCES[service.balance]()
        self._rate = Rate(name, service.rate, ledger=ledger, clock=clock) if service.rate.per_s > 0 else None
        self.quick = service.cache.enabled and self._rate is None  # hits need no admission
        self.express = not service.cache.enabled
        self.latency = Histogram(f"latency of {name}", ledger=ledger)
        self._connect = connect or http_client
        self._some_out_until = 0.0  # while an endpoint may be out, candidates are looked for
        self._compare_at = 0.0
        self._requests = 0
        self._classes = [0] * 6
        self._left = 0
        self._refused: dict[str, int] = {}
        self.backends = [
            Backend(
                endpoint.url,
                endpoint.weight,
                self._connect(endpoint.url, service, ledger),
                Health(service.ejection, service.check),
            )
            for endpoint in service.endpoints
        ]
        rule = service.ejection
        self._compared = len(self.backends) > 1 and rule.max_ejected_percent > 0
        self._checker: Checker[Backend] | None = None

    def start(self) -> None:
        for backend in self.backends:
            self._sweeper.add(backend.client)
        if self._compared:
            self._compare_at = self._clock() + self.service.ejection.window_s
            self._sweeper.add(self)
        if self.service.check.path:
            self._checker = Checker(self.name, self.service.check, self.backends, self._tasks, self._checked)
            self._checker.start()

    def admit(self, client: str, length: int | None) -> None:
        """Let in a request of ``client``, with a body of ``length`` bytes if that is known; ``observe`` must follow.
        Raises RateError, BodySizeError, BreakerError."""
        if self._rate is not None and (wait_s := self._rate.take(client)):
            raise RateError(f"try again in {wait_s:.3g} s", hint=str(max(1, round(wait_s))))
        if length is not None and length > self.service.max_body_bytes:
            raise BodySizeError(f"more than {self.service.max_body_bytes} bytes")
        self.breaker.enter()
        self._requests += 1
        self.budget.earn()

    def choose(self, tried: Sequence[Backend] = ()) -> Backend:
        """An endpoint for a request, rather one that was not tried. Raises EndpointError when all are out."""
        candidates = self.backends
        if self._some_out_until:
            candidates = self._available()
        if tried:
            candidates = [backend for backend in candidates if backend not in tried] or candidates
        if len(candidates) == 1:
            return candidates[0]
        if not candidates:
            raise EndpointError(f"all {len(self.backends)} are out")
        return self._balance.choose(candidates)

    def answered(self, backend: Backend, status: int, began: float = 0.0) -> None:
        """An endpoint answered; 5xx but 501 and 505 count as failures of it. ``began``: when (perf_counter), if all
        that has passed since was its own time."""
        if status < 500 or status in (501, 505):
            health = backend.health
            health.successes += 1
            health.failures_in_row = 0
            if began and health.timed < health.timed_until:
                took = logarithm(perf_counter() - began)
                health.timed += 1
                health.log_s += took
                health.log_s2 += took * took
        else:
            self._count_failure(backend, f"status {status}")

    def failed(self, backend: Backend, error: GatewayError) -> None:
        if error.upstream:
            self._count_failure(backend, str(error))

    def observe(self, done: Observed, duration_s: float) -> None:
        """A request that was admitted is over."""
        self.breaker.leave()
        if done.status == 499:
            self._left += 1
            return
        self.latency.add(duration_s)
        self._classes[done.status // 100] += 1
        if done.reason:
            self.refused(done.reason)

    def hit(self, status: int, duration_s: float) -> None:
        """A request was answered from the cache without being admitted."""
        self._requests += 1
        self.latency.add(duration_s)
        self._classes[status // 100] += 1

    def refused(self, reason: str) -> None:
        self._refused[reason] = self._refused.get(reason, 0) + 1

    def take_out(self, url: str, out: bool) -> bool:
        """Whether an endpoint gets no requests, at an operator's word, until it is put back; those under way go on.
        False when it was so already. Raises KeyError when there is no such endpoint."""
        health = {backend.url: backend.health for backend in self.backends}[url]
        changed = health.taken_out != out
        health.taken_out = out
        self._some_out_until = 1.0
        return changed

    def succeed(self, before: Upstream) -> None:
        """Take the place of ``before``, of a former configuration: what an operator has taken out stays out."""
        out = {backend.url for backend in before.backends if backend.health.taken_out}
        for backend in self.backends:
            if backend.url in out:
                self.take_out(backend.url, True)

    def sweep(self, now: float) -> None:
        """At the end of a window, put out what is worse than its peers."""
        now = self._clock()
        if now < self._compare_at:
            return
        self._compare_at = now + self.service.ejection.window_s
        seen = [backend.health.window(now) for backend in self.backends]
        for outlier in outliers(seen, self.service.ejection):
            self._eject(self.backends[outlier.place], outlier.kind, outlier.why)

    def retire(self) -> None:
        """Close idle connections and checks; busy connections close when they are released. Idempotent."""
        if self._checker is not None:
            self._checker.stop()
        self._sweeper.remove(self)
        for backend in self.backends:
            backend.client.pool.close()

    @property
    def retired(self) -> bool:
        """Whether nothing is left of it after ``retire``; then ``forget`` may be called."""
        return not any(backend.client.pool.statistics().size for backend in self.backends)

    def forget(self) -> None:
        for backend in self.backends:
            self._sweeper.remove(backend.client)

    async def stop(self) -> None:
        self.retire()
        for backend in self.backends:
            await backend.client.stop()
        self.forget()

    def statistics(self) -> ServiceStatistics:
        now = self._clock()
        statuses = {f"{index}xx": count for index, count in enumerate(self._classes) if count}
        return ServiceStatistics(
            name=self.name,
            requests=self._requests,
            statuses=statuses | ({"499": self._left} if self._left else {}),
            refused=dict(self._refused),
            retries=self.budget.spent,
            retries_refused=self.budget.refused,
            limited=0 if self._rate is None else self._rate.limited,
            latency=self.latency.statistics(),
            breaker=self.breaker.statistics(),
            endpoints=[backend.statistics(now) for backend in self.backends],
        )

    def _available(self) -> list[Backend]:
        now = self._clock()
        found = [backend for backend in self.backends if backend.health.available(now)]
        if len(found) == len(self.backends):
            self._some_out_until = 0.0
        return found

    def _count_failure(self, backend: Backend, error: str) -> None:
        if backend.health.failed(error):
            self._eject(backend, "failures", error)

    def _eject(self, backend: Backend, kind: str, why: str) -> None:
        """Put an endpoint out, if that leaves enough of them."""
        now = self._clock()
        healths = [other.health for other in self.backends]
        if backend.health.available(now) and may_eject(healths, self.service.ejection, now):
            for_s = backend.health.eject(now, kind)
            self._some_out_until = 1.0
            log.warning("%s of %s is out for %g s: %s", backend.url, self.name, for_s, why)

    def _checked(self, backend: Backend, error: str) -> None:
        """A check of an endpoint ended; ``error`` is empty when it passed."""
        if backend.health.checked(not error, error):
            self._some_out_until = 1.0
            state = "down" if backend.health.checked_out else "up"
            log.warning("%s of %s is %s%s", backend.url, self.name, state, f": {error}" if error else "")


def http_client(url: str, service: Service, ledger: Ledger) -> HttpClient:
    """The client of an endpoint by its service's rules. Raises SettingError when TLS files do not serve."""
    where = origin(url)
    tls = service.tls
    pool = service.connections
    context = None
    if where.scheme == "https":
        context = tls_context(
            ca_file=tls.ca_file or None, certificate=tls.certificate or None, key=tls.key or None, verify=tls.verify
        )
    return HttpClient(
        where,
        ledger=ledger,
        timeouts=service.timeout,
        max_connections=pool.max_connections,
        max_pending=pool.max_pending,
        pending_s=pool.pending_s,
        keep_s=pool.keep_s,
        max_head_bytes=pool.max_head_bytes,
        tls=context,
        server_name=tls.server_name or None,
    )
