"""What the guard reads of processes: trees that change meanwhile, zombies, other users', numbers used again."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from tests.guard.guarding import MIB, guarding, python

from flatwater.guard.flight import FlightFile, dead, read, started
from flatwater.guard.instance import session, tree, tree_level
from flatwater.guard.record import Record
from flatwater.memory import procfs

# Children come and go all the time, each with a child of its own.
BUSY = """
import os, time
print(flush=True)
while True:
    one = os.fork()
    if one == 0:
        if os.fork() == 0: os._exit(0)
        os._exit(0)
    os.waitpid(one, 0)
"""


@contextmanager
def program(lines: str, *, before: tuple[str, ...] = ()) -> Iterator[subprocess.Popen[str]]:
    """A program that has printed its first line."""
    process = subprocess.Popen([*before, sys.executable, "-c", lines], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        process.stdout.readline()
        yield process
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def test_a_tree_that_changes_while_it_is_read() -> None:
    with program(BUSY) as busy:
        seen = set()
        for _ in range(40):
            found = tree(busy.pid)
            seen.add(len(found))
            assert found[0] == busy.pid
            assert tree_level(busy.pid) > 0
            assert busy.pid in session(os.getsid(0))
    assert max(seen) > 1, "some children were met"
    assert tree(busy.pid) == [busy.pid]
    assert tree_level(busy.pid) == 0


def test_zombies_hold_nothing_and_their_tasks_are_dead(tmp_path: Path) -> None:
    lines = (
        "import os, sys, time; from pathlib import Path; from flatwater.guard.flight import FlightFile\n"
        f"if os.fork() == 0: FlightFile(Path({str(tmp_path)!r}), 'test').put('task', 'id'); os._exit(0)\n"
        f"while not list(Path({str(tmp_path)!r}).iterdir()): time.sleep(0.01)\n"
        "print(flush=True); time.sleep(99)"
    )
    with program(lines) as parent:
        child = next(pid for pid in tree(parent.pid) if pid != parent.pid)
        deadline = time.monotonic() + 90
        while started(child):
            assert time.monotonic() < deadline
        assert tree_level(child) == 0
        assert child in tree(parent.pid), "nobody has waited for it"
        assert child not in session(os.getsid(0))
        ((pid, path),) = dead(tmp_path)
        assert pid == child
        assert [flight.name for flight in read(path)] == ["task"]


def test_a_number_that_came_again_is_another_process(tmp_path: Path) -> None:
    own = FlightFile(tmp_path, "test")
    own.put("lives", "1")
    former = tmp_path / f"flight-{os.getpid()}-{int(started(os.getpid())) - 1}"
    former.write_bytes(own.path.read_bytes())
    assert dead(tmp_path) == [(os.getpid(), former)]
    own.close()


def test_the_tasks_of_a_former_process_with_the_number_of_a_living_one(tmp_path: Path) -> None:
    """The guard names them, and leaves the living process's file alone."""
    lines = (
        "import os, time; from pathlib import Path; from flatwater.guard.flight import FlightFile\n"
        "folder = Path(os.environ['FLATWATER_GUARD']).parent\n"
        "file = FlightFile(folder, 'test'); file.put('mine', '1')\n"
        "former = folder / f'flight-{os.getpid()}-17'\n"
        "draft = folder / 'draft'; draft.write_bytes(file.path.read_bytes().replace(b'mine', b'past'))\n"
        "draft.rename(former)\n"
        "while former.exists(): time.sleep(0.02)\n"
        "time.sleep(99)"
    )
    with guarding(tmp_path, *python(lines)) as guard:
        guard.wait(lambda: guard.events("interrupted"))
        assert [event.body["name"] for event in guard.events("interrupted")] == ["past"]
    assert [event.body["name"] for event in guard.events("interrupted")] == ["past", "mine"], "stopped in its task"


