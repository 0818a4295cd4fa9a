"""The guard in a worker's process: its own failures and those of result backends, limits that are sure, evidence."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import msgspec
import pytest
from tests.guard.guarding import guarding, python

from flatwater.guard.channel import VARIABLE, Killed, receiver
from flatwater.guard.flight import FlightFile, flights, read
from flatwater.guard.note import Notes
from flatwater.guard.policy import Limits
from flatwater.guard.presence import Place, Presence, left, tell
from flatwater.guard.rest import Rest
from flatwater.guard.worker import Worker

KILLED = Killed(kind="test", name="eat", id="7", reason="hard limit")
HEAD = (
    "import os, sys, time; from flatwater.guard.policy import Limits; from flatwater.guard.worker import Worker\n"
    "M = 1 << 20\n"
    "def make(on_killed=lambda note: print(note.reason, note.name, flush=True), on_tick=None, **limits):\n"
    "    scale = {key: value * M if key in ('soft', 'hard') else value for key, value in limits.items()}\n"
    "    return Worker('test', limits=Limits(**scale), on_recycle=lambda reason: None, on_killed=on_killed,\n"
    "                  on_tick=on_tick, collect=False)\n"
)


def run(lines: str, **variables: str) -> subprocess.CompletedProcess[str]:
    environment = {key: value for key, value in os.environ.items() if not key.startswith("FLATWATER")} | variables
    command = [sys.executable, "-c", HEAD + lines]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=100, check=False)


def until(what: Callable[[], object]) -> None:
    deadline = time.monotonic() + 90
    while not what():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_a_forked_child_is_not_killed_for_what_is_its_parents() -> None:
    done = run(
        "kept = b'x' * (150 * M); worker = make(soft=60, hard=100, grace_s=0.3, patience_s=0.3)\n"
        "if os.fork() == 0:\n"
        "    worker.begin('task', '1'); time.sleep(1); worker.end(); os._exit(0)\n"
        "print(os.waitstatus_to_exitcode(os.wait()[1]))"
    )
    assert done.stdout == "0\n", done.stderr


def test_a_forked_child_is_killed_for_what_is_its_own() -> None:
    done = run(
        "kept = b'x' * (50 * M); worker = make(soft=60, hard=100, patience_s=0.3)\n"
        "if os.fork() == 0:\n"
        "    worker.begin('task', '1'); own = b'x' * (120 * M); time.sleep(30)\n"
        "print(os.waitstatus_to_exitcode(os.wait()[1]))"
    )
    assert done.stdout == "hard limit task\n-9\n", done.stderr


def test_a_spike_that_the_watching_thread_has_seen_recycles_no_child() -> None:
    done = run(
        "kept = b'x' * (100 * M); worker = make(soft=100, hard=4000); worker.start()\n"
        "if os.fork() == 0:\n"
        "    for _ in range(3):\n"
        "        worker.begin('task', '1'); spike = b'x' * (120 * M); until = time.monotonic() + 90\n"
        "        while worker._private.last < 110 * M and time.monotonic() < until: time.sleep(0.05)\n"
        "        time.sleep(0.1); del spike; worker.end()\n"
        "    assert worker._private.last > 100 * M, 'it was seen'\n"
        "    os._exit(worker.leaving)\n"
        "print(os.waitstatus_to_exitcode(os.wait()[1]))"
    )
    assert done.stdout == "0\n", done.stderr


def test_who_was_never_asked_to_leave_is_not_killed_after_the_grace() -> None:
    """As Celery's first process, which runs no tasks."""
    done = run("make(soft=1, hard=4000, grace_s=0.2).start(); time.sleep(1); print('lives')")
    assert done.stdout == "lives\n", done.stderr


def test_who_was_asked_and_stays_is_killed_after_the_grace_and_that_is_the_reason() -> None:
    done = run(
        "worker = make(soft=60, hard=4000, grace_s=0.3); worker.start()\n"
        "worker.begin('first', '1'); kept = b'x' * (60 * M); worker.end()\n"
        "worker.begin('second', '2'); time.sleep(30)"
    )
    assert (done.returncode, done.stdout) == (-signal.SIGKILL, "grace passed second\n"), done.stderr


@pytest.mark.parametrize("fails", ["1 / 0", "time.sleep(60)"])
def test_the_limit_is_sure_when_the_result_cannot_be_written(fails: str) -> None:
    began = time.monotonic()
    done = run(
        "from flatwater.guard import death; death._STEP_S, death._ALL_S = 0.4, 1.0\n"
        f"def on_killed(note): {fails}\n"
        "worker = make(on_killed, hard=100, patience_s=0.2)\n"
        "for id in range(10): worker._running[-id] = worker._open('task', str(id))\n"
        "kept = b'x' * (120 * M); time.sleep(50)"
    )
    assert done.returncode == -signal.SIGKILL
    assert time.monotonic() - began < 30
    told = "ZeroDivisionError" if fails == "1 / 0" else "there is no time for the other last words"
    assert told in done.stderr


