"""The recorder on real processes: leaking ones, ones that come and go, exec, kills, and its own death."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path
from uuid import uuid4

import psutil
import pytest

from flatwater.memory import agent_figures, plot, summary
from flatwater.memory.alert import Alerts, Observation, parse
from flatwater.memory.control_group import figures
from flatwater.memory.recorder import Recorder
from flatwater.memory.recording import Recording
from flatwater.memory.recording_read import ProcessLine, Reader
from flatwater.memory.scan import Scanner
from flatwater.memory.selector import parse as select

FLATWATER = [sys.executable, "-m", "flatwater.cli"]
MIB = 1024**2

LEAK = "import sys, time\nheld = []\nwhile True:\n held.append(bytearray(200_000)); time.sleep(0.01)  # {tag}"
WAIT = "import sys\nprint(1, flush=True)\nsys.stdin.read()  # {tag}"
PARENT = """
import subprocess, sys  # {tag}
for line in sys.stdin:
    child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'])
    print(child.pid, flush=True)
    sys.stdin.readline()
    child.kill(); child.wait(); print('gone', flush=True)
"""


@pytest.fixture
def tag() -> str:
    return f"tag{uuid4().hex}"


@contextmanager
def program(text: str, tag: str) -> Iterator[subprocess.Popen[str]]:
    with subprocess.Popen(
        [sys.executable, "-c", text.replace("{tag}", tag)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as child:
        try:
            yield child
        finally:
            child.kill()


def tick_until(recorder: Recorder, done: Callable[[list[Observation]], bool], timeout_s: float = 60) -> None:
    deadline = time.monotonic() + timeout_s
    while not done(recorder.tick()):
        assert time.monotonic() < deadline, recorder.statistics()
        time.sleep(0.02)


def lines(path: Path) -> list[ProcessLine]:
    with Reader(path) as reader:
        return reader.processes()


def events(path: Path, kind: str) -> list[str]:
    with Reader(path) as reader:
        return [event.detail for event in reader.events() if event.kind == kind]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "r.sqlite"


def test_a_leak_is_recorded_and_told(path: Path, tag: str) -> None:
    alerts = Alerts([parse("rss slope > 1MiB/min for 1s")])
    told = []
    with (
        program(LEAK, tag) as child,
        Recording(path) as recording,
        Recorder(recording, select(str(child.pid)), interval_s=0.05, shares_s=0.2) as recorder,
    ):
        while psutil.Process(child.pid).num_ctx_switches().voluntary == 0:  # on a busy machine they are read once
            time.sleep(0.01)

        def enough(observations: list[Observation]) -> bool:
            told.extend(alerts.observe(observations))
            return bool(told)

        tick_until(recorder, enough)
        found = recorder.statistics()
        assert (found.size, found.seen, found.problem) == (1, 1, "")
    (line,) = lines(path)
    assert (line.pid, line.chosen, line.ended) == (child.pid, True, None)
    with Reader(path) as reader:
        rss = [point.value for point in reader.series(line.id)]
        assert rss[-1] - rss[0] > MIB
        assert reader.series(line.id, "uss")[-1].value <= reader.series(line.id, "pss")[-1].value + 4096
        latest = reader.latest(line.id)
    assert latest["threads"] == 1
    assert (latest["fds"] or 0) >= 3
    assert (latest["voluntary_switches"] or 0) > 0


def test_children_come_and_go(path: Path, tag: str) -> None:
    selector = select(f"$..children[?('{tag}' in @.cmdline)]")
    with program(PARENT, tag) as parent, Recording(path) as recording:
        assert parent.stdin is not None
        assert parent.stdout is not None
        with Recorder(recording, selector, interval_s=0.05) as recorder:
            for _ in range(2):
                print("start", file=parent.stdin, flush=True)
                pid = int(parent.stdout.readline())
                tick_until(recorder, lambda seen, pid=pid: any(one.label.endswith(f" {pid}") for one in seen))  # type: ignore[misc]
                print("stop", file=parent.stdin, flush=True)
                assert parent.stdout.readline() == "gone\n"
                tick_until(recorder, lambda seen: sum("rss" in one.values for one in seen) == 1)
            assert recorder.statistics().ended == 2
    first, *children = lines(path)
    assert (first.pid, first.chosen, first.ended) == (parent.pid, True, None)
    assert [(child.parent, child.chosen, child.ppid) for child in children] == [(first.id, False, parent.pid)] * 2
    assert all(child.exit_status in (signal.SIGKILL, None) for child in children)
    assert not any(child.oom for child in children)


def test_without_children(path: Path, tag: str) -> None:
    with program(PARENT, tag) as parent, Recording(path) as recording:
        assert parent.stdin is not None
        assert parent.stdout is not None
        print("start", file=parent.stdin, flush=True)
        parent.stdout.readline()
        with Recorder(recording, select(str(parent.pid), children=False)) as recorder:
            recorder.tick()
            assert recorder.statistics().size == 1
        print("stop", file=parent.stdin, flush=True)
        parent.stdout.readline()


def test_a_process_that_appears_later_is_found_and_exec_is_noted(path: Path, tag: str) -> None:
    program_text = f"import os, sys  # {tag}\nsys.stdin.readline()\nos.execvp('sleep', ['sleep', '600'])"
    with Recording(path) as recording, Recorder(recording, select(f"command:{tag}"), interval_s=0.05) as recorder:
        assert recorder.tick() == []
        with program(program_text, tag) as child:
            tick_until(recorder, lambda seen: any("rss" in one.values for one in seen))
            assert child.stdin is not None
            print("go", file=child.stdin, flush=True)
            tick_until(recorder, lambda _: events(path, "exec")[-1:] == ["sleep 600"])
    (line,) = lines(path)
    assert (line.pid, line.name, line.command) == (child.pid, "sleep", "sleep 600")


@pytest.mark.parametrize(
    ("end", "status", "words"),
    [("raise SystemExit(3)", 3 << 8, "exit 3"), ("os.kill(os.getpid(), 15)", 15, "signal 15 (SIGTERM)")],
)
def test_how_a_process_of_somebody_else_ended(path: Path, end: str, status: int, words: str) -> None:
    """The kernel tells who holds a pidfd, from Linux 6.15 on; before, nobody but the parent."""
    with (
        program(f"import os, sys; sys.stdin.readline(); {end}", "") as child,
        Recording(path) as recording,
        Recorder(recording, select(str(child.pid)), interval_s=0.05) as recorder,
    ):
        recorder.tick()
        assert child.stdin is not None
        print("go", file=child.stdin, flush=True)
        child.wait()
        tick_until(recorder, lambda _: recorder.finished)
    (line,) = lines(path)
    assert line.exit_status in (status, None)
    assert events(path, "end") in ([words], ["ended"])
    if tuple(int(word) for word in os.uname().release.split(".")[:2]) >= (6, 15):
        assert line.exit_status == status


def test_run_stops_by_itself_when_the_pids_have_ended(path: Path) -> None:
    child = subprocess.Popen(["sleep", "0.5"])
    with Recording(path) as recording, Recorder(recording, select(str(child.pid)), interval_s=0.05) as recorder:
        waiter = threading.Thread(target=child.wait)
        waiter.start()
        recorder.run(threading.Event())
        waiter.join()
        assert recorder.finished
    assert lines(path)[0].ended is not None


def test_a_bound_of_processes(path: Path, tag: str) -> None:
    with (
        program(WAIT, tag),
        program(WAIT, tag),
        Recording(path) as recording,
        Recorder(recording, select(tag), max_processes=1) as recorder,
    ):
        tick_until(recorder, lambda _: recorder.statistics().refused > 0)
        assert recorder.statistics().size == recorder.statistics().bound == 1


AGENT = """
import flatwater.agent, asyncio, sys  # {tag}
async def main():
    tasks = [asyncio.create_task(asyncio.sleep(600)) for _ in range(7)]
    print("ready", flush=True)
    await asyncio.sleep(600)
