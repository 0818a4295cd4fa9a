"""A block that keeps its call keeps the context of its run: the log says by which way."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.server.client import eventually
from tests.server.harness import block, definition, in_state, running, saved, service_of, started

from flatwater.engine.block import block as block_kind
from flatwater.settings.model import EngineSettings

KEPT: list[Any] = []
LET_GO = threading.Event()
THREADS: list[threading.Thread] = []


@pytest.fixture(autouse=True)
def _let_go() -> Iterator[None]:
    LET_GO.clear()
    yield
    LET_GO.set()
    KEPT.clear()
    while THREADS:
        THREADS.pop().join()


def hold_running(kept: list[Any]) -> None:
    """A function that runs: its frame is in no list of the collector."""
    held_here = kept.pop()
    LET_GO.wait()
    del held_here


@block_kind("KeepInList", family="test")
async def keep_in_list(*, call: Any) -> None:
    KEPT.append(call)


@block_kind("KeepInThread", family="test")
async def keep_in_thread(*, call: Any) -> None:
    THREADS.append(threading.Thread(target=hold_running, args=([call],)))
    THREADS[-1].start()


@pytest.mark.usefixtures("usual_priority")
@pytest.mark.parametrize(
    ("kind", "way"),
    [("KeepInList", "test_overdue.KEPT[0] → "), ("KeepInThread", "hold_running() local held_here (test_overdue.py:")],
)
async def test_the_log_names_the_way(tmp_path: Path, caplog: pytest.LogCaptureFixture, kind: str, way: str) -> None:
    async with running(tmp_path, engine=EngineSettings(blocks=(__name__,), dead_context_s=0.1)) as client:
        await saved(client, definition("leak", block(1, kind)))
        run_id = await started(client, "leak")
        await in_state(client, run_id, "SUCCEEDED")
        found: list[str] = []

        async def told() -> bool:
            found[:] = [text for text in caplog.messages if text.startswith(f"the context of run {run_id} outlives it")]
            return bool(found)

        await eventually(told)
        assert len(found) == 1
        assert way in found[0], found[0]
        assert found[0].endswith("Call._run → Activation.context (Context)"), found[0]
        assert service_of(client).engine.statistics().contexts.overdue == 1
