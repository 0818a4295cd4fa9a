"""What a scrape of a running guard says of its workers' processes."""

from __future__ import annotations

import re
import urllib.request
from pathlib import Path

from tests.guard.guarding import guarding, python

# A process that has ended and one that lives: each has run a task that keeps 40 MB, and has reported.
WORKER = """
import os, time
from flatwater.guard.policy import Limits
from flatwater.guard.worker import Worker

worker, kept = Worker("huey:shop", limits=Limits(), on_recycle=print), []
ended = os.fork()
worker.begin("read_order", "1")
kept.append(b"x" * (40 << 20))
worker.end()
worker.close()
if not ended: os._exit(0)
os.waitpid(ended, 0)
open("done", "w").close()
time.sleep(99)
"""


def test_levels_and_trims_of_processes_that_live(tmp_path: Path) -> None:
    with guarding(tmp_path, "--metrics-port", "0", *python(WORKER)) as guard:
        guard.wait((tmp_path / "done").exists)
        address = guard.log.read_text().split("metrics: ")[1].split()[0]
        guard.wait(lambda: "flatwater_guard_process_bytes{" in _read(address))
        (worker,) = guard.events("start")
        found = {
            name: float(value)
            for name, value in re.findall(r"^flatwater_guard_(\w+)\{worker=.* (\S+)$", _read(address), re.M)
        }
        pids = set(re.findall(r'worker="huey:shop",pid="(\d+)"', _read(address)))
        assert pids == {str(worker.pid)}
        assert found["process_bytes"] > found["process_start_bytes"] + (30 << 20)
        assert (found["trims_total"], found["trim_seconds_total"] > 0) == (1.0, True)
        assert f'flatwater_guard_task_calls_total{{task="read_order",pid="{worker.pid}"}} 1.0' in _read(address)
        assert "flatwater_guard_record_readable 1.0" in _read(address)
        for file in tmp_path.glob("guard.db*"):
            file.unlink()
        told = _read(address)
        assert "flatwater_guard_record_readable 0.0" in told
        assert "flatwater_guard_starts_total 1.0" in told


def _read(address: str) -> str:
    with urllib.request.urlopen(address, timeout=60) as answer:
        return str(answer.read().decode())
