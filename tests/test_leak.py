"""The checks of tests/leak.py and tests/loop.py must themselves be able to fail: each kind of leak, tried out."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

pytest_plugins = ["pytester"]

ROOT = Path(__file__).parents[1]

PRELUDE = """
import asyncio, os, subprocess, sys, threading, time
import pytest
from flatwater.bounded import History, TaskGroup
kept = []
"""

LEAKS = """
MARK
async def test_task():
    kept.append(asyncio.get_running_loop().create_task(asyncio.sleep(60)))

MARK
def test_ledger(ledger):
    kept.append((ledger, History("kept", max_entries=1, ledger=ledger)))

MARK
def test_fd():
    kept.append(os.open("/proc/self/status", os.O_RDONLY))

MARK
def test_thread():
    threading.Thread(target=time.sleep, args=(4,), name="sleeper", daemon=True).start()

MARK
def test_child():
    kept.append(subprocess.Popen([sys.executable, "-c", "import time; time.sleep(4)"]))
"""

CLEAN = """
async def test_clean(ledger):
    history = History("short-lived", max_entries=1, ledger=ledger)
    history.add(history)  # a cycle, which only a collection frees
    async with TaskGroup("group", max_tasks=1, ledger=ledger) as group:
        await group.start(asyncio.sleep(0), name="nap")
    await asyncio.to_thread(time.sleep, 0)
    subprocess.run([sys.executable, "-c", ""], check=True)
"""


def run(pytester: pytest.Pytester, source: str) -> tuple[pytest.RunResult, dict[str, int]]:
    pytester.makeconftest(f"import sys; sys.path.insert(0, {str(ROOT)!r})\npytest_plugins = 'tests.leak', 'tests.loop'")
    pytester.makeini("[pytest]\nasyncio_mode = auto\nasyncio_default_fixture_loop_scope = function\n")
    pytester.makepyfile(PRELUDE + source)
    result = pytester.runpytest_subprocess(
        "-p", "no:cacheprovider", "-p", "no:hypothesispytest", "-p", "no:schemathesis"
    )
    return result, result.parseoutcomes()


def test_each_kind_of_leak_is_an_error(pytester: pytest.Pytester) -> None:
    result, counts = run(pytester, LEAKS.replace("MARK", ""))
    assert counts == {"passed": 5, "errors": 5}
    told = [
        "*running:",
        "  ledger: history 'kept'",
        "  fd: * /proc/*/status",
        "  thread: sleeper",
        "  child: *sleep(4)*",
    ]
    result.stdout.fnmatch_lines(told)


def test_what_is_declared_or_clean_or_failed_passes(pytester: pytest.Pytester) -> None:
    marked = LEAKS
    for kind in ("task", "ledger", "fd", "thread", "child"):
        marked = marked.replace("MARK", f"@pytest.mark.may_leave('{kind}')", 1)
    failing = "\ndef test_failing():\n    kept.append(os.open('/proc/self/stat', os.O_RDONLY))\n    assert False\n"
    _, counts = run(pytester, marked + CLEAN + failing)
    assert counts == {"passed": 6, "failed": 1}


def test_what_blocks_the_loop_is_an_error(pytester: pytest.Pytester) -> None:
    source = """
import flatwater.errors
exec(compile("def nap(): import time; time.sleep(0.001)", flatwater.errors.__file__, "exec"))

@pytest.mark.watch_loop(max_cpu_s=0.1)
async def test_slow_callback():
    await asyncio.sleep(0)
    until = time.thread_time() + 0.3
    while time.thread_time() < until:
        pass
    await asyncio.sleep(0)

@pytest.mark.watch_loop(max_cpu_s=0.1)
async def test_waiting_for_a_busy_machine_is_no_work():
    time.sleep(0.3)

@pytest.mark.watch_loop
async def test_blocking_call():
    await asyncio.to_thread(nap)  # in a thread it is fine
    nap()

@pytest.mark.watch_loop
async def test_called_from_another_thread():
    loop = asyncio.get_running_loop()
    await asyncio.to_thread(loop.call_soon_threadsafe, print)  # this wakes the loop
    await asyncio.to_thread(loop.call_soon, repr, "unheard")
    await asyncio.to_thread(loop.call_later, 0.001, repr, "of")

async def test_not_watched():
    nap()

@pytest.mark.watch_loop
async def test_fine():
    await asyncio.sleep(0.001)
"""
    result, counts = run(pytester, source)
    assert counts == {"passed": 6, "errors": 3}
    result.stdout.fnmatch_lines(
        [
            "*test_slow_callback* used 0.*seconds of the processor",
            "  time.sleep(0.001,) from *errors.py:1*",
            "  call_soon(<built-in function repr>, 'unheard') from another thread, *",
            "  call_at(*, <built-in function repr>, 'of') from another thread, *",
        ]
    )
    assert result.stdout.str().count("time.sleep(0.001,)") == 1 + ("CI" in os.environ)  # there the summary repeats it