def test_the_limit_is_sure_when_a_look_fails_or_a_former_result_hangs(tmp_path: Path) -> None:
    (tmp_path / "killed-1.json").write_bytes(msgspec.json.encode(KILLED))
    done = run(
        "def on_tick(): raise KeyError\n"
        "def on_killed(note): print('writes', flush=True); time.sleep(60)\n"
        "worker = make(on_killed, on_tick, hard=100, patience_s=0.2)\n"
        "worker.begin('task', '1'); time.sleep(1.5); kept = b'x' * (120 * M); time.sleep(50)",
        **{VARIABLE: str(tmp_path / "socket")},
    )
    assert done.returncode == -signal.SIGKILL
    assert done.stdout.startswith("writes")
    assert done.stderr.count("KeyError") == 1, "not at each look"


def test_what_a_dying_worker_cannot_write_the_next_one_writes(tmp_path: Path) -> None:
    lines = (
        f"{HEAD}from pathlib import Path\n"
        "def on_killed(note):\n"
        "    tries = Path('tries'); tries.write_text(tries.read_text() + '.' if tries.exists() else '.')\n"
        "    if len(tries.read_text()) < 2: raise OSError('the backend is away')\n"
        "    Path('written').write_text(str(note))\n"
        "again = Path('tries').exists(); worker = make(on_killed, hard=100, patience_s=0.2)\n"
        "worker.begin('late' if again else 'eat', '7')\n"
        "kept = b'' if again else b'x' * (120 * M); time.sleep(99)"
    )
    with guarding(tmp_path, *python(lines)) as guard:
        guard.wait((tmp_path / "written").exists)
        assert "eat [7] was killed: hard limit" in (tmp_path / "written").read_text()
        assert guard.events("end")[0].body["detail"] == "killed by itself: hard limit"
        assert len(guard.events("end")) == 1, "the second worker goes on"


def test_a_note_is_kept_until_it_is_written_and_tried_again(tmp_path: Path) -> None:
    (tmp_path / "killed-1.json").write_bytes(msgspec.json.encode(KILLED))
    (tmp_path / "killed-2.json").write_bytes(msgspec.json.encode(msgspec.structs.replace(KILLED, kind="other")))
    dead = subprocess.Popen(["true"])
    dead.wait()
    (tmp_path / f"writing-3-0-{dead.pid}").write_bytes(msgspec.json.encode(msgspec.structs.replace(KILLED, id="8")))
    written: list[str] = []
    tries: list[str] = []

    def write(note: Killed) -> None:
        tries.append(note.id)
        if tries.count(note.id) < 3:
            raise RuntimeError("no backend")
        written.append(note.id)

    notes = Notes(tmp_path, "test", write, first_s=0.01)

    def all_written() -> bool:
        notes.look()
        return len(written) == 2

    until(all_written)
    notes.end(10)
    assert sorted(tries) == ["7"] * 3 + ["8"] * 3
    assert [path.name for path in tmp_path.iterdir()] == ["killed-2.json"]


def test_a_note_that_can_never_be_written_is_given_up(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "killed-1.json").write_bytes(msgspec.json.encode(KILLED))
    notes = Notes(tmp_path, "test", lambda note: 1 / 0, first_s=1e-4)
    while list(tmp_path.iterdir()):
        notes.look()
        notes.end(10)
    assert "given up after 10 tries" in caplog.text
    assert caplog.text.count("was killed") == 1


def test_another_tasks_result_does_not_fail_the_next_task(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "killed-1.json").write_bytes(msgspec.json.encode(KILLED))
    monkeypatch.setenv(VARIABLE, str(tmp_path / "socket"))
    worker = Worker("test", limits=Limits(), on_recycle=print, on_killed=lambda note: 1 / 0)
    worker.begin("task", "1")
    worker.end()
    worker.close()
    assert [row.name for row in worker.rows()] == ["task"]


def test_a_worker_whose_guard_has_gone_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, str(tmp_path / "cleared" / "socket"))
    worker = Worker("test", limits=Limits(), on_recycle=print)
    worker.begin("task", "1")
    worker.end()
    assert not worker.ask_supervisor("soft limit"), "who asks leaves by itself then"
    worker.close()


def test_a_full_disk_costs_the_flights_not_the_worker(tmp_path: Path) -> None:
    """A mapped page for which there is no room is SIGBUS at the first touch."""
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(tmp_path)], capture_output=True, text=True, check=False
    )
    if mounted.returncode:
        pytest.skip(f"no small file system can be mounted here: {mounted.stderr.strip()}")
    try:
        with (tmp_path / "full").open("wb", buffering=0) as full, suppress(OSError):
            while True:
                full.write(b"x" * 4096)
        done = run(
            "worker = make(); worker.begin('task', '1'); worker.end(); print('done')",
            **{VARIABLE: str(tmp_path / "socket")},
        )
        assert (done.returncode, done.stdout) == (0, "done\n"), done.stderr
        assert done.stderr.count("No space left") == 1
        assert [path.name for path in tmp_path.iterdir()] == ["full"]
    finally:
        subprocess.run(["umount", str(tmp_path)], check=True)


