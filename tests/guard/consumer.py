"""Real workers in processes of their own, alone or under a command such as ``flatwater guard``."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from flatwater.guard.instance import tree

HERE = Path(__file__).parent


class Inferior:
    """A worker process of ``module``, ended warm by ``warm``; the module's tasks can be called from here."""

    module: str
    warm: signal.Signals

    def __init__(self, folder: Path, command: list[str], **variables: object) -> None:
        self.done, self.log = folder / "done", folder / "log"
        self.environment = {
            **{key: value for key, value in os.environ.items() if not key.startswith("FLATWATER")},
            "INFERIOR_DONE": str(self.done),
            "PYTHONPATH": str(HERE),
            **{f"INFERIOR_{key.upper()}": str(value) for key, value in variables.items()},
        }
        self.command = command
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        with self.log.open("ab") as output:
            self.process = subprocess.Popen(
                self.command, env=self.environment, cwd=HERE.parents[1], stdout=output, stderr=output
            )

    def call(self, program: str) -> str:
        """Run a few lines with ``tasks`` being the module, and give what they print."""
        lines = f"import {self.module} as tasks\nfrom {self.module} import *\n{program}"
        done = subprocess.run(
            [sys.executable, "-c", lines],
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=100,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    def rows(self) -> list[list[str]]:
        return [line.split() for line in self.done.read_text().splitlines()] if self.done.exists() else []

    def wait(self, what: Callable[[], bool], timeout_s: float = 100) -> None:
        deadline = time.monotonic() + timeout_s
        while not what():
            assert time.monotonic() < deadline, self.log.read_text()[-3000:]
            time.sleep(0.05)

    def stop_in_the_midst(self, heard: str, *, after_s: float = 0.0, rows: int = 1) -> int:
        """Send the warm signal while ``grow_late`` runs, and let it grow when the log says that it was heard."""
        assert self.process is not None
        self.wait(lambda: len(self.rows()) == rows)
        self.process.send_signal(self.warm)
        sent = time.monotonic()
        self.wait(lambda: heard in self.log.read_text() and time.monotonic() >= sent + after_s)
        self.done.with_suffix(".go").touch()
        return self.process.wait(60)

    def stop(self) -> None:
        if self.process is not None:
            if self.process.poll() is None:
                self.process.send_signal(self.warm)
            try:
                self.process.wait(30)
            except subprocess.TimeoutExpired:
                for pid in tree(self.process.pid):  # a pool would live on
                    os.kill(pid, signal.SIGKILL)
                self.process.wait()


class Consumer(Inferior):
    """Huey's; ``words`` come before its command."""

    module = "huey_inferior"
    warm = signal.SIGINT

    def __init__(self, folder: Path, storage: str, kind: str, workers: int, *words: str, **variables: object) -> None:
        program = [str(HERE / "huey_green.py")] if kind == "greenlet" else ["-m", "huey.bin.huey_consumer"]
        command = [*words, sys.executable, *program, "huey_inferior.huey", "-k", kind, "-w", str(workers), "-d", "0.01"]
        super().__init__(folder, command, storage=storage, **variables)


@contextmanager
def consuming(consumer: Consumer) -> Iterator[Consumer]:
    consumer.start()
    try:
        yield consumer
    finally:
        consumer.stop()
