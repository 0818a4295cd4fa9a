"""flatwater guard as people run it: what it names, kills, replaces and tells."""

from __future__ import annotations

import json
import logging
import os
import queue
import shutil
import signal
import subprocess
import sys
import threading
import time
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from tests.guard.consumer import Consumer, consuming
from tests.guard.guarding import GROW, GUARD, MIB, SLEEP, guarding, python

from flatwater.guard.policy import Limits
from flatwater.guard.record import Record
from flatwater.guard.report import summary
from flatwater.guard.report_text import text
from flatwater.guard.room import explained


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
        time.sleep(1)  # else it is the same wish
        guard.process.send_signal(signal.SIGTERM)  # the second one kills
        assert guard.process.wait(90) == 1
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
        "try: print(tasks.eat({}).get(blocking=True, timeout=90))\n"
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
    consumer = Consumer(tmp_path, redis_url, "thread", 2, *GUARD, "--record", str(file), "--", soft=120)
    program = (
        "for number in range(300):\n"
        "    tasks.grow(number, 512, 0.02) if number * 7919 % 1000 < 600 else tasks.nothing(number)"
    )
    consumer.call(program)
    with consuming(consumer):
        consumer.wait(lambda: len(consumer.rows()) >= 300)
    assert sorted(int(row[0]) for row in consumer.rows()) == list(range(300))
    with Record(file) as record:
        found, shown = summary(record), text(record)
    tasks = {task.name.rpartition(".")[2]: task for task in found.tasks}
    assert found.recycled >= 1
    assert sum(task.count for task in tasks.values()) == 300
    grow = tasks["grow"]
    assert grow.per_call is not None, shown
    assert 256 << 10 < grow.per_call < 1024 << 10, shown  # 512 KiB in truth; a busy machine blurs intervals
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
    with urllib.request.urlopen(address, timeout=60) as answer:
        return str(answer.read().decode())


# Grows a little after its start, in the first two lives; asked to stop it has a second to do.
WAITING = """
import os, signal, sys, time
signal.signal(signal.SIGTERM, lambda *_: (time.sleep(1.2), sys.exit()))
with open('lives', 'a') as file: file.write('.')
life, kept = os.path.getsize('lives'), []
time.sleep(0.6)
for _ in range(10 if life <= 2 else 0): kept.append(b'x' * (8 << 20)); time.sleep(0.02)
time.sleep(99)
"""


def test_a_worker_that_waits_for_its_turn_is_not_killed_by_a_grace_that_has_not_begun(tmp_path: Path) -> None:
    with guarding(tmp_path, "-n", "2", "--soft", "60MiB", "--grace", "2s", *python(WAITING)) as guard:
        guard.wait(lambda: len(guard.events("end")) == 2)
    assert [event.body["reason"] for event in guard.events("end")[:2]] == ["recycled"] * 2
    assert not guard.events("kill")


def test_a_working_directory_that_is_cleaned_away_costs_figures_only(tmp_path: Path) -> None:
    """As by a deployment that removes the folder of the former release, with the record in it."""
    release, shown = tmp_path / "release", tmp_path / "tmp"
    release.mkdir()
    shown.mkdir()
    enter = ("sh", "-c", f'cd {release}; exec "$@"', "sh")
    words = ["--record", "guard.db", *python(SLEEP)]
    with guarding(tmp_path, *words, prefix=enter, environment={**os.environ, "TMPDIR": str(shown)}) as guard:
        guard.wait(lambda: list(shown.glob("*/guard.json")))
        (told,) = shown.glob("*/guard.json")
        guard.wait(lambda: b'"pid"' in told.read_bytes().partition(b'"places"')[2])
        shutil.rmtree(release)
        before = told.stat().st_mtime
        guard.wait(lambda: told.stat().st_mtime > before + 2)
        assert guard.process.poll() is None
        assert guard.stop() == 0


