"""The snapshot's child: its life, its limits, and what the process notices of it."""

import asyncio
import gc
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from flatwater.memory import heap


def children() -> list[psutil.Process]:
    return [child for child in psutil.Process().children() if child.name() == "flatwater-heap"]


def test_child_is_gone_after_close_and_closing_twice_is_allowed():
    graph = heap.graph()
    assert len(children()) == 1
    graph.close()
    graph.close()
    assert children() == []
    with pytest.raises(heap.HeapError, match="closed"):
        graph.garbage()


def test_forgotten_graph_ends_with_its_last_reference():
    graph = heap.graph()
    assert len(children()) == 1
    del graph
    gc.collect()
    assert children() == []


def test_child_is_humble():
    with heap.graph():
        (child,) = children()
        assert child.nice() == 19
        assert Path(f"/proc/{child.pid}/oom_score_adj").read_text().strip() == "1000"
        assert len(child.net_connections()) == 0
        assert child.num_fds() <= (5 if "libasan" in os.environ.get("LD_PRELOAD", "") else 2)  # it reports to stderr


def test_memory_cap():
    with pytest.raises(heap.HeapFull, match=r"max_bytes: [\d,]+ bytes were used at [\d,]+ objects"):
        heap.graph(max_bytes=1 << 20)
    assert children() == []


def test_time_limit():
    with pytest.raises(heap.HeapError, match="timeout_s"):
        heap.graph(timeout_s=0.0)
    assert children() == []


def test_killed_child_is_told_and_leaves_nothing():
    graph = heap.graph()
    (child,) = children()
    child.send_signal(signal.SIGKILL)
    with pytest.raises(heap.HeapError, match="unharmed"):
        graph.garbage()
    with pytest.raises(heap.HeapError, match="closed"):
        graph.garbage()
    assert children() == []


def test_child_follows_a_killed_parent():
    program = (
        "import time; from flatwater.memory import heap\n"
        "graph = heap.graph(); print(graph._child.pid, flush=True); time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        assert psutil.pid_exists(pid)
        parent.kill()
    deadline = time.monotonic() + 90
    while psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE:
        assert time.monotonic() < deadline, "the child outlived its parent"
        time.sleep(0.02)


def test_somebody_else_reaps_all_children():
    graph = heap.graph()
    (child,) = children()
    child.send_signal(signal.SIGKILL)
    os.waitpid(-1, 0)
    graph.close()


def test_a_fork_of_the_owner_leaves_the_graph_alone():
    with heap.graph() as graph:
        pid = os.fork()
        if pid == 0:
            graph.close()
            os._exit(0)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
        assert graph.garbage().bytes >= 0


def test_signals_of_the_process_group_do_not_reach_python_in_the_child():
    got: list[int] = []
    before = signal.signal(signal.SIGINT, lambda number, frame: got.append(number))
    try:
        with heap.graph() as graph:
            (child,) = children()
            child.send_signal(signal.SIGINT)
            assert graph.garbage().bytes >= 0
    finally:
        signal.signal(signal.SIGINT, before)
    assert got == []


MANY = """
import os
from flatwater.memory import heap
def rss():
    return int(open("/proc/self/statm").read().split()[1]) * 4096
for _ in range(20):
    heap.graph().close()
descriptors, before = len(os.listdir("/proc/self/fd")), rss()
for _ in range(100):
    with heap.graph() as graph:
        assert graph.statistics().objects > 10_000
        graph.largest(5); graph.census()
assert len(os.listdir("/proc/self/fd")) == descriptors
assert rss() - before < 2_000_000, rss() - before
try:
    os.waitpid(-1, os.WNOHANG)
except ChildProcessError:
    pass
else:
    raise AssertionError("a child is left")
"""


def test_a_hundred_snapshots_leave_nothing():
    done = subprocess.run([sys.executable, "-c", MANY], capture_output=True, text=True, timeout=110, check=False)
    assert done.returncode == 0, done.stderr


async def test_the_loop_goes_on_while_the_child_works():
    kept = [{str(n): [n]} for n in range(200_000)]
    longest, last = 0.0, time.perf_counter()
    done = asyncio.Event()

    async def tick() -> None:
        nonlocal longest, last
        while not done.is_set():
            now = time.perf_counter()
            longest, last = max(longest, now - last), now
            await asyncio.sleep(0.001)

    ticking = asyncio.create_task(tick())
    await asyncio.sleep(0.01)
    async with await heap.snapshot() as graph:
        done.set()
        await ticking
        figures = graph.statistics()
    assert figures.walk_s > 0
    assert longest < 30
    assert len(kept) == 200_000


def test_fork_is_audited():
    program = (
        "import sys; from flatwater.memory import heap; seen = []\n"
        "sys.addaudithook(lambda event, arguments: seen.append(event))\n"
        "heap.graph().close(); assert 'os.fork' in seen"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
