"""Every figure of the gateway's statistics is in its metrics."""

from __future__ import annotations

import types
import typing
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import Any

import msgspec
from prometheus_client.parser import text_string_to_metric_families
from tests.gateway.origin import OK, config, gate, origin

from flatwater.bounded import Histogram, Ledger
from flatwater.bounded.exposition import BOUNDS_S, text
from flatwater.gateway.exposition import exposition, families
from flatwater.gateway.gateway import GatewayStatistics

# Shown by other means: the histograms and the holders' lines show them, or they are the sum of what is shown.
LEFT_OUT = {"latency", "evictions", "ejections"}
LEFT_OUT |= {f"{name}.{field}" for name in ("tasks", "background") for field in ("bytes", "max_bytes")}
LEFT_OUT |= {"pool.max_bytes", "flights.bytes", "flights.max_bytes", "overload.bound"}


def filled(kind: Any, numbers: Iterator[int], shown: dict[str, float], path: str) -> Any:
    """A value of the type in which each number is another one; ``shown`` gets those that must be seen."""
    origin_ = typing.get_origin(kind)
    if origin_ is typing.Union or origin_ is types.UnionType:
        return filled(typing.get_args(kind)[0], numbers, shown, path)
    if origin_ is list:
        return [filled(typing.get_args(kind)[0], numbers, shown, path)]
    if origin_ is dict:
        return {"some": filled(typing.get_args(kind)[1], numbers, shown, path)}
    if isinstance(kind, type) and issubclass(kind, msgspec.Struct):
        hints = typing.get_type_hints(kind)
        fields = kind.__struct_fields__
        place = path.rpartition(".")[2]
        return kind(
            **{
                name: filled(
                    hints[name], numbers, {} if {name, f"{place}.{name}"} & LEFT_OUT else shown, f"{path}.{name}"
                )
                for name in fields
            }
        )
    if kind in (int, float):
        shown[path] = float(next(numbers))
        return kind(shown[path])
    return True if kind is bool else "up" if path.endswith("state") else "some"


def test_nothing_is_left_out(ledger: Ledger) -> None:
    shown: dict[str, float] = {}
    figures = filled(GatewayStatistics, count(1001), shown, "")
    assert len(shown) > 90
    exported = text(families(figures, {}, None)).decode()
    values = {sample.value for family in text_string_to_metric_families(exported) for sample in family.samples}
    assert not [path for path, value in shown.items() if value not in values]


def test_the_histogram_says_how_long_requests_take(ledger: Ledger) -> None:
    figures = filled(GatewayStatistics, count(1001), {}, "")
    latency = Histogram("latency", ledger=ledger)
    for seconds in [0.004] * 98 + [0.4, 20.0]:
        latency.add(seconds)
    exported = text(families(figures, {"api": latency}, None)).decode()
    found = {family.name: family for family in text_string_to_metric_families(exported)}[
        "flatwater_gateway_request_seconds"
    ]
    assert found.type == "histogram"
    buckets = {float(sample.labels["le"]): sample.value for sample in found.samples if sample.name.endswith("_bucket")}
    assert list(buckets) == [*BOUNDS_S, float("inf")]
    assert [buckets[bound] for bound in (0.0025, 0.005, 0.25, 0.5, 10.0, 30.0, float("inf"))] == [
        0,
        98,
        98,
        99,
        99,
        100,
        100,
    ]


async def test_names_follow_the_conventions(ledger: Ledger) -> None:
    more = "cache = { enabled = true }\nrate = { per_s = 100.0 }"
    async with origin(OK) as upstream, gate(config(upstream.port, more), ledger) as front:
        assert (await front.get()).status == 200
        await front.at_rest()
        exported = exposition(front.gateway).decode()
    found = {family.name: family for family in text_string_to_metric_families(exported)}
    assert found["process_resident_memory_bytes"].samples[0].value > 2**20
    assert found["flatwater_gateway_requests"].samples[0].value == 1
    assert any(sample.labels["name"] == "gateway clients" for sample in found["flatwater_holder_size"].samples)
    for name, family in found.items():
        assert family.documentation, name
        if family.type == "histogram":
            assert name.endswith("_seconds")
        if "bytes" in name.split("_") or name.endswith("seconds"):
            assert name.endswith(("_bytes", "_seconds")), "the unit stands at the end"


def test_the_reference_of_metrics_is_current(ledger: Ledger) -> None:
    figures = filled(GatewayStatistics, count(1001), {}, "")
    page = (Path(__file__).parents[2] / "docs" / "reference" / "metrics.md").read_text("utf-8")
    latency, lag = Histogram("latency", ledger=ledger), Histogram("lag", ledger=ledger)
    for family in families(figures, {"api": latency}, lag):
        name = f"{family.name}_total" if family.type == "counter" else family.name
        labels = sorted({label for sample in family.samples for label in sample.labels} - {"le"})
        shown = ", ".join(f"`{label}`" for label in labels)
        line = f"| `{name.removeprefix('flatwater_gateway_')}` | {family.type} | {shown} | {family.documentation} |"
        assert line in page.splitlines(), line