asyncio.run(main())
"""


def test_what_an_agent_tells_is_recorded(path: Path, tag: str) -> None:
    with program(AGENT, tag) as child, program(WAIT, tag) as without, Recording(path) as recording:
        for one in (child, without):
            assert one.stdout is not None
            one.stdout.readline()
        with Recorder(recording, select(tag), interval_s=0.05, shares_s=0.1) as recorder:
            tick_until(recorder, lambda _: recorder.agents().answered >= 2)
            os.kill(child.pid, signal.SIGSTOP)  # what does not answer holds up nothing
            begin = time.monotonic()
            for _ in range(5):
                recorder.tick()
            assert time.monotonic() - begin < 30
            os.kill(child.pid, signal.SIGCONT)
            tick_until(recorder, lambda _: recorder.agents().size == 0)
            recorder.tick()
            assert recorder.agents().asked <= recorder.agents().answered + 1
    with Reader(path) as reader:
        told = {line.pid: reader.agent_figures(line.id) for line in reader.processes()}
    assert [value for _, value in told[child.pid]["tasks"]][-1] == 8
    assert told[child.pid]["blocks"][-1][1] > 1000
    assert {"gc_enabled", "gc_collections", "malloc_used"} <= told[child.pid].keys()
    assert told[without.pid] == {}


HOLDERS = """
import flatwater.agent, sys  # {tag}
from flatwater.bounded import Ledger, History
ledger = Ledger()
kept = [History(f"short {number}", max_entries=1000, ledger=ledger) for number in range(25)]
orders = History("orders of the day", max_entries=1000, ledger=ledger)
kept[7].add(b"x")
print("ready", flush=True)
for line in sys.stdin:
    for number in range(int(line)):
        orders.add(b"order")
    print("done", flush=True)
