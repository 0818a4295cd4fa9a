"""Prometheus's text format, made from the parts' statistics when somebody asks: nothing is counted twice."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import msgspec
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from flatwater import __version__
from flatwater.bounded import Histogram
from flatwater.bounded.exposition import alerts, counter, gauge, histogram, histograms, holders, text
from flatwater.server.counts import RunCounts
from flatwater.server.service import Service


def exposition(service: Service, counts: RunCounts) -> bytes:
    """All metrics as text."""
    return text(_Figures(service, counts).collect())


class _Figures:
    def __init__(self, service: Service, counts: RunCounts) -> None:
        self._service = service
        self._counts = counts

    def collect(self) -> Iterator[Metric]:
        service = self._service
        info = GaugeMetricFamily("flatwater_info", "Version and database.", labels=["version", "database"])
        info.add_metric([__version__, service.store.dialect.name], 1)
        yield info
        yield gauge(
            "flatwater_ready",
            "1 when work may be sent here.",
            not service.draining and not service.store.writer.degraded,
        )
        yield from self._runs()
        yield from self._memory()
        alarm = service.alarm
        yield from alerts(alarm.active(), alarm.statistics().raised)
        yield from holders(service.ledger.entries())
        yield from _numbers("flatwater_store", "Of the store: {}.", msgspec.to_builtins(service.store.statistics()))
        if service.gateway is not None:
            from flatwater.gateway.exposition import metrics

            yield from metrics(service.gateway)
        yield histogram("flatwater_loop_lag_seconds", "How late the event loop wakes.", service.sampler.lag)

    def _runs(self) -> Iterator[Metric]:
        engine = self._service.engine.statistics()
        states = GaugeMetricFamily("flatwater_runs", "Runs by state (at most a million counted).", labels=["state"])
        for state, count in self._counts.by_state.items():
            states.add_metric([state], count)
        yield states
        waits = GaugeMetricFamily("flatwater_waits", "Blocks that wait, by what for.", labels=["kind"])
        for kind, count in self._counts.waits.items():
            waits.add_metric([kind], count)
        yield waits
        runs = self._service.engine.figures
        yield histogram("flatwater_run_seconds", "From start to end of runs ended here.", runs.durations)
        yield _queued(runs.queued)
        yield gauge("flatwater_runs_active", "Runs in memory.", engine.scheduler.active)
        yield gauge("flatwater_contexts_live", "Contexts in memory.", engine.contexts.live)
        yield gauge("flatwater_contexts_overdue", "Contexts that outlive their run.", engine.contexts.overdue)
        yield counter("flatwater_runs_submitted", "Runs accepted since the start.", engine.submitted)
        yield _ended(runs.by_definition)
        yield gauge(
            "flatwater_stream_subscribers", "Live event streams.", self._service.engine.events.statistics().subscribers
        )

    def _memory(self) -> Iterator[Metric]:
        memory = self._service.sampler.memory()
        for name, help_, value in (
            ("flatwater_rss_bytes", "Resident memory.", memory.rss_bytes),
            ("flatwater_vms_bytes", "Virtual memory.", memory.vms_bytes),
            ("flatwater_pss_bytes", "Proportional share of memory.", memory.pss_bytes),
            ("flatwater_uss_bytes", "Memory of this process alone.", memory.uss_bytes),
            ("flatwater_memory_limit_bytes", "The tightest cgroup limit.", memory.limit_bytes),
            ("flatwater_rss_slope_bytes_per_second", "Trend of resident memory.", memory.slope_bytes_per_s),
            ("flatwater_threads", "Threads.", memory.threads),
            ("flatwater_fds", "Open file descriptors.", memory.fds),
            ("flatwater_asyncio_tasks", "asyncio tasks.", memory.asyncio_tasks),
            ("flatwater_allocated_blocks", "The interpreter's memory blocks.", memory.blocks),
        ):
            if value is not None:
                yield gauge(name, help_, value)


def _queued(waits: Mapping[str, Histogram]) -> Metric:
    name, told = "flatwater_run_queue_seconds", "From being due to the start of runs started here."
    return histograms(name, told, ("priority",), {(priority,): found for priority, found in waits.items()})


def _ended(counts: Mapping[str, Mapping[str, int]]) -> Metric:
    told = "Runs ended here since the start, by definition; those beyond a hundred together."
    family = CounterMetricFamily("flatwater_runs_ended", told, labels=["state", "definition"])
    for definition, states in counts.items():
        for state, count in states.items():
            family.add_metric([state, definition], count)
    return family


def _numbers(prefix: str, told: str, figures: dict[str, Any]) -> Iterator[Metric]:
    """Every number of nested statistics as a gauge."""
    for name, value in figures.items():
        if isinstance(value, dict):
            yield from _numbers(f"{prefix}_{name}", told, value)
        elif isinstance(value, bool | int | float):
            yield gauge(f"{prefix}_{name}", told.format(name), value)
