"""Prometheus's text format, made from the parts' statistics when somebody asks: nothing is counted twice."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import msgspec
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from flatwater import __version__
from flatwater.bounded import Histogram
from flatwater.server.counts import RunCounts
from flatwater.server.service import Service

BOUNDS_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 3600.0)


def exposition(service: Service, counts: RunCounts) -> bytes:
    """All metrics as text."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Figures(service, counts))
    return generate_latest(registry)


class _Figures(Collector):
    def __init__(self, service: Service, counts: RunCounts) -> None:
        self._service = service
        self._counts = counts

    def describe(self) -> Iterable[Metric]:
        return []

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
        yield from self._alerts()
        yield from self._ledger()
        yield from _numbers("flatwater_store", "Of the store: {}.", msgspec.to_builtins(service.store.statistics()))
        if service.gateway is not None:
            from flatwater.gateway.exposition import metrics

            yield from metrics(service.gateway.statistics())
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
        yield histogram(
            "flatwater_run_seconds", "From start to end of runs ended here.", self._service.engine.durations
        )
        yield gauge("flatwater_runs_active", "Runs in memory.", engine.scheduler.active)
        yield gauge("flatwater_contexts_live", "Contexts in memory.", engine.contexts.live)
        yield gauge("flatwater_contexts_overdue", "Contexts that outlive their run.", engine.contexts.overdue)
        yield CounterMetricFamily("flatwater_runs_submitted", "Runs accepted since the start.", value=engine.submitted)
        ended = CounterMetricFamily("flatwater_runs_ended", "Runs ended here since the start.", labels=["state"])
        for state, count in engine.ended.items():
            ended.add_metric([state], count)
        yield ended
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

    def _alerts(self) -> Iterator[Metric]:
        alarm = self._service.alarm
        active = GaugeMetricFamily("flatwater_alert", "1 while the rule is broken.", labels=["rule"])
        for rule in alarm.active():
            active.add_metric([rule], 1)
        yield active
        raised = alarm.statistics().raised
        yield CounterMetricFamily("flatwater_alerts_raised", "Alerts raised since the start.", value=raised)

    def _ledger(self) -> Iterator[Metric]:
        labels = ["name", "kind"]
        families = {
            field: GaugeMetricFamily(f"flatwater_holder_{field}", f"Of each holder of things: {text}.", labels=labels)
            for field, text in (
                ("size", "entries"),
                ("bound", "most entries"),
                ("bytes", "bytes"),
                ("max_bytes", "most bytes"),
            )
        }
        evictions = CounterMetricFamily(
            "flatwater_holder_evictions", "Entries dropped to stay within bounds.", labels=labels
        )
        for entry in self._service.ledger.entries():
            for field, family in families.items():
                value = getattr(entry, field)
                if value is not None:
                    family.add_metric([entry.name, entry.kind], value)
            evictions.add_metric([entry.name, entry.kind], entry.evictions)
        yield from families.values()
        yield evictions


def gauge(name: str, text: str, value: float) -> GaugeMetricFamily:
    return GaugeMetricFamily(name, text, value=float(value))


def histogram(name: str, text: str, values: Histogram) -> HistogramMetricFamily:
    figures = values.statistics()
    buckets = [(str(bound), float(count)) for bound, count in zip(BOUNDS_S, values.cumulative(BOUNDS_S), strict=True)]
    return HistogramMetricFamily(
        name, text, buckets=[*buckets, ("+Inf", float(figures.count))], sum_value=figures.total
    )


def _numbers(prefix: str, text: str, figures: dict[str, Any]) -> Iterator[Metric]:
    """Every number of nested statistics as a gauge."""
    for name, value in figures.items():
        if isinstance(value, dict):
            yield from _numbers(f"{prefix}_{name}", text, value)
        elif isinstance(value, bool | int | float):
            yield gauge(f"{prefix}_{name}", text.format(name), value)
