"""Clocks that jump under a running guard: by a library before it that adds to what the kernel says."""

from __future__ import annotations

import os
import shutil
import signal
import struct
import subprocess
from pathlib import Path

import pytest
from tests.guard.guarding import GROW, Guarded, guarding, python

from flatwater.guard.record import Record
from flatwater.guard.report import summary

YEARS, HOUR = 10 * 365 * 86_400.0, 3600.0


class Clock:
    """The clocks of the programs that run in its environment."""

    def __init__(self, folder: Path) -> None:
        compiler = shutil.which("cc")
        if compiler is None:
            pytest.skip("no C compiler (cc) builds the library that moves the clocks")
        self._file, library = folder / "jump", folder / "clock.so"
        self.jump(0.0, 0.0)
        source = Path(__file__).with_name("clock.c")
        subprocess.run([compiler, "-shared", "-fPIC", "-o", library, source, "-ldl", "-lm"], check=True)
        self.environment = {**os.environ, "LD_PRELOAD": str(library), "JUMP": str(self._file)}

    def jump(self, wall_s: float, monotonic_s: float) -> None:
        """Both clocks from now on, in one write, beside the kernel's."""
        descriptor = os.open(self._file, os.O_WRONLY | os.O_CREAT, 0o600)
        os.pwrite(descriptor, struct.pack("dd", wall_s, monotonic_s), 0)
        os.close(descriptor)


def looks(guard: Guarded, count: int) -> None:
    """Until the guard has read its socket so often: each datagram wakes it for a look at its workers."""
    before = len(guard.events("looked"))
    guard.wait(lambda: len(guard.events("looked")) >= before + count)


def test_a_jump_uses_up_neither_grace_nor_patience(tmp_path: Path) -> None:
    clock = Clock(tmp_path)
    deaf = (
        "import signal, threading; signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        "from flatwater.guard.channel import supervised\n"
        "def tell():\n  channel = supervised()\n  while True: channel.send('looked'); time.sleep(0.1)\n"
        f"{GROW.replace('while True', 'for _ in range(30)')}\n"
        "tell()"
    )
    _, *worker = python(deaf)  # with the kernel's clocks: it sleeps until a time that it has computed
    words = ["--soft", "80MiB", "--hard", "900MiB", "--grace", "120s", "--", "env", "-u", "LD_PRELOAD", *worker]
    with guarding(tmp_path, *words, environment=clock.environment) as guard:
        guard.wait(lambda: guard.events("looked"))
        assert guard.events("limit")
        for wall_s, monotonic_s in [(YEARS, HOUR), (-YEARS, 2 * HOUR), (0.0, -HOUR), (YEARS, HOUR)]:
            clock.jump(wall_s, monotonic_s)
            looks(guard, 5)
        assert guard.events("kill") == []
        assert len(guard.events("start")) == 1
        guard.process.send_signal(signal.SIGTERM)
        looks(guard, 20)  # of a tenth of a second each: what comes at once would be an echo of the first
        guard.process.send_signal(signal.SIGTERM)
        assert guard.process.wait(90) == 1
    stamps = [event.at for event in guard.events("looked")]
    assert max(stamps) - min(stamps) > YEARS, "the clocks did jump"


def test_a_wall_clock_that_is_set_changes_no_wait_and_no_figure(tmp_path: Path) -> None:
    clock = Clock(tmp_path)
    with guarding(tmp_path, *python("raise SystemExit(3)"), environment=clock.environment) as guard:
        guard.wait(lambda: guard.events("end"))
        clock.jump(-YEARS, 0.0)
        guard.wait(lambda: len(guard.events("start")) == 2)
        clock.jump(YEARS, 0.0)
        guard.wait(lambda: len(guard.events("start")) == 3)
    with Record(guard.file) as record:
        away_s = summary(record).away_s
    assert 2.5 < away_s < 100, "the waits of the back-off, one and two seconds"