def test_a_last_report_that_is_read_after_its_process_has_ended_is_the_same_rows(tmp_path: Path) -> None:
    """Both reports are written while the guard stands still, and read when the process is gone."""
    lines = (
        "import os, signal, time; from flatwater.guard.policy import Limits\n"
        "from flatwater.guard.worker import Worker\n"
        "worker = Worker('test', limits=Limits(), on_recycle=print)\n"
        "worker.begin('task', '1'); worker.end(); worker._report(); time.sleep(1)\n"
        "os.kill(os.getppid(), signal.SIGSTOP)\n"
        "worker.begin('task', '2'); worker.end(); worker.close()"
    )
    with guarding(tmp_path, *python(lines)) as guard:
        guard.wait(lambda: guard.events("start"))
        worker = guard.events("start")[0].pid
        guard.wait(lambda: not started(worker))
        guard.process.send_signal(signal.SIGCONT)
        guard.wait(lambda: guard.events("end"))
        with Record(guard.file) as record:
            rows = [row for row in record.tasks() if row["pid"] == worker]
    assert [(row["name"], row["count"]) for row in rows] == [("task", 2)]


needs_root = pytest.mark.skipif(os.getuid() != 0, reason="only root can start a process of another user")
NOBODY = 65534
# Root without these is refused another user's memory maps, and may not send it signals.
LESS = "-kill,-sys_ptrace,-sys_admin,-perfmon"
UNPRIVILEGED = ("setpriv", f"--bounding-set={LESS}", f"--inh-caps={LESS}")
OTHER_USER = ("setpriv", f"--reuid={NOBODY}", "--clear-groups")


@needs_root
def test_the_level_of_another_users_process_is_its_rss() -> None:
    lines = (
        "import time; from flatwater.guard.instance import tree_level; from flatwater.memory import procfs\n"
        "while procfs.memory({0}).pss is not None: time.sleep(0.01)\n"
        "print(tree_level({0}) == procfs.memory({0}).rss > 0)"
    )
    other = subprocess.Popen([*OTHER_USER, "sleep", "99"])
    try:
        done = subprocess.run(
            [*UNPRIVILEGED, sys.executable, "-c", lines.format(other.pid)], capture_output=True, text=True, timeout=60,
            check=False,
        )  # fmt: skip
    finally:
        other.kill()
        other.wait()
    assert done.stdout.strip() == "True", done.stderr


@needs_root
def test_a_worker_of_another_user_is_watched_and_the_guard_leaves_without_it(tmp_path: Path) -> None:
    """As under ``sudo``: it can be neither asked nor killed, which is told, and no reason to fail."""
    sleep = shutil.which("sleep") or ""
    with guarding(tmp_path, "-n", "1", "--", *OTHER_USER, sleep, "98", prefix=UNPRIVILEGED) as guard:
        guard.wait(lambda: guard.events("start"))
        worker = guard.events("start")[0].pid
        guard.wait(lambda: Path(f"/proc/{worker}").stat().st_uid == NOBODY)
        guard.process.send_signal(signal.SIGHUP)
        guard.wait(lambda: "it cannot be sent SIGTERM" in guard.log.read_text())
        assert guard.process.poll() is None
        try:
            guard.process.send_signal(signal.SIGTERM)
            assert guard.process.wait(90) == 1
            assert "runs on" in guard.log.read_text()
            assert started(worker)
        finally:
            os.kill(worker, signal.SIGKILL)


def test_a_record_that_cannot_be_written_ends_no_worker(tmp_path: Path) -> None:
    """Files may grow to 256 KiB here, as on a disk that is full."""
    limited = ("sh", "-c", 'ulimit -f 512; exec "$@"', "sh")
    with Record(tmp_path / "guard.db"):
        pass
    lines = (
        "import os, time; from flatwater.guard.channel import supervised\n"
        "channel = supervised()\n"
        "while True: channel.send('retained', name='x' * 5000); time.sleep(0.005)"
    )
    with guarding(tmp_path, *python(lines), prefix=limited) as guard:
        guard.wait(lambda: "is not written" in guard.log.read_text())
        (start,) = guard.events("start")
        time.sleep(0.5)
        assert started(start.pid)
        assert guard.process.poll() is None


def test_the_level_of_a_tree_counts_shared_pages_once() -> None:
    lines = (
        f"import os, time; kept = b'x' * {40 * MIB}\n"
        "if os.fork() == 0: time.sleep(99)\n"
        "print(flush=True); time.sleep(99)"
    )
    with program(lines) as parent:
        child = next(pid for pid in tree(parent.pid) if pid != parent.pid)
        apart = procfs.memory(parent.pid).rss + procfs.memory(child).rss
        assert 40 * MIB < tree_level(parent.pid) < apart - 30 * MIB
        os.kill(child, signal.SIGKILL)