def test_a_full_folder_for_temporary_files_costs_no_worker(tmp_path: Path) -> None:
    """The note of a killed task does not fit, nor does what the guard tells of itself."""
    folder = tmp_path / "tmp"
    folder.mkdir()
    small = (
        "unshare", "-m", "sh", "-c", f'mount -t tmpfs -o size=128k none {folder} && TMPDIR={folder} exec "$@"', "sh"
    )  # fmt: skip
    if subprocess.run([*small, "true"], check=False, capture_output=True).returncode:
        pytest.skip("no small file system can be mounted here")
    lines = (
        "import os, time; from pathlib import Path; from flatwater.guard.flight import FlightFile\n"
        "from flatwater.guard.channel import supervised\n"
        "folder = Path(os.environ['FLATWATER_GUARD']).parent\n"
        "if os.path.exists('full'): time.sleep(99)\n"
        "FlightFile(folder, 'test').put('task', '1')\n"
        "supervised().send('evidence', holders='x' * 50_000)\n"  # more than the mark of the task leaves free
        "fill, until = os.open(folder / 'fill', os.O_WRONLY | os.O_CREAT), time.monotonic() + 1.5\n"
        "while time.monotonic() < until:\n"  # what the guard replaces each second frees a page
        " try: os.write(fill, bytes(4096))\n except OSError: time.sleep(0.01)\n"
        "open('full', 'w').close(); os.kill(os.getpid(), 11)"
    )
    with guarding(tmp_path, *python(lines), prefix=small) as guard:
        guard.wait(lambda: guard.events("killed") and len(guard.events("start")) == 2)
        guard.wait(lambda: "cannot tell that it was killed" in guard.log.read_text(), timeout_s=20)
        assert guard.process.poll() is None
        assert guard.stop() == 0
    assert [event.body["reason"] for event in guard.events("end")] == ["crash", "stopped"]


CONSUMER = """
import os, signal, sys, time
def done(word): open('done', 'a').write(word + ' '); sys.exit()
signal.signal(signal.SIGTERM, lambda *_: done('term'))
signal.signal(signal.SIGINT, lambda *_: (time.sleep(0.5), done('warm')))
open('up', 'w').close()
time.sleep(99)
"""


@pytest.mark.parametrize("end", ["stop", "shell"])
def test_the_worker_below_a_shell_gets_its_own_warm_stop(end: str, tmp_path: Path) -> None:
    """By a stop; and when the shell is ended by somebody else."""
    (tmp_path / "huey_consumer.py").write_text(CONSUMER)
    line = f"{sys.executable} huey_consumer.py; echo $? > status"
    with guarding(tmp_path, "--", "sh", "-c", line) as guard:
        guard.wait((tmp_path / "up").exists)
        if end == "stop":
            assert guard.stop() == 0
            assert (tmp_path / "status").read_text() == "0\n", "the shell went on to its next command"
        else:
            os.kill(guard.events("start")[0].pid, signal.SIGKILL)
            guard.wait((tmp_path / "done").exists)
    assert (tmp_path / "done").read_text().split()[0] == "warm"


def test_the_worker_below_a_program_that_stays_gets_its_own_warm_stop(tmp_path: Path) -> None:
    """As below pdm run, or any other that starts what its command line ends with and waits for it."""
    (tmp_path / "huey_consumer.py").write_text(CONSUMER)
    (tmp_path / "pdm").write_text("import subprocess, sys; sys.exit(subprocess.call(sys.argv[2:]))")
    words = [sys.executable, "pdm", "run", sys.executable, "huey_consumer.py", "shop.huey"]
    with guarding(tmp_path, "--", *words) as guard:
        guard.wait((tmp_path / "up").exists)
        assert guard.stop() == 0
    assert (tmp_path / "done").read_text().split() == ["warm"]


def test_a_guard_that_gets_sigquit_leaves_no_worker_behind(tmp_path: Path) -> None:
    (tmp_path / "huey_consumer.py").write_text(CONSUMER)
    with guarding(tmp_path, "--", sys.executable, "huey_consumer.py") as guard:
        guard.wait((tmp_path / "up").exists)
        guard.process.send_signal(signal.SIGQUIT)
        assert guard.process.wait(90) == 1
    assert guard.events("kill")[0].body["reason"] == "asked by SIGQUIT"
    assert not Path(f"/proc/{guard.events('start')[0].pid}").exists()


