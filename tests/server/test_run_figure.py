"""What the log and the metrics say of a run: its id beside each message, its wait, its definition."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator
from io import StringIO
from pathlib import Path
from typing import Any

import msgspec
import pytest
from prometheus_client.parser import text_string_to_metric_families
from tests.server.harness import QUICK, block, definition, in_state, running, saved, service_of, started

from flatwater.bounded import Ledger
from flatwater.engine.block import block as decorated
from flatwater.engine.figure import OTHERS, Figures
from flatwater.server.log import handler
from flatwater.settings.model import EngineSettings, LogSettings
from flatwater.store.run import Claimed

mine = logging.getLogger("somebody.elses.library")


@pytest.fixture
def lines() -> Iterator[StringIO]:
    """The log as the server writes it."""
    text = StringIO()
    found = handler(LogSettings(), text)
    logging.getLogger().addHandler(found)
    yield text
    logging.getLogger().removeHandler(found)


async def test_what_a_block_logs_has_its_run(tmp_path: Path, lines: StringIO) -> None:
    """In the event loop, in a thread, in a branch of its own; what is logged outside of runs has none."""

    @decorated("Told", family="test")
    async def told(text: str = "") -> None:
        mine.warning(text)

    @decorated("ToldInThread", family="test")
    def told_in_thread(text: str = "") -> None:
        mine.warning(text)

    @decorated("Broken", family="test")
    async def broken() -> None:
        raise ZeroDivisionError("no use")

    async with running(tmp_path) as client:
        kinds: tuple[Any, ...] = (told, told_in_thread, broken)
        for kind in kinds:
            service_of(client).engine.registry.register(kind)
        branches = block(3, "ParallelFlowBp", {"default": [block(4, "Told", text="a branch"), block(6, "Told")]})
        blocks = [block(1, "Told", text="the loop"), block(2, "ToldInThread", text="a thread"), branches]
        await saved(client, definition("teller", *blocks, block(5, "Broken")))
        ids = [await started(client, "teller") for _ in range(2)]
        for run_id in ids:
            await in_state(client, run_id, "FAILED")
        mine.warning("outside")
    found = [msgspec.json.decode(line) for line in lines.getvalue().splitlines()]
    for text in ("the loop", "a thread", "a branch"):
        assert sorted(line["run_id"] for line in found if line["message"] == text) == sorted(ids)
    failed = [line for line in found if line["message"].endswith("failed") and "ZeroDivisionError" in line["error"]]
    assert {(line["run_id"], line["path"]) for line in failed} == {(run_id, "-1/5") for run_id in ids}
    assert all("run_id" not in line for line in found if line["message"] == "outside")


async def test_time_in_queue_and_ended_runs(tmp_path: Path) -> None:
    """Runs that find no room wait, and the wait is counted under their class of priority; a delay is no wait."""
    async with running(tmp_path, engine=EngineSettings(max_active=1)) as client:
        engine = service_of(client).engine
        await saved(client, QUICK, {**QUICK, "id": "rare"})
        ids = [await started(client, "quick", priority=7), await started(client, "rare", priority=-7)]
        ids += [await started(client, "quick", delay_s=0.3) for _ in range(3)]
        for run_id in ids:
            await in_state(client, run_id, "SUCCEEDED")
        async with asyncio.timeout(90):  # a run is counted a moment after its end is stored
            while engine.figures.ended["SUCCEEDED"] < len(ids):
                await asyncio.sleep(0.01)
        assert {name: found.count for name, found in engine.figures.queued.items()} == {
            "low": 1,
            "normal": 3,
            "high": 1,
        }
        assert engine.figures.queued["normal"].statistics().minimum < 0.3, "it counts from when the run was due"
        metrics = (await client.get("/metrics")).body.decode()
        assert 'flatwater_run_queue_seconds_bucket{le="+Inf",priority="normal"} 3.0' in metrics
        assert 'flatwater_runs_ended_total{definition="quick",state="SUCCEEDED"} 4.0' in metrics
        assert 'flatwater_runs_ended_total{definition="rare",state="SUCCEEDED"} 1.0' in metrics


def test_a_retry_is_no_second_start_and_labels_are_bounded(ledger: Ledger) -> None:
    figures = Figures(60.0, ledger=ledger, max_definitions=3)

    def row(definition: str, epoch: int = 1) -> Claimed:
        return Claimed(
            "r", definition, "", 1, "", 1000.0 - 2 * 60.0, 2, 0.0, 1000.0, None, epoch, None, None, 1, None, None, None,
            None, 0, False,
        )  # fmt: skip

    figures.began(row("a"), 1005.0)
    figures.began(row("a", epoch=2), 1100.0)
    waited = figures.queued["high"].statistics()
    assert (waited.count, waited.total) == (1, 5.0)
    for number in range(10):
        figures.left(row(f"d{number}"), "FAILED", 1010.0)
    figures.left(row("d1"), "FAILED", 1010.0)
    assert figures.by_definition == {
        "d0": {"FAILED": 1},
        "d1": {"FAILED": 2},
        "d2": {"FAILED": 1},
        OTHERS: {"FAILED": 7},
    }
    assert figures.ended["FAILED"] == 11


async def test_the_reference_has_every_metric(tmp_path: Path) -> None:
    page = (Path(__file__).parents[2] / "docs" / "reference" / "metrics.md").read_text("utf-8")
    async with running(tmp_path) as client:
        await saved(client, QUICK)
        await in_state(client, await started(client, "quick"), "SUCCEEDED")
        text = (await client.get("/metrics")).body.decode()
    for family in text_string_to_metric_families(text):
        name = f"{family.name}_total" if family.type == "counter" else family.name
        assert f"`{name}`" in page or name.startswith("flatwater_store_"), name
