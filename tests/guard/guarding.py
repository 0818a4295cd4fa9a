"""``flatwater guard`` in a process of its own, and control groups to put it into."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from flatwater.guard.record import Event, Record

GUARD = [sys.executable, "-m", "flatwater.cli", "guard"]
MIB = 1 << 20
GROW = "import time; kept = []\nwhile True: kept.append(b'x' * (4 << 20)); time.sleep(0.05)"
SLEEP = "import time; time.sleep(99)"


class Guarded:
    """A guard in a process of its own, and its record."""

    def __init__(
        self, folder: Path, *words: str, prefix: tuple[str, ...] = (), environment: dict[str, str] | None = None
    ) -> None:
        self.file = folder / "guard.db"
        self.log = folder / "guard.log"
        with self.log.open("wb") as output:
            command = [*prefix, *GUARD, "--record", str(self.file), *words]
            self.process = subprocess.Popen(command, stdout=output, stderr=output, cwd=folder, env=environment)

    def events(self, kind: str) -> list[Event]:
        if not self.file.exists():
            return []
        with Record(self.file) as record:
            return [event for event in record.events() if event.kind == kind and (kind != "end" or event.body)]

    def order(self) -> list[str]:
        """What began and ended, in order."""
        with Record(self.file) as record:
            return [event.kind for event in record.events() if event.kind in ("start", "end") and event.body]

    def wait(self, what: Callable[[], object], timeout_s: float = 100) -> None:
        deadline = time.monotonic() + timeout_s
        while not what():
            assert time.monotonic() < deadline, self.log.read_text()[-3000:]
            time.sleep(0.05)

    def stop(self) -> int:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        try:
            return self.process.wait(90)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise


@contextmanager
def guarding(
    folder: Path, *words: str, prefix: tuple[str, ...] = (), environment: dict[str, str] | None = None
) -> Iterator[Guarded]:
    guarded = Guarded(folder, *words, prefix=prefix, environment=environment)
    try:
        yield guarded
    finally:
        guarded.stop()


def python(lines: str) -> list[str]:
    return ["--", sys.executable, "-c", lines]


class Group:
    """A real control group of this test, of whichever version counts memory here."""

    def __init__(self, path: Path, second: bool) -> None:
        self.path, self._second = path, second
        path.mkdir()

    def limit(self, size: int) -> None:
        (self.path / ("memory.max" if self._second else "memory.limit_in_bytes")).write_text(str(size))

    def inner(self) -> Group:
        """A group inside it, without a limit of its own."""
        if self._second:
            (self.path / "cgroup.subtree_control").write_text("+memory")
        return Group(self.path / "inner", self._second)

    def entering(self) -> tuple[str, ...]:
        """The words before a command that make it run here."""
        return ("sh", "-c", f'echo $$ > {self.path}/cgroup.procs; exec "$@"', "sh")

    def remove(self) -> None:
        for path in (self.path / "inner", self.path):
            deadline = time.monotonic() + 90
            while path.exists() and time.monotonic() < deadline:
                try:
                    path.rmdir()
                except OSError:  # a process is just leaving it
                    time.sleep(0.05)