def test_a_task_that_has_no_proper_name_flies_unnamed(tmp_path: Path) -> None:
    file = flights(tmp_path, "test")
    assert file is not None
    assert file.put("broken \ud800", "1") == file.put("name", 5) == -1  # type: ignore[arg-type]
    assert file.slots.skipped == 2
    assert [file.put("name", str(id)) for id in range(64)].count(-1) == 0, "no slot was lost"
    file.close()


def test_a_task_that_never_ended_makes_room_for_the_next_one_of_its_thread(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(VARIABLE, str(tmp_path / "socket"))
    worker = Worker("test", limits=Limits(), on_recycle=print)
    for number in range(100):
        worker.begin("cancelled", str(number))
    worker.begin("last", "100")
    (path,) = tmp_path.glob("flight-*")
    assert [flight.name for flight in read(path)] == ["last"]
    worker.end()
    assert worker.statistics().size == 0
    worker.close()
    assert [(row.name, row.alone) for row in worker.rows()] == [("last", 1)]


def test_a_child_does_not_clear_its_parents_flights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, str(tmp_path / "socket"))
    worker = Worker("test", limits=Limits(), on_recycle=print)
    worker.begin("parents", "1")
    (path,) = tmp_path.glob("flight-*")
    child = os.fork()
    if child == 0:
        worker.begin("childs", "2")
        os._exit(0)
    os.waitpid(child, 0)
    assert [flight.name for flight in read(path)] == ["parents"]
    worker.end()
    worker.close()


def test_what_fails_in_the_guard_is_logged_once_and_fails_no_task(caplog: pytest.LogCaptureFixture) -> None:
    def refuse(reason: str) -> None:
        raise PermissionError(reason)

    worker = Worker("test", limits=Limits(soft=1, min_gain=0.0), on_recycle=refuse)
    for number in range(3):
        worker.begin("task", str(number))
        worker.leaving = False
        worker.end()
    worker.close()
    assert worker.statistics().ended == 3
    assert caplog.text.count("Traceback") == 1


def test_a_report_says_who_holds_what_is_left_after_the_task(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, str(tmp_path / "socket"))
    heard = receiver(tmp_path / "socket")
    worker = Worker("test", limits=Limits(), on_recycle=print)
    worker.start()
    base = worker.statistics().base
    worker.begin("hog", "1")
    kept = b"x" * base
    worker.end()
    worker.close()
    (told,) = [one for data in iter(lambda: _next(heard), b"") if (one := msgspec.json.decode(data))["t"] == "table"]
    heard.close()
    assert len(kept) == base
    assert told["base"] == base
    assert told["level"] > 1.5 * base
    assert "malloc, in use" in told["holders"]


def _next(heard: object) -> bytes:
    try:
        return heard.recv(1 << 16)  # type: ignore[attr-defined, no-any-return]
    except BlockingIOError:
        return b""


def test_who_holds_the_rest_is_measured_when_it_has_changed_and_seldom() -> None:
    now, splits = [0.0], iter("abcd")
    rest = Rest(every_s=60, split=lambda: next(splits), clock=lambda: now[0])
    assert rest.look(109, 100) == ""
    assert rest.look(120, 100) == "a"
    assert rest.look(130, 100) == "a"
    assert not rest.pending, "within a tenth of what was told"
    assert rest.look(200, 100) == "a"
    assert rest.pending
    now[0] = 60
    assert rest.look(200, 100) == "b"
    assert not rest.pending
    assert rest.look(105, 100) == "", "it is back"
    now[0] = 100
    assert rest.look(200, 100, resting=False) == ""
    now[0] = 159
    assert rest.look(200, 100, resting=False) == ""
    now[0] = 160
    assert rest.look(200, 100, resting=False) == "c", "never at rest"


def test_the_room_that_is_left_below_the_limits(tmp_path: Path) -> None:
    assert left(None, 10, None) is None
    assert left(100, 30, None) == 70
    assert left(100, 130, tmp_path) == 0
    place = Place(place=0, pid=os.getsid(0), since=0, level=150, highest=0, base=0, leaving="")
    others = msgspec.structs.replace(place, pid=1, level=199)
    presence = Presence(pid=1, start="", command=(), record="", since=0, soft=None, hard=200, places=(others, place))
    tell(tmp_path, presence)
    assert left(100, 30, tmp_path) == left(None, 30, tmp_path) == 50


def test_the_flights_of_a_folder_that_is_gone(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        assert flights(tmp_path / "gone", "test") is None
    assert "No such file" in caplog.text
    with pytest.raises(FileNotFoundError):
        FlightFile(tmp_path / "gone", "test")