def test_a_celery_whose_sigterm_is_remapped_gets_sigint(tmp_path: Path) -> None:
    (tmp_path / "celery").write_text(CONSUMER)
    environment = {**os.environ, "REMAP_SIGTERM": "SIGQUIT"}
    with guarding(tmp_path, "--", sys.executable, "celery", environment=environment) as guard:
        guard.wait((tmp_path / "up").exists)
        assert guard.stop() == 0
    assert (tmp_path / "done").read_text().split() == ["warm"]


def test_a_stop_that_went_well_is_no_failure_whatever_was_before(tmp_path: Path) -> None:
    with guarding(tmp_path, *python(SLEEP)) as guard:
        guard.wait(lambda: guard.events("start"))
        os.kill(guard.events("start")[0].pid, signal.SIGKILL)
        guard.wait(lambda: len(guard.events("start")) == 2)
        assert guard.stop() == 0


def test_workers_born_above_their_limit_are_left_alone_for_longer_and_longer(tmp_path: Path) -> None:
    """At 100 MiB, which is more than halfway between the limits, so that settling does not help."""
    large = f"{GROW.replace('while True', 'for _ in range(22)').replace('0.05', '0.02')}\ntime.sleep(99)"
    with guarding(tmp_path, "--soft", "40MiB", "--hard", "130MiB", *python(large)) as guard:
        guard.wait(lambda: guard.events("held"))
        held = guard.events("held")[0]
        guard.wait(lambda: time.time() > held.at + 1.5)
        assert len(guard.events("start")) == 3
        assert held.body["hold_s"] == 20
        assert "Set --soft above what it holds at its start" in guard.log.read_text()


def test_limits_and_where_they_come_from_are_told_at_the_start(tmp_path: Path) -> None:
    with guarding(tmp_path, "--soft", "80MiB", *python(SLEEP)) as guard:
        guard.wait(lambda: guard.events("start"))
    assert "soft limit of each worker: 80 MiB (as given)" in guard.log.read_text()


def test_what_is_off_is_told() -> None:
    def lines(given: Limits, room: int | None, count: int = 1) -> list[tuple[str, str]]:
        return [
            (logging.getLevelName(level), line) for level, line in explained(given, given.within(room), room, count)
        ]

    ((level, line),) = lines(Limits(), None)
    assert level == "WARNING"
    assert line.startswith("no limits")
    *_, (level, line) = lines(Limits(soft=950 * MIB), 1000 * MIB)
    assert level == "WARNING"
    assert line.startswith("the hard limit is off: --soft 950 MiB is not below 92 %")
    (first, second) = lines(Limits(), 500 * MIB, 2)
    assert first == ("INFO", "soft limit of each worker: 400 MiB (80 % of 500 MiB, half of the control group's limit)")
    assert second[0] == "INFO"
    *_, (level, line) = lines(Limits(soft=100, hard=2000 * MIB), 1000 * MIB)
    assert level == "WARNING"
    assert "the kernel kills first" in line


def test_kills_and_crash_loops_are_posted(tmp_path: Path) -> None:
    told: queue.Queue[dict[str, object]] = queue.Queue()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            told.put(json.loads(self.rfile.read(int(self.headers["content-length"]))))
            self.send_response(204)
            self.end_headers()

        def log_message(self, format: str, *arguments: object) -> None:
            pass

    lines = (
        "import os, time; from pathlib import Path; from flatwater.guard.flight import FlightFile\n"
        "FlightFile(Path(os.environ['FLATWATER_GUARD']).parent, 'test').put('eat', '17')\n"
        "kept = [b'x' * (1 << 20) for _ in range(150)]\ntime.sleep(99)"
    )
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}/"
        words = ["--hard", "120MiB", "--quarantine", "1", "--alert-url", url, *python(lines)]
        with guarding(tmp_path, *words):
            found = {str(alert["rule"]): alert for alert in (told.get(timeout=60) for _ in range(3))}
        server.shutdown()
    assert set(found) == {"worker killed", "task killed", "quarantine"}
    assert (found["task killed"]["task"], found["task killed"]["id"]) == ("eat", "17")
    assert found["worker killed"]["threshold"] == 120 * MIB
    assert "hard limit" in str(found["worker killed"]["message"])
