"""Figures of a process against psutil's, and control groups on a file tree of our own."""

import asyncio
import gc
import os
import subprocess
import sys
import threading
from pathlib import Path

import psutil
import pytest

from flatwater.memory import procfs
from flatwater.memory.usage import usage

MIB = 1 << 20


def test_memory_is_what_psutil_says():
    told, said = procfs.memory(), psutil.Process().memory_full_info()
    assert told.rss == pytest.approx(said.rss, rel=0.05)
    assert told.vms == pytest.approx(said.vms, rel=0.05)
    assert told.uss == pytest.approx(said.uss, rel=0.05)
    assert told.pss == pytest.approx(said.pss, rel=0.05)
    assert told.swap == said.swap
    assert told.total == psutil.virtual_memory().total
    assert told.percent == pytest.approx(psutil.Process().memory_percent(), rel=0.05)
    assert told.threads == psutil.Process().num_threads()


def test_shares_are_left_out_when_not_asked_for():
    told = procfs.memory(os.getpid(), shares=False)
    assert (told.pss, told.uss, told.swap) == (None, None, None)
    assert told.rss > MIB


def test_a_process_that_is_gone():
    with pytest.raises(ProcessLookupError, match="no process 4194305"):
        procfs.memory(4194305)


def group(root: Path, path: str, **files: str) -> None:
    place = root / "sys/fs/cgroup" / path
    place.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (place / name.replace("__", ".")).write_text(text)


def process(root: Path, line: str) -> None:
    (root / "proc/7").mkdir(parents=True)
    (root / "proc/7/cgroup").write_text(line)


def test_the_tightest_ancestor_counts(tmp_path: Path):
    process(tmp_path, "0::/pod/box\n")
    group(tmp_path, "pod/box", memory__max="max\n", memory__current="1000\n")
    group(tmp_path, "pod", memory__max="5000\n", memory__current="4000\n", memory__events="low 0\nmax 3\noom_kill 2\n")
    group(tmp_path, "", memory__current="9999\n")
    told = procfs.cgroup(7, root=tmp_path)
    assert told == procfs.Cgroup("/pod", 5000, 4000, 2)


def test_the_first_version_of_control_groups(tmp_path: Path):
    process(tmp_path, "5:cpu:/x\n4:memory:/box\n")
    group(tmp_path, "memory/box", memory__limit_in_bytes="700\n", memory__usage_in_bytes="600\n")
    group(tmp_path, "memory", memory__limit_in_bytes="9223372036854771712\n", memory__usage_in_bytes="800\n")
    told = procfs.cgroup(7, root=tmp_path)
    assert told == procfs.Cgroup("/box", 700, 600, 0)


def test_without_a_limit_and_without_groups(tmp_path: Path):
    assert procfs.cgroup(7, root=tmp_path) is None
    process(tmp_path, "0::/\n")
    group(tmp_path, "", memory__current="5\n")
    told = procfs.cgroup(7, root=tmp_path)
    assert told == procfs.Cgroup("/", None, 5, 0)


GROWTH = """
from flatwater.memory.usage import usage
MIB = 1024 * 1024
before = usage()
kept = [bytearray(b"x" * MIB) for _ in range(50)]
objects = [[n] for n in range(100_000)]
after = usage()
assert after.memory.rss - before.memory.rss > 45 * MIB, (before, after)
assert after.blocks - before.blocks > 90_000
assert (after.malloc.mapped + after.malloc.used) - (before.malloc.mapped + before.malloc.used) > 45 * MIB
"""


def test_usage_follows_what_is_allocated():
    """In a fresh process: this one may have room left from what it had before."""
    done = subprocess.run([sys.executable, "-c", GROWTH], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr


def test_collector_figures():
    gc.collect()
    gc.freeze()  # as tests/leak.py does; a test before this one may have unfrozen all
    gc.disable()
    try:
        told = usage(shares=False).collector
    finally:
        gc.enable()
    assert not told.enabled
    assert told.frozen == gc.get_freeze_count() > 1000
    assert told.thresholds == gc.get_threshold()
    assert len(told.collections) == 3


async def test_tasks_of_all_loops_are_counted():
    before = usage(shares=False).tasks
    assert before is not None
    leave = asyncio.Event()
    mine = [asyncio.create_task(leave.wait()) for _ in range(5)]
    stop, ready = threading.Event(), threading.Event()

    def other() -> None:
        async def wait() -> None:
            ready.set()
            await asyncio.to_thread(stop.wait)

        asyncio.run(wait())

    thread = threading.Thread(target=other)
    thread.start()
    ready.wait()
    try:
        assert usage(shares=False).tasks == before + 6
    finally:
        stop.set()
        leave.set()
        await asyncio.gather(*mine)
        thread.join()


def test_tasks_without_asyncio(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delitem(sys.modules, "asyncio.tasks")
    assert usage(shares=False).tasks == 0