"""


def test_which_bounded_holder_grew_is_recorded_reported_and_drawn(
    path: Path, tag: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(agent_figures, "POOLS_S", 0.0)

    def told() -> dict[str, list[tuple[float, float]]]:
        with Reader(path) as reader:
            return next((reader.agent_figures(line.id) for line in reader.processes()), {})

    def entries() -> float:
        return told().get("ledger:orders of the day", [(0.0, 0.0)])[-1][1]

    with program(HOLDERS, tag) as child, Recording(path) as recording:
        assert child.stdin is not None
        assert child.stdout is not None
        child.stdout.readline()
        with Recorder(recording, select(tag), interval_s=0.05, shares_s=0.05) as recorder:
            tick_until(recorder, lambda _: bool(told().get("ledger:short 7")))
            for number in range(1, 4):
                child.stdin.write("200\n")
                child.stdin.flush()
                child.stdout.readline()
                tick_until(recorder, lambda _, least=200 * number: entries() >= least)  # type: ignore[misc]
    figures = told()
    assert len([name for name in figures if name.startswith("ledger:")]) <= agent_figures.MAX_HOLDERS + 1
    assert [value for _, value in figures["ledger_bound:orders of the day"]] == [1000]
    assert figures["arenas"][-1][1] > 100_000
    with Reader(path) as reader:
        text = summary.text(summary.summarize(reader))
        drawn = plot.build(reader, figure="ledger")
        arenas = plot.build(reader, figure="arenas")
    assert "held by orders of the day 0 → 600 of 1,000" in text, text
    assert "short 7" not in text
    assert drawn.series[0].label == "orders of the day"
    assert drawn.title.startswith("Entries of bounded holders of ")
    assert len(arenas.series) == 1
    assert arenas.bytes


def test_a_pid_used_again_is_another_process() -> None:
    scanner = Scanner()
    own = scanner.look(0.0)[os.getpid()]
    assert scanner.again(own, 1.0) is not None
    assert scanner.again(replace(own, start=own.start - 1), 1.0) is None


def test_figures_of_both_sorts_of_control_groups(tmp_path: Path) -> None:
    second = tmp_path / "second/sys/fs/cgroup/app"
    second.mkdir(parents=True)
    for name, text in {
        "memory.current": "1000",
        "memory.max": "max",
        "memory.stat": "anon 5\ninactive_file 300\n",
        "memory.events": "low 0\nhigh 7\nmax 3\noom 2\noom_kill 1\n",
    }.items():
        (second / name).write_text(text)
    found = figures("/app", tmp_path / "second")
    assert (found.used, found.limit, found.held, found.oom_kills, found.highs) == (1000, None, 700, 1, 7)
    first = tmp_path / "first/sys/fs/cgroup/memory"
    (first / "app").mkdir(parents=True)
    (first / "memory.limit_in_bytes").write_text(str(2**63 - 4096))
    for name, text in {
        "memory.usage_in_bytes": "1000",
        "memory.limit_in_bytes": "5000",
        "memory.stat": "inactive_file 1\ntotal_inactive_file 400\n",
        "memory.oom_control": "oom_kill_disable 0\nunder_oom 0\noom_kill 4\n",
        "memory.failcnt": "9",
    }.items():
        (first / "app" / name).write_text(text)
    found = figures("/app", tmp_path / "first")
    assert (found.used, found.limit, found.held, found.oom_kills, found.highs) == (1000, 5000, 600, 4, 9)


def memory_group() -> Path | None:
    """A control group of 24 MB that this process may make; None where it may not."""
    base = Path("/sys/fs/cgroup")
    group = (base / "memory" if (base / "memory").is_dir() else base) / f"flatwater-test-{os.getpid()}"
    try:
        group.mkdir()
        limit = group / ("memory.limit_in_bytes" if (base / "memory").is_dir() else "memory.max")
        limit.write_text(str(24 * MIB))
    except OSError:
        return None
    return group


def test_a_kill_for_memory_is_recognised(path: Path) -> None:
    group = memory_group()
    if group is None:
        pytest.skip("no right to make a control group")
    alerts = Alerts([parse("oom_kill")])
    told = []
    text = "import sys, time; sys.stdin.readline(); held = []\nwhile True: held.append(bytes(range(256)) * 4096)"
    try:
        with program(text, "") as child, Recording(path) as recording:
            (group / "cgroup.procs").write_text(str(child.pid))
            with Recorder(recording, select(str(child.pid)), interval_s=0.05) as recorder:
                alerts.observe(recorder.tick())
                assert child.stdin is not None
                print("go", file=child.stdin, flush=True)
                child.wait(60)
                tick_until(recorder, lambda seen: bool(told.extend(alerts.observe(seen)) or recorder.finished))
    finally:
        group.rmdir()
    (line,) = lines(path)
    assert line.oom
    assert line.group is not None
    assert line.group.endswith(group.name)
    assert "killed for memory" in events(path, "end")[0]
    assert events(path, "oom_kill") == [f"1 in {line.group}"]
    assert [event.source for event in told] == [f"group {line.group}"]
    with Reader(path) as reader:
        assert reader.limit(line.group) == 24 * MIB


@contextmanager
def recording_command(*words: str) -> Iterator[subprocess.Popen[str]]:
    with subprocess.Popen([*FLATWATER, "record", *words], stderr=subprocess.PIPE, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


def rows(path: Path) -> int:
    if not path.exists():
        return 0
    try:
        with closing(sqlite3.connect(path, timeout=5)) as db:
            return int(db.execute("SELECT COUNT(*) FROM sample").fetchone()[0])
    except sqlite3.Error:
        return 0


def wait_rows(path: Path, least: int) -> float:
    begin = time.monotonic()
    while rows(path) < least:
        assert time.monotonic() - begin < 60
        time.sleep(0.01)
    return time.monotonic() - begin


def test_kill_of_the_recorder_loses_no_more_than_the_last_interval(path: Path, tag: str) -> None:
    with program(WAIT, tag) as child:
        with recording_command("-o", str(path), "-i", "50ms", "-q", tag) as recorder:
            first = wait_rows(path, 1)
            assert first < 10 * 0.5  # half a second is the target; usual is 0.25
            wait_rows(path, 20)
            recorder.kill()
            killed = time.time()
        with Reader(path) as reader:
            (line,) = reader.processes()
            assert line.pid == child.pid
            assert reader.wall(line.last) == pytest.approx(killed, abs=1.0)
        before = rows(path)
        with recording_command("-o", str(path), "-i", "50ms", "-q", tag) as recorder:
            wait_rows(path, before + 5)
            recorder.send_signal(signal.SIGINT)
            assert recorder.wait(90) == 0
    (line,) = lines(path)  # the same process, gone on with
    assert events(path, "gap")
    assert [file.name for file in path.parent.iterdir()] == [path.name]


def test_of_two_recorders_at_once_one_is_refused(path: Path, tag: str) -> None:
    command = [*FLATWATER, "record", "-o", str(path), "-i", "50ms", tag]
    with program(WAIT, tag):
        both = [subprocess.Popen(command, stderr=subprocess.PIPE, text=True) for _ in range(2)]
        try:
            deadline = time.monotonic() + 90
            while not (left := [one for one in both if one.poll() is not None]) and time.monotonic() < deadline:
                time.sleep(0.01)
            assert len(left) == 1
            assert left[0].returncode == 1
            (other,) = (one for one in both if one not in left)
            wait_rows(path, 2)
            other.send_signal(signal.SIGTERM)
            assert other.wait(90) == 0
        finally:
            complaints = []
            for one in both:
                one.kill()
                complaints.append(one.communicate()[1])
    assert sum(f"the recorder {other.pid} writes it" in complaint for complaint in complaints) == 1
