"""Programs to attach to: `tests/live/inferiors/examined.py` under a Python of choice, with pipes to talk to it."""

from __future__ import annotations

import os
import select
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

EXAMINED = Path(__file__).parent / "inferiors" / "examined.py"


class Program:
    """One process; killed when left."""

    def __init__(self, kind: str, *, before: Sequence[str] = (), python: str = sys.executable, **settings: Any) -> None:
        environment = {key: value for key, value in os.environ.items() if not key.startswith("FLATWATER_")}
        self.process = subprocess.Popen(
            [*before, python, "-W", "error", str(EXAMINED), kind],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            cwd="/",
            env=environment,
            **settings,
        )
        self.pid = self.process.pid
        self._text = b""
        self.lines: list[list[str]] = []
        self.hear("ready")

    def tell(self, line: str = "") -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(line.encode() + b"\n")
        self.process.stdin.flush()

    def hear(self, word: str, timeout_s: float = 60) -> list[str]:
        """The first line not yet heard that begins so."""
        until = time.monotonic() + timeout_s
        while True:
            for place, words in enumerate(self.lines):
                if words[0] == word:
                    return self.lines.pop(place)[1:]
            assert self.read(until - time.monotonic()), f"did not say {word!r}; it said {self.lines}"

    def read(self, wait_s: float) -> bool:
        assert self.process.stdout is not None
        fd = self.process.stdout.fileno()
        if not select.select([fd], [], [], max(0.0, wait_s))[0]:
            return False
        data = os.read(fd, 65536)
        *whole, self._text = (self._text + data).split(b"\n")
        self.lines += [line.decode().split() for line in whole]
        return bool(data)

    def descriptors(self) -> list[str]:
        return sorted(path.name for path in Path(f"/proc/{self.pid}/fd").iterdir())

    def threads(self) -> int:
        return len(list(Path(f"/proc/{self.pid}/task").iterdir()))

    def resident(self) -> int:
        return int(Path(f"/proc/{self.pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.process.kill()
        self.process.wait()
        for stream in (self.process.stdin, self.process.stdout):
            assert stream is not None
            try:
                stream.close()
            except BrokenPipeError:
                continue


def pythons() -> list[str]:
    """Other Pythons on this machine that can be examined."""
    versions = Path.home() / ".pyenv" / "versions"
    return [str(path) for version in ("3.12", "3.13") for path in versions.glob(f"{version}.*/bin/python")]
