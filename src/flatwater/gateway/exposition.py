"""The gateway's figures in Prometheus's text format, made from ``statistics()`` when somebody asks.

The tables below say what is exported; docs/reference/gateway.md lists it for people.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from itertools import chain
from typing import TYPE_CHECKING, Any, Protocol

from prometheus_client import ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from flatwater.bounded import Histogram
from flatwater.bounded.exposition import alerts, counter, gauge, histogram, histograms, holders, text

if TYPE_CHECKING:
    from flatwater.bounded import TaskGroupStatistics
    from flatwater.gateway.cache import HttpCacheStatistics
    from flatwater.gateway.flight import FlightStatistics
    from flatwater.gateway.gateway import Gateway, GatewayStatistics
    from flatwater.gateway.overload import OverloadStatistics
    from flatwater.gateway.upstream import EndpointStatistics, ServiceStatistics

_PREFIX = "flatwater_gateway_"

Row = tuple[str, str, Callable[[Any], float]]
"""Name without the prefix (a counter's ends in ``_total``), help, and the value of one structure of statistics."""


class Alarming(Protocol):
    """Rules on the process's figures: :class:`flatwater.memory.alarm.Alarm`."""

    def active(self) -> list[str]: ...
    @property
    def raised(self) -> int: ...


def exposition(gateway: Gateway, alarm: Alarming | None = None) -> bytes:
    """All metrics of a gateway that is a process of its own, as text."""
    own = alerts(alarm.active(), alarm.raised) if alarm is not None else ()
    families = chain(metrics(gateway), own, holders(gateway.ledger.entries()))
    return text(families, ProcessCollector(registry=None))


def metrics(gateway: Gateway) -> Iterator[Metric]:
    """The metric families of a gateway; the server has them beside its own."""
    latency = {name: upstream.latency for name, upstream in gateway.services().items()}
    return families(gateway.statistics(), latency, None if gateway.overload is None else gateway.overload.lag)


def families(figures: GatewayStatistics, latency: Mapping[str, Histogram], lag: Histogram | None) -> Iterator[Metric]:
    """The same of figures: ``latency`` by service, ``lag`` of the event loop."""
    yield from _plain(_GATEWAY, figures)
    yield _by("refused_total", "Requests that reached no service, by reason.", "reason", figures.refused)
    yield from _tasks({"requests": figures.tasks, "background": figures.background})
    yield from _services(figures.services)
    told = "From arrival to the last byte, of requests whose client stayed."
    by_service: dict[tuple[str, ...], Histogram] = {(name,): found for name, found in latency.items()}
    yield histograms(f"{_PREFIX}request_seconds", told, ("service",), by_service)
    yield from _endpoints(figures.services)
    if figures.cache is not None:
        yield from _cache(figures.cache)
    if figures.flights is not None:
        yield from _flights(figures.flights)
    if figures.overload is not None:
        yield from _overload(figures.overload)
    if lag is not None:
        yield histogram(f"{_PREFIX}loop_lag_seconds", "How late the event loop wakes.", lag)


_GATEWAY: tuple[Row, ...] = (
    ("active", "Requests under way.", lambda it: it.active),
    ("active_limit", "Most requests under way at once.", lambda it: it.max_requests),
    ("requests_total", "Requests since the start, hits of the cache included.", lambda it: it.requests),
    ("draining", "1 while it is leaving.", lambda it: it.draining),
    ("reloads_total", "Configurations loaded since the start.", lambda it: it.reloads),
    ("retiring_services", "Services of former configurations that still have connections.", lambda it: it.retiring),
    ("history_entries", "Requests that the history holds.", lambda it: it.history),
)

_TASKS: tuple[Row, ...] = (
    ("tasks", "Tasks that run.", lambda it: it.size),
    ("tasks_limit", "Most tasks at once.", lambda it: it.bound),
    ("tasks_peak", "Most tasks at once so far.", lambda it: it.peak),
    ("tasks_waiting", "Who waits for room to start a task.", lambda it: it.waiting),
    ("tasks_started_total", "Tasks started.", lambda it: it.started),
)

_SERVICE: tuple[Row, ...] = (
    ("service_requests_total", "Requests to the service.", lambda it: it.requests),
    ("retries_total", "Requests sent again.", lambda it: it.retries),
    ("retries_refused_total", "Retries that the budget did not allow.", lambda it: it.retries_refused),
    ("rate_limited_total", "Requests above the rate limit.", lambda it: it.limited),
    (
        "breaker_open",
        "1 while the breaker refuses requests.",
        lambda it: it.breaker.requests >= it.breaker.max_requests,
    ),
)

_BREAKER: tuple[tuple[str, str, str], ...] = (
    ("breaker_active", "What the breaker counts as under way.", ""),
    ("breaker_limit", "Most that the breaker lets be under way.", "max_"),
    ("breaker_refused_total", "What the breaker refused.", "refused_"),
)

_ENDPOINT: tuple[Row, ...] = (
    ("endpoint_up", "1 unless ejected, down by its checks, or taken out.", lambda it: it.state == "up"),
    ("endpoint_weight", "Its share of requests beside others.", lambda it: it.weight),
    ("endpoint_active", "Requests under way.", lambda it: it.active),
    ("endpoint_successes_total", "Answers that count as successes.", lambda it: it.successes),
    ("endpoint_failures_total", "Answers and attempts that count as failures.", lambda it: it.failures),
    ("endpoint_connections", "Open connections.", lambda it: it.pool.size),
    ("endpoint_connections_limit", "Most connections.", lambda it: it.pool.bound),
    ("endpoint_connections_idle", "Connections that wait for a request.", lambda it: it.pool.idle),
    ("endpoint_connections_busy", "Connections with a request.", lambda it: it.pool.busy),
    ("endpoint_waiting", "Requests that wait for a connection.", lambda it: it.pool.pending),
    ("endpoint_buffered_bytes", "Bytes of answers that wait for slow clients.", lambda it: it.pool.bytes or 0),
    ("endpoint_connections_opened_total", "Connections opened.", lambda it: it.pool.opened),
    ("endpoint_connections_failed_total", "Connections that could not be opened.", lambda it: it.pool.failed),
    ("endpoint_connections_reused_total", "Requests over a connection that was there.", lambda it: it.pool.reused),
    ("endpoint_connections_cut_total", "Connections cut in the middle of an exchange.", lambda it: it.pool.cut),
    ("endpoint_refused_total", "Requests for which there were too many waiters.", lambda it: it.pool.refused),
)

_CACHE: tuple[Row, ...] = (
    ("cache_entries", "Stored responses.", lambda it: it.size),
    ("cache_entries_limit", "Most stored responses.", lambda it: it.bound),
    ("cache_bytes", "Bytes of stored responses.", lambda it: it.bytes or 0),
    ("cache_limit_bytes", "Most bytes of stored responses.", lambda it: it.max_bytes or 0),
    ("cache_recording_bytes", "Bytes on their way into the cache.", lambda it: it.recording),
    ("cache_recording_limit_bytes", "Most bytes on their way into the cache.", lambda it: it.max_recording_bytes),
    ("cache_scheduled", "Places that wait for the end of an entry's time.", lambda it: it.scheduled),
    ("cache_stored_total", "Responses stored.", lambda it: it.stored),
    ("cache_revalidated_total", "Entries renewed by a 304 of the origin.", lambda it: it.revalidated),
    ("cache_invalidated_total", "Entries dropped after unsafe methods.", lambda it: it.invalidated),
    ("cache_deleted_total", "Entries dropped because they were out of date.", lambda it: it.deleted),
    ("cache_purged_total", "Entries dropped at an operator's word.", lambda it: it.purged),
)
_LOOKUPS = ("hits", "stale_hits", "validations", "misses", "bypassed", "refused")
_EVICTIONS = {
    "entries": "evicted_entries",
    "bytes": "evicted_bytes",
    "expired": "expired",
    "oversize": "oversize_evictions",
    "overload": "shrunk",
}

_FLIGHT: tuple[Row, ...] = (
    ("flights", "Pages that somebody asks for on behalf of others.", lambda it: it.size),
    ("flights_limit", "Most such pages.", lambda it: it.bound),
    ("flights_waiting", "Requests that wait for another one's answer.", lambda it: it.waiting),
    ("flights_waiting_limit", "Most such requests.", lambda it: it.max_waiters),
)
_FLIGHTS = ("led", "merged", "handed", "released", "timeouts", "refused")

_OVERLOAD: tuple[Row, ...] = (
    ("overload_level", "0 none, 1 shrinking the cache, 2 draining, 3 refusing.", lambda it: it.size),
    ("memory_pressure_ratio", "Memory used of its limit.", lambda it: it.pressure),
    ("memory_pressure_peak_ratio", "Most memory used of its limit so far.", lambda it: it.peak_pressure),
    ("memory_used_bytes", "Memory at the last look, 0 without a limit.", lambda it: it.bytes or 0),
    ("memory_limit_bytes", "The limit of memory, 0 without one.", lambda it: it.max_bytes or 0),
    ("memory_read_errors_total", "Looks at memory that failed.", lambda it: it.read_errors),
    ("loop_lag_last_seconds", "By how much the loop was late at the last two looks.", lambda it: it.lag_s),
    ("loop_lag_peak_seconds", "By how much it was late at two looks in a row at most.", lambda it: it.peak_lag_s),
    ("overload_checks_total", "Looks at memory and lag.", lambda it: it.checks),
    ("overload_freed_bytes_total", "Bytes that the cache gave back.", lambda it: it.freed),
    ("overload_trims_total", "Times that the allocator gave free pages back.", lambda it: it.trims),
    ("overload_drained_total", "Connections closed after their answer.", lambda it: it.drained),
    ("overload_refused_total", "Requests refused.", lambda it: it.refused),
)
_LEVELS = ("shrinking", "draining", "refusing")


def _family(name: str, told: str, labels: tuple[str, ...] = ()) -> GaugeMetricFamily | CounterMetricFamily:
    if name.endswith("_total"):
        return CounterMetricFamily(_PREFIX + name.removesuffix("_total"), told, labels=labels)
    return GaugeMetricFamily(_PREFIX + name, told, labels=labels)


def _plain(rows: tuple[Row, ...], figures: object) -> Iterator[Metric]:
    for name, told, value in rows:
        make = counter if name.endswith("_total") else gauge
        yield make(_PREFIX + name.removesuffix("_total"), told, value(figures))


def _labelled(
    rows: tuple[Row, ...], labels: tuple[str, ...], figures: Mapping[tuple[str, ...], Any]
) -> Iterator[Metric]:
    for name, told, value in rows:
        family = _family(name, told, labels)
        for place, found in figures.items():
            family.add_metric(place, float(value(found)))
        yield family


def _by(name: str, told: str, label: str, counts: Mapping[str, int]) -> Metric:
    family = _family(name, told, (label,))
    for value, count in counts.items():
        family.add_metric([value], count)
    return family


def _tasks(groups: dict[str, TaskGroupStatistics]) -> Iterator[Metric]:
    yield from _labelled(_TASKS, ("group",), {(name,): found for name, found in groups.items()})
    ended = _family("tasks_ended_total", "Tasks that ended or could not begin, by outcome.", ("group", "outcome"))
    for name, found in groups.items():
        for outcome in ("succeeded", "failed", "canceled", "refused", "abandoned"):
            ended.add_metric([name, outcome], getattr(found, outcome))
    yield ended


def _services(services: list[ServiceStatistics]) -> Iterator[Metric]:
    yield from _labelled(_SERVICE, ("service",), {(service.name,): service for service in services})
    told = "Answers by service and class; 499 for clients that left."
    answers = _family("answers_total", told, ("service", "class"))
    refused = _family("service_refused_total", "What the gateway answered itself.", ("service", "reason"))
    for service in services:
        for status, count in service.statuses.items():
            answers.add_metric([service.name, status], count)
        for reason, count in service.refused.items():
            refused.add_metric([service.name, reason], count)
    yield from (answers, refused)
    for name, told, prefix in _BREAKER:
        family = _family(name, told, ("service", "kind"))
        for service in services:
            for kind in ("requests", "retries"):
                family.add_metric([service.name, kind], getattr(service.breaker, prefix + kind))
        yield family


def _endpoints(services: list[ServiceStatistics]) -> Iterator[Metric]:
    places: dict[tuple[str, ...], EndpointStatistics] = {
        (service.name, endpoint.url): endpoint for service in services for endpoint in service.endpoints
    }
    yield from _labelled(_ENDPOINT, ("service", "endpoint"), places)
    labels = ("service", "endpoint", "reason")
    ejections = _family("endpoint_ejections_total", "Times that it was put out, by what for.", labels)
    for place, endpoint in places.items():
        for reason, count in endpoint.ejected_for.items():
            ejections.add_metric([*place, reason], count)
    yield ejections


def _cache(figures: HttpCacheStatistics) -> Iterator[Metric]:
    yield from _plain(_CACHE, figures)
    lookups = {name: getattr(figures, name) for name in _LOOKUPS}
    yield _by("cache_lookups_total", "Look-ups in the cache, by outcome.", "outcome", lookups)
    short = {"304": figures.not_modified, "206": figures.partial}
    yield _by("cache_short_answers_total", "Hits that were answered with less than the whole.", "status", short)
    evictions = {name: getattr(figures, field) for name, field in _EVICTIONS.items()}
    yield _by("cache_evictions_total", "Entries evicted, by why.", "reason", evictions)
    unkept = {"entry": figures.oversize, "body": figures.unrecorded}
    yield _by("cache_oversize_total", "Responses too large to be kept, found so by what.", "by", unkept)


def _flights(figures: FlightStatistics) -> Iterator[Metric]:
    yield from _plain(_FLIGHT, figures)
    outcomes = {name: getattr(figures, name) for name in _FLIGHTS}
    yield _by("flight_requests_total", "Requests that met others for the same page, by outcome.", "outcome", outcomes)


def _overload(figures: OverloadStatistics) -> Iterator[Metric]:
    yield from _plain(_OVERLOAD, figures)
    entered = {name: getattr(figures, name) for name in _LEVELS}
    yield _by("overloads_total", "How often each level was entered.", "level", entered)
