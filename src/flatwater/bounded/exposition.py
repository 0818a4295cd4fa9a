"""Prometheus's metric families of what the bounded parts count. prometheus_client costs 2 MB: import it when asked."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Final

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from flatwater.bounded.histogram import Histogram
from flatwater.bounded.ledger import Entry

BOUNDS_S: Final = (
    *(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5),
    *(1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 3600.0),
)
"""The upper bounds of buckets, in seconds. A value of one that is up to 6 % below its bound may count above it."""


def text(families: Iterable[Metric], *more: Collector) -> bytes:
    """The families, and those of ``more``, in Prometheus's text format."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Given(families))
    for collector in more:
        registry.register(collector)
    return generate_latest(registry)


def gauge(name: str, told: str, value: float) -> Metric:
    return GaugeMetricFamily(name, told, value=float(value))


def counter(name: str, told: str, value: float) -> Metric:
    """``name`` without the ``_total`` that the format puts behind it."""
    return CounterMetricFamily(name, told, value=float(value))


def counters(name: str, told: str, label: str, values: Mapping[str, float]) -> Metric:
    """A counter for each value of a label."""
    family = CounterMetricFamily(name, told, labels=[label])
    for value, count in values.items():
        family.add_metric([value], count)
    return family


def histogram(name: str, told: str, values: Histogram) -> Metric:
    """Of durations in seconds."""
    return histograms(name, told, (), {(): values})


def histograms(
    name: str, told: str, labels: tuple[str, ...], values: Mapping[tuple[str, ...], Histogram]
) -> HistogramMetricFamily:
    """A histogram of durations for each combination of values of labels."""
    family = HistogramMetricFamily(name, told, labels=labels)
    for place, found in values.items():
        figures = found.statistics()
        counts = zip(BOUNDS_S, found.cumulative(BOUNDS_S), strict=True)
        buckets = [(str(bound), float(count)) for bound, count in counts]
        family.add_metric(place, [*buckets, ("+Inf", float(figures.count))], figures.total)
    return family


def holders(entries: Iterable[Entry]) -> Iterator[Metric]:
    """A ledger: what each holder of things holds, and its bounds."""
    labels = ["name", "kind"]
    told = {"size": "entries", "bound": "most entries", "bytes": "bytes", "max_bytes": "most bytes"}
    families = {
        field: GaugeMetricFamily(f"flatwater_holder_{field}", f"Of each holder of things: {what}.", labels=labels)
        for field, what in told.items()
    }
    evictions = CounterMetricFamily(
        "flatwater_holder_evictions", "Entries dropped to stay within bounds.", labels=labels
    )
    for entry in entries:
        for field, family in families.items():
            value = getattr(entry, field)
            if value is not None:
                family.add_metric([entry.name, entry.kind], value)
        evictions.add_metric([entry.name, entry.kind], entry.evictions)
    yield from families.values()
    yield evictions


def alerts(active: Iterable[str], raised: int) -> Iterator[Metric]:
    """The rules that are broken now, and how many alerts there were."""
    family = GaugeMetricFamily("flatwater_alert", "1 while the rule is broken.", labels=["rule"])
    for rule in active:
        family.add_metric([rule], 1)
    yield family
    yield counter("flatwater_alerts_raised", "Alerts raised since the start.", raised)


class _Given(Collector):
    def __init__(self, families: Iterable[Metric]) -> None:
        self._families = families

    def describe(self) -> Iterable[Metric]:
        return []

    def collect(self) -> Iterable[Metric]:
        return self._families
