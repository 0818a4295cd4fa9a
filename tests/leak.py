"""After each test nothing may be left: no asyncio task, ledger entry, file descriptor, thread or child process.

A test that has to leave something says so, with the reason beside it: ``@pytest.mark.may_leave("fd")``; the kinds are
task, ledger, fd, thread, child. Things made by fixtures of a wider scope are not counted. A failed test is not
checked, because its traceback holds its objects.
"""

from __future__ import annotations

import asyncio
import gc
import inspect
import sys
import threading
import time
import weakref
from collections.abc import AsyncIterator, Callable, Generator
from pathlib import Path
from typing import Any

import psutil
import pytest

from flatwater.bounded.ledger import Ledger

KINDS = ("task", "ledger", "fd", "thread", "child")
# Opened once by the interpreter or by a library, then kept for the life of the process, whatever test comes first.
LASTING_FILES = ("/dev/null", "/dev/urandom", "/dev/random")
# pytest-timeout's timer runs through the teardown; Hypothesis and pydevd keep daemons.
LASTING_THREADS = ("pytest_timeout", "pydevd")
GRACE_S = 2.0  # threads and processes that were told to end may need a moment to be gone

FAILED = pytest.StashKey[bool]()
BEFORE = pytest.StashKey["Baseline"]()

lasting_children: set[int] = set()
"""Processes that last as long as the session (the database servers of tests/service.py)."""

_forked = False


def _note_forks(event: str, arguments: tuple[Any, ...]) -> None:
    global _forked
    if event in ("subprocess.Popen", "os.fork", "os.forkpty", "os.posix_spawn"):
        _forked = True


sys.addaudithook(_note_forks)


class Baseline:
    """What exists before the test; ``left`` says what is there beyond that."""

    def __init__(self) -> None:
        self.ledgers: list[weakref.ref[Ledger]] = []
        self.descriptors = descriptors()
        self.threads = set(threading.enumerate())
        self.children = children()

    def left(self, allowed: set[str]) -> dict[str, list[str]]:
        return {kind: found for kind in KINDS[1:] if kind not in allowed and (found := getattr(self, f"_{kind}")())}

    def _ledger(self) -> list[str]:
        alive = [ledger for reference in self.ledgers if (ledger := reference()) is not None]
        return [f"{holder.kind} {name!r}" for ledger in alive for name, holder in ledger.holders()]

    def _fd(self) -> list[str]:
        return [
            f"{number} → {target}"
            for number, target in descriptors().items()
            if self.descriptors.get(number) != target and target not in LASTING_FILES
        ]

    def _thread(self) -> list[str]:
        new = set(threading.enumerate()) - self.threads
        return [thread.name for thread in new if not thread.name.startswith(LASTING_THREADS)]

    def _child(self) -> list[str]:
        return [describe(pid) for pid in children() - self.children - lasting_children]


def descriptors() -> dict[str, str]:
    """What is open, without the standard streams, which pytest's capture exchanges."""
    found = {}
    for path in Path("/proc/self/fd").iterdir():
        try:
            found[path.name] = str(path.readlink())
        except FileNotFoundError:  # the descriptor of the listing itself
            continue
    return {number: target for number, target in found.items() if int(number) > 2}


def children() -> set[int]:
    """Processes that were started here and not yet waited for; the scan is only made once there was a fork."""
    return {child.pid for child in psutil.Process().children()} if _forked else set()


def describe(pid: int) -> str:
    try:
        process = psutil.Process(pid)
        return f"{pid} ({process.status()}) {' '.join(process.cmdline())}"
    except psutil.Error:
        return str(pid)


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "may_leave(*kinds): what the leak check tolerates here; say why beside it")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if isinstance(item, pytest.Function) and inspect.iscoroutinefunction(inspect.unwrap(item.obj)):
            item.fixturenames.insert(0, "no_task_left")


@pytest.hookimpl(trylast=True)
def pytest_collection_finish() -> None:
    """Modules and collected tests stay to the end: collections after tests need not look at these 300,000 objects."""
    gc.collect()
    gc.freeze()


@pytest.fixture
def ledger() -> Ledger:
    """A fresh ledger, looked at after the test as every ledger that the test made."""
    return Ledger()


@pytest.fixture(autouse=True)
def _baseline(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Set up before the other fixtures of the test; the check itself comes after all of them are gone."""
    before = request.node.stash[BEFORE] = Baseline()
    monkeypatch.setattr(Ledger, "__init__", _noting(Ledger.__init__, before.ledgers))


def _noting(make: Callable[[Ledger], None], ledgers: list[weakref.ref[Ledger]]) -> Callable[[Ledger], None]:
    def note(self: Ledger) -> None:
        make(self)
        ledgers.append(weakref.ref(self))

    return note


@pytest.fixture
async def no_task_left(request: pytest.FixtureRequest) -> AsyncIterator[None]:
    """The first fixture of every asynchronous test: torn down after the others, before the loop is closed."""
    yield
    for _ in range(3):  # done callbacks run one turn later
        await asyncio.sleep(0)
    left = asyncio.all_tasks() - {asyncio.current_task()}
    if left and not request.node.stash.get(FAILED, False) and "task" not in allowed(request.node):
        names = "\n  ".join(repr(task) for task in left)
        pytest.fail(f"the test left {len(left)} asyncio task(s) running:\n  {names}", pytrace=False)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if report.failed:
        item.stash[FAILED] = True
    return report


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_teardown(item: pytest.Item) -> Generator[None, None, None]:
    yield  # outermost: fixtures are torn down, and the records of the log capture are dropped
    getattr(item, "funcargs", {}).clear()  # or the item holds the values of fixtures until its report is made
    before = item.stash.get(BEFORE, None)
    if before is None or item.stash.get(FAILED, False):
        return
    del item.stash[BEFORE]
    if left := settled(before, allowed(item)):
        lines = "".join(f"\n  {kind}: {thing}" for kind, found in left.items() for thing in found)
        pytest.fail(f"the test left something behind:{lines}", pytrace=False)


def settled(before: Baseline, allowed: set[str]) -> dict[str, list[str]]:
    """What is left after a collection and, for what ends on its own, a moment of grace."""
    if not before.left(allowed):
        return {}
    gc.collect()
    deadline = time.monotonic() + GRACE_S
    while (left := before.left(allowed)) and time.monotonic() < deadline and {"thread", "child"} & left.keys():
        time.sleep(0.02)
    return left


def allowed(item: pytest.Item) -> set[str]:
    kinds = {kind for mark in item.iter_markers("may_leave") for kind in mark.args}
    if not kinds <= set(KINDS):
        raise pytest.UsageError(f"may_leave takes {', '.join(KINDS)}, not {', '.join(sorted(kinds - set(KINDS)))}")
    return kinds
