"""Starting, watching and killing the programs of `tests/live/inferiors`."""

from __future__ import annotations

import os
import selectors
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import TracebackType
from typing import Any, Self

ROOT = Path(__file__).parents[2]


class Inferior:
    """One process of ``python -m tests.live.inferiors.<program>``; killed when left, if it still lives."""

    def __init__(self, program: str, *arguments: object, log: Path) -> None:
        self._log = log.open("ab")
        self.log = log
        self.started_at = time.time()
        self._process = subprocess.Popen(
            [sys.executable, "-m", f"tests.live.inferiors.{program}", *map(str, arguments)],
            cwd=ROOT,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=self._log,
            env={**os.environ, "PYTHONUNBUFFERED": "1"},
        )
        assert self._process.stdout is not None
        os.set_blocking(self._process.stdout.fileno(), False)
        self._text = b""
        self.said: list[str] = []

    @property
    def pid(self) -> int:
        return self._process.pid

    def hear(self, word: str, timeout_s: float) -> float:
        """Wait until it has printed a line that begins so; returns when. Raises AssertionError."""
        until = time.time() + timeout_s
        while not any(line.split()[:1] == [word] for line in self.said):
            assert self._read(until - time.time()), self._told(f"did not say {word!r} within {timeout_s:g} s")
        return time.time()

    def _read(self, wait_s: float) -> bool:
        """Take in what it prints; false when it has ended or the time is over."""
        stdout = self._process.stdout
        assert stdout is not None
        with selectors.DefaultSelector() as selector:
            selector.register(stdout, selectors.EVENT_READ)
            if wait_s <= 0 or not selector.select(wait_s):
                return False
        data = stdout.read()
        self._text += data or b""
        *whole, self._text = self._text.split(b"\n")
        self.said += [line.decode() for line in whole]
        return bool(data)

    def send(self, number: signal.Signals) -> None:
        self._process.send_signal(number)

    def kill(self) -> None:
        """As kill -9, and wait until it is gone."""
        self._process.kill()
        self._process.wait()

    def wait(self, timeout_s: float) -> None:
        """Wait for its own end, which must be a good one."""
        try:
            status = self._process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            raise AssertionError(self._told(f"has not ended after {timeout_s:g} s")) from None
        assert status == 0, self._told(f"ended with status {status}")

    def _told(self, what: str) -> str:
        text = self.log.read_text(errors="replace")[-3_000:]
        return f"process {self.pid} {what}; it said {self.said[-3:]}, and its log ends:\n{text}"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGCONT)
            self.kill()
        assert self._process.stdout is not None
        self._process.stdout.close()
        self._log.close()


def start(program: str, *arguments: Any, log: Path) -> Inferior:
    return Inferior(program, *arguments, log=log)
