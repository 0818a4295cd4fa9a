"""The gateway's figures in Prometheus's text format, made from ``statistics()`` when somebody asks."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric, SummaryMetricFamily
from prometheus_client.registry import Collector

if TYPE_CHECKING:
    from flatwater.gateway.gateway import Gateway, GatewayStatistics
    from flatwater.gateway.upstream import ServiceStatistics


def exposition(gateway: Gateway) -> bytes:
    """All metrics of one gateway as text."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Figures(gateway))
    return generate_latest(registry)


class _Figures(Collector):
    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway

    def describe(self) -> Iterable[Metric]:
        return []

    def collect(self) -> Iterator[Metric]:
        return metrics(self._gateway.statistics())


def metrics(figures: GatewayStatistics) -> Iterator[Metric]:
    """The metric families of a gateway; the server has them beside its own."""
    yield GaugeMetricFamily("flatwater_gateway_active", "Requests under way.", value=figures.active)
    yield GaugeMetricFamily("flatwater_gateway_draining", "1 while it is leaving.", value=figures.draining)
    yield CounterMetricFamily("flatwater_gateway_reloads", "Configurations loaded since the start.", figures.reloads)
    yield _by("refused", "Requests that reached no service, by reason.", "reason", figures.refused)
    yield from _services(figures.services)
    yield from _endpoints(figures.services)
    if figures.cache is not None:
        yield _by(
            "cache_lookups",
            "Look-ups in the cache, by outcome.",
            "outcome",
            {
                name: getattr(figures.cache, name)
                for name in ("hits", "stale_hits", "validations", "misses", "bypassed", "refused")
            },
        )
        yield GaugeMetricFamily("flatwater_gateway_cache_entries", "Stored responses.", value=figures.cache.size)
        yield GaugeMetricFamily("flatwater_gateway_cache_bytes", "Bytes of these.", value=figures.cache.bytes or 0)
        yield CounterMetricFamily("flatwater_gateway_cache_evictions", "Evicted responses.", figures.cache.evictions)
    if figures.overload is not None:
        yield GaugeMetricFamily("flatwater_gateway_pressure", "Memory used of its limit.", figures.overload.pressure)
        yield GaugeMetricFamily("flatwater_gateway_overload", "Level: 0 none to 3 refusing.", figures.overload.size)
        entered = {name: getattr(figures.overload, name) for name in ("shrinking", "draining", "refusing")}
        yield _by("overloads", "How often each level was entered.", "level", entered)


def _by(name: str, text: str, label: str, counts: dict[str, int]) -> Metric:
    family = CounterMetricFamily(f"flatwater_gateway_{name}", text, labels=[label])
    for value, count in counts.items():
        family.add_metric([value], count)
    return family


def _services(services: list[ServiceStatistics]) -> Iterator[Metric]:
    answers = CounterMetricFamily(
        "flatwater_gateway_answers",
        "Answers by service and class; 499 for clients that left.",
        labels=["service", "class"],
    )
    refused = CounterMetricFamily(
        "flatwater_gateway_service_refused", "What the gateway answered itself.", labels=["service", "reason"]
    )
    retries = CounterMetricFamily("flatwater_gateway_retries", "Requests sent again.", labels=["service"])
    latency = SummaryMetricFamily("flatwater_gateway_seconds", "From arrival to the last byte.", labels=["service"])
    for service in services:
        for status, count in service.statuses.items():
            answers.add_metric([service.name, status], count)
        for reason, count in service.refused.items():
            refused.add_metric([service.name, reason], count)
        retries.add_metric([service.name], service.retries)
        latency.add_metric([service.name], service.latency.count, service.latency.total)
    yield from (answers, refused, retries, latency)


def _endpoints(services: list[ServiceStatistics]) -> Iterator[Metric]:
    labels = ["service", "endpoint"]
    up = GaugeMetricFamily("flatwater_gateway_endpoint_up", "1 unless ejected or down.", labels=labels)
    active = GaugeMetricFamily("flatwater_gateway_endpoint_active", "Requests under way.", labels=labels)
    failures = CounterMetricFamily("flatwater_gateway_endpoint_failures", "Failures.", labels=labels)
    connections = GaugeMetricFamily("flatwater_gateway_endpoint_connections", "Open connections.", labels=labels)
    for service in services:
        for endpoint in service.endpoints:
            place = [service.name, endpoint.url]
            up.add_metric(place, endpoint.state == "up")
            active.add_metric(place, endpoint.active)
            failures.add_metric(place, endpoint.failures)
            connections.add_metric(place, endpoint.pool.size)
    yield from (up, active, failures, connections)
