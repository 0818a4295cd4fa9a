"""``flatwater top`` driven by the keyboard, on a real process that grows."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from textual.pilot import Pilot
from textual.widgets import DataTable, Static

from flatwater.cli.top.app import Top
from flatwater.memory.selector import parse

LEAK = """
import time

class Order:
    def __init__(self):
        self.text = "x" * 100

class Desk:
    def __init__(self):
        self.pending = {}

desk = Desk()
print("ready", flush=True)
number = 0
while True:
    number += 1
    desk.pending[number] = Order()
    time.sleep(0.001)
"""


@pytest.fixture
def leak(tmp_path: Path) -> Iterator[int]:
    program = tmp_path / "leak.py"
    program.write_text(LEAK)
    process = subprocess.Popen([sys.executable, str(program)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    yield process.pid
    process.kill()
    process.communicate(timeout=90)


@asynccontextmanager
async def driven(pid: int) -> AsyncIterator[Pilot[None]]:
    async with Top(parse(str(pid)), interval_s=0.2).run_test(size=(140, 40)) as pilot:
        yield pilot
        while len(pilot.app.screen_stack) > 1:  # leaving a screen detaches from the process
            pilot.app.pop_screen()
            await pilot.pause()
        await pilot.app.workers.wait_for_complete()


async def until(pilot: Pilot[None], true: Callable[[], bool], timeout_s: float = 120.0) -> None:
    """Fails with what the screen shows, so that a run on a busy machine tells where it stood."""
    deadline = time.monotonic() + timeout_s
    while not true():
        assert time.monotonic() < deadline, screen(pilot)
        await pilot.pause(0.1)


def screen(pilot: Pilot[None]) -> str:
    shown = pilot.app.screen
    lines = [f"{type(shown).__name__}, the focus is on {shown.focused}"]
    lines += [f"#{static.id} {static.render()}" for static in shown.query(Static) if static.id]
    for table in shown.query(DataTable):
        assert table.id is not None
        lines += [f"#{table.id}, cursor in row {table.cursor_row}", *map(str, rows(pilot, table.id)[:5])]
    return "\n".join(lines)


def rows(pilot: Pilot[None], name: str) -> list[list[str]]:
    table = pilot.app.screen.query_one(f"#{name}", DataTable)
    return [[str(cell) for cell in table.get_row_at(at)] for at in range(table.row_count)]


def text(pilot: Pilot[None], name: str) -> str:
    return str(pilot.app.screen.query_one(f"#{name}", Static).render())


@pytest.mark.may_leave("thread")  # textual's own pool for its workers ends with the process
async def test_from_the_process_to_the_owner(leak: int) -> None:
    async with driven(leak) as pilot:
        await until(pilot, lambda: len(rows(pilot, "processes")) == 1)
        assert rows(pilot, "processes")[0][0] == str(leak)
        assert "leak.py" in rows(pilot, "processes")[0][1]
        await pilot.press("enter")

        def grown(name: str, kind: str) -> bool:
            found = rows(pilot, name)
            return bool(found) and found[0][0].endswith(kind) and found[0][2].startswith("+")

        await until(pilot, lambda: grown("types", "Order") and grown("containers", "dict"))
        await pilot.press("slash")
        await pilot.press(*"order", "enter")
        await until(pilot, lambda: len(rows(pilot, "types")) == 1)
        await pilot.press("f", "f", "f", "f")
        await until(pilot, lambda: "floor 100,000" in text(pilot, "state") and rows(pilot, "containers") == [])
        await pilot.press("f", "t")
        await until(pilot, lambda: len(rows(pilot, "containers")) > 0)
        pilot.app.screen.query_one("#containers", DataTable).focus()
        await pilot.press("home", "enter")
        await until(pilot, lambda: "desk → Desk.pending (dict" in text(pilot, "path"))
        assert [row for row in rows(pilot, "referrers") if row[0] == "pending" and row[1].endswith("Desk")]
        held = rows(pilot, "referents")
        assert [row for row in held if row[1].endswith("Order")]
        pilot.app.screen.query_one("#referrers", DataTable).focus()
        await pilot.press("home", "enter")
        await until(pilot, lambda: ".Desk" in text(pilot, "path"))
        await pilot.press("backspace")
        await until(pilot, lambda: "desk → Desk.pending (dict" in text(pilot, "path"))


@pytest.mark.may_leave("thread")
async def test_a_process_that_has_ended(leak: int) -> None:
    async with driven(leak) as pilot:
        await until(pilot, lambda: len(rows(pilot, "processes")) == 1)
        await pilot.press("enter")
        await until(pilot, lambda: bool(rows(pilot, "types")))
        os.kill(leak, signal.SIGKILL)
        await until(pilot, lambda: str(leak) in text(pilot, "state") and "look" not in text(pilot, "state"))
        await pilot.press("escape")
        await until(pilot, lambda: rows(pilot, "processes") == [])


def test_not_in_a_pipe() -> None:
    command = [sys.executable, "-m", "flatwater.cli", "top", "1"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 2
    assert "flatwater record" in done.stderr
