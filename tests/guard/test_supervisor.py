"""flatwater guard as people run it: what it names, kills, replaces and tells."""

from __future__ import annotations

import os
import signal
import subprocess
import time
import urllib.request
from pathlib import Path

import pytest
from tests.guard.consumer import Consumer, consuming
from tests.guard.guarding import GROW, GUARD, MIB, guarding, python

from flatwater.guard.record import Record
from flatwater.guard.report import summary, text


def test_a_worker_that_grows_is_asked_to_stop_and_replaced(tmp_path: Path) -> None:
    with guarding(tmp_path, "--soft", "80MiB", *python(GROW)) as guard:
        guard.wait(lambda: len(guard.events("start")) >= 3)
    ends = [event.body for event in guard.events("end")]
    assert {end["reason"] for end in ends} <= {"recycled", "stopped"}
    assert ends[0]["highest"] >= 80 * MIB
    assert guard.events("limit")[0].body["reason"] == "soft limit"
    with Record(guard.file) as record:
        assert summary(record).given_back > 40 * MIB


def test_a_worker_born_above_its_limit_is_recycled_once_and_then_left_alone(tmp_path: Path) -> None:
    large = f"{GROW.replace('while True', 'for _ in range(25)')}\ntime.sleep(99)"
    with guarding(tmp_path, "--soft", "80MiB", *python(large)) as guard:
        guard.wait(lambda: len(guard.events("start")) == 2)
        time.sleep(3)  # ten times as long as the first one lived
        assert len(guard.events("start")) == 2


def test_what_a_dead_worker_leaves_behind_is_ended_before_the_next_one_starts(tmp_path: Path) -> None:
    program = (
        "import os, sys, signal, time\n"
        "signal.signal(signal.SIGTERM, lambda *_: (open('asked', 'w').close(), sys.exit()))\n"
        "if os.fork() == 0: open('child', 'w').write(str(os.getpid())); time.sleep(99)\n"
        "while not os.path.exists('child'): time.sleep(0.01)\n"
        "os.kill(os.getpid(), 9)"
    )
    with guarding(tmp_path, *python(program)) as guard:
        guard.wait(lambda: guard.events("end"))
        child = int((tmp_path / "child").read_text())
        assert not Path(f"/proc/{child}").exists()
        assert (tmp_path / "asked").exists(), "asked first, killed only when it does not heed"


def test_who_does_not_heed_is_killed_after_the_grace(tmp_path: Path) -> None:
    grow = GROW.replace("while True", "for _ in range(30)")
    deaf = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); open('deaf', 'a').write('.')"
    deaf += f"\n{grow}\ntime.sleep(99)"
    with guarding(tmp_path, "--soft", "60MiB", "--grace", "1s", *python(deaf)) as guard:
        guard.wait(lambda: guard.events("end") and len((tmp_path / "deaf").read_text()) == 2)
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
