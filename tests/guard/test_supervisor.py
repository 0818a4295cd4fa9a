"""flatwater guard as people run it: what it names, kills, replaces and tells."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
import urllib.request
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from tests.guard.consumer import Consumer, consuming

from flatwater.guard.record import Event, Record
from flatwater.guard.report import summary, text

GUARD = [sys.executable, "-m", "flatwater.cli", "guard"]
MIB = 1 << 20


class Guarded:
    """A guard in a process of its own, and its record."""

    def __init__(self, folder: Path, *words: str, prefix: tuple[str, ...] = ()) -> None:
        self.file = folder / "guard.db"
        self.log = folder / "guard.log"
        with self.log.open("wb") as output:
            command = [*prefix, *GUARD, "--record", str(self.file), *words]
            self.process = subprocess.Popen(command, stdout=output, stderr=output, cwd=folder)

    def events(self, kind: str) -> list[Event]:
        if not self.file.exists():
            return []
        with Record(self.file) as record:
            return [event for event in record.events() if event.kind == kind and (kind != "end" or event.body)]

    def wait(self, what: Callable[[], object], timeout_s: float = 40) -> None:
        deadline = time.monotonic() + timeout_s
        while not what():
            assert time.monotonic() < deadline, self.log.read_text()[-3000:]
            time.sleep(0.05)

    def stop(self) -> int:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        try:
            return self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise


@contextmanager
def guarding(folder: Path, *words: str, prefix: tuple[str, ...] = ()) -> Iterator[Guarded]:
    guarded = Guarded(folder, *words, prefix=prefix)
    try:
        yield guarded
    finally:
        guarded.stop()


def python(lines: str) -> list[str]:
    return ["--", sys.executable, "-c", lines]


GROW = "import time; kept = []\nwhile True: kept.append(b'x' * (4 << 20)); time.sleep(0.05)"


def test_a_worker_that_grows_is_asked_to_stop_and_replaced(tmp_path: Path) -> None:
    with guarding(tmp_path, "--soft", "80MiB", *python(GROW)) as guard:
        guard.wait(lambda: len(guard.events("start")) >= 3)
    ends = [event.body for event in guard.events("end")]
    assert {end["reason"] for end in ends} <= {"recycled", "stopped"}
    assert ends[0]["highest"] >= 80 * MIB
    assert guard.events("limit")[0].body["reason"] == "soft limit"
    with Record(guard.file) as record:
        assert summary(record).given_back > 40 * MIB


def test_with_overlap_the_replacement_is_there_first(tmp_path: Path) -> None:
    with guarding(tmp_path, "--soft", "80MiB", "--overlap", *python(GROW)) as guard:
        guard.wait(lambda: guard.events("end"))
    with Record(guard.file) as record:
        order = [event.kind for event in record.events() if event.kind in ("start", "end")]
    assert order[:3] == ["start", "start", "end"]


def test_who_does_not_heed_is_killed_after_the_grace(tmp_path: Path) -> None:
    grow = GROW.replace("while True", "for _ in range(30)")
    deaf = f"import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN)\n{grow}\ntime.sleep(99)"
    with guarding(tmp_path, "--soft", "60MiB", "--grace", "1s", *python(deaf)) as guard:
        guard.wait(lambda: guard.events("end"))
        guard.process.send_signal(signal.SIGTERM)
        time.sleep(0.3)
        guard.process.send_signal(signal.SIGTERM)  # the second one kills
        assert guard.process.wait(20) == 1
    assert guard.events("kill")[0].body["reason"] == "grace passed"


@pytest.mark.parametrize(
    ("lines", "reason", "detail"),
    [
        ("pass", "exit", "exit status 0"),
        ("raise SystemExit(3)", "crash", "exit status 3"),
        ("import os; os.kill(os.getpid(), 11)", "crash", "died of SIGSEGV"),
        ("import os; os.kill(os.getpid(), 9)", "lost", "SIGKILL from elsewhere"),
    ],
)
def test_how_a_worker_ended_and_the_back_off(lines: str, reason: str, detail: str, tmp_path: Path) -> None:
    with guarding(tmp_path, *python(lines)) as guard:
        guard.wait(lambda: len(guard.events("end")) >= 2)
    ends = [event.body for event in guard.events("end")]
    assert (ends[0]["reason"], ends[0]["detail"]) == (reason, detail)
    assert [end["wait_s"] for end in ends[:2]] == [1, 2]


def test_an_out_of_memory_kill_is_told_from_a_crash(tmp_path: Path) -> None:
    own = next(line.split(":")[2] for line in Path("/proc/self/cgroup").read_text().splitlines() if ":memory:" in line)
    group = Path(f"/sys/fs/cgroup/memory{own}") / f"flatwater-{uuid.uuid4().hex[:8]}"
    try:
        group.mkdir()
        (group / "memory.limit_in_bytes").write_text(str(100 * MIB))
    except OSError as error:
        pytest.skip(f"no control group can be made here: {error}")
    try:
        enter = ("sh", "-c", f'echo $$ > {group}/cgroup.procs; exec "$@"', "sh")
        eat = "kept = [b'x' * (1 << 20) for _ in range(400)]"
        with guarding(tmp_path, "--hard", "900MiB", *python(eat), prefix=enter) as guard:
            guard.wait(lambda: guard.events("end"))
        assert guard.events("end")[0].body["reason"] == "oom", guard.log.read_text()
    finally:
        deadline = time.monotonic() + 5
        while group.exists() and time.monotonic() < deadline:
            try:
                group.rmdir()
            except OSError:
                time.sleep(0.05)


def test_tasks_are_named_killed_quarantined_and_released(redis_url: str, tmp_path: Path) -> None:
    file = str(tmp_path / "guard.db")
    guard = (*GUARD, "--record", file, "--hard", "130MiB", "--quarantine", "1", "--")
    consumer = Consumer(tmp_path, redis_url, "thread", 1, *guard)
    call = (
        "try: print(tasks.eat({}).get(blocking=True, timeout=40))\n"
        "except Exception as error: print(error.metadata['error'])"
    )
    with consuming(consumer):
        killed = consumer.call(call.format(150))
        assert "killed for memory" in killed
        assert "huey_inferior.eat" in killed or "eat [" in killed
        consumer.wait(lambda: "is quarantined" in consumer.log.read_text())
        with Record(Path(file)) as record:
            (name,) = record.quarantined()
            assert "Quarantined" in text(record)
        consumer.wait(lambda: "quarantined" in consumer.call(call.format(0) if name else ""))
        subprocess.run([*GUARD, "release", name, "--record", file], check=True, stdout=subprocess.DEVNULL)
        with Record(Path(file)) as record:
            assert record.quarantined() == []
    with Record(Path(file)) as record:
        found = summary(record)
    assert [row["name"] for row in found.killed] == [name]
    assert found.killed[0]["reason"] == "hard limit"


def test_the_report_names_the_task_that_grows_and_nothing_is_lost(redis_url: str, tmp_path: Path) -> None:
    file = tmp_path / "guard.db"
    consumer = Consumer(tmp_path, redis_url, "thread", 2, *GUARD, "--record", str(file), "--", soft=90)
    program = (
        "for number in range(200):\n"
        "    tasks.grow(number, 512, 0.02) if number * 7919 % 1000 < 600 else tasks.nothing(number)"
    )
    consumer.call(program)
    with consuming(consumer):
        consumer.wait(lambda: len(consumer.rows()) >= 200)
    assert sorted(int(row[0]) for row in consumer.rows()) == list(range(200))
    with Record(file) as record:
        found, shown = summary(record), text(record)
    tasks = {task.name.rpartition(".")[2]: task for task in found.tasks}
    assert found.recycled >= 1
    assert sum(task.count for task in tasks.values()) == 200
    grow = tasks["grow"]
    assert grow.per_call is not None, shown
    assert 256 << 10 < grow.per_call < 1024 << 10, shown
    assert found.tasks[0] == grow
    assert "grow" in shown


def test_metrics_show_living_workers(tmp_path: Path) -> None:
    with guarding(tmp_path, "--metrics-port", "0", "-n", "2", *python("import time; time.sleep(99)")) as guard:
        guard.wait(lambda: len(guard.events("start")) == 2)
        address = guard.log.read_text().split("metrics: ")[1].split()[0]
        guard.wait(lambda: _read(address).count("flatwater_guard_worker_bytes{") == 2)
        assert "flatwater_guard_starts_total 2.0" in _read(address)
        os.kill(guard.events("start")[0].pid, signal.SIGKILL)
        guard.wait(lambda: 'flatwater_guard_ends_total{reason="lost"} 1.0' in _read(address))


def _read(address: str) -> str:
    with urllib.request.urlopen(address, timeout=5) as answer:
        return str(answer.read().decode())
