"""One pool process leaves at a time: a lock that ends with its process, and a count of those that live."""

from __future__ import annotations

import fcntl
import os
import tempfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from flatwater.guard.flight import started


class Turn:
    """Made in the parent of a pool, taken by its forked children; at most one of them leaves before it is replaced.

    ``expected`` tells how many children the parent should have now (0: unknown, then only the lock counts).
    """

    def __init__(self, expected: Callable[[], int]) -> None:
        self._expected = expected
        self._file = tempfile.TemporaryFile("w+b", prefix="flatwater-turn-")  # noqa: SIM115 lives as long as the pool

    def take(self) -> bool:
        """Whether this process may leave now; if so nobody else may until it has ended and been replaced."""
        if alive(os.getppid()) < self._expected():
            return False
        try:
            fcntl.lockf(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)  # the lock of a process: gone when it is
        except OSError:
            return False
        if alive(os.getppid()) < self._expected():  # the one before left between the two looks
            fcntl.lockf(self._file, fcntl.LOCK_UN)
            return False
        return True

    def close(self) -> None:
        """Let go of the file. Closing twice is allowed."""
        self._file.close()


def alive(pid: int) -> int:
    """How many children of a process live, zombies left out; the kernel keeps those that a thread has forked apart."""
    words: list[str] = []
    with suppress(OSError):
        for task in Path(f"/proc/{pid}/task").iterdir():
            with suppress(OSError):  # a thread that has just ended
                words += (task / "children").read_text("ascii").split()
    return sum(bool(started(int(word))) for word in words)
