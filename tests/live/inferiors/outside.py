"""The world outside of the engine: files that outlive every process, written by single appends."""

from __future__ import annotations

import os
import time
from pathlib import Path


class Log:
    """Lines that only grow; a line is there as a whole or not at all, whenever its writer dies."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)

    def add(self, *words: object) -> None:
        os.write(self._file, (" ".join(str(word) for word in words) + "\n").encode())

    def close(self) -> None:
        os.close(self._file)


def lines(path: Path, after: int = 0) -> list[list[str]]:
    """The words of the lines after that many bytes."""
    if not path.exists():
        return []
    with path.open("rb") as file:
        file.seek(after)
        return [line.split() for line in file.read().decode().splitlines()]


class Outside:
    """Takes orders and answers for them: a machine with a memory of its own, for all processes that use ``folder``."""

    def __init__(self, folder: Path) -> None:
        self._log = Log(folder / "orders")
        self._known: dict[str, float] = {}
        self._read = 0

    def send(self, order_id: str, run_id: str, path: str) -> None:
        """Take an order. It is not the outside that keeps duplicates away: each arrival is a line."""
        self._log.add(order_id, time.time(), run_id, path)

    def sent_at(self, order_id: str) -> float | None:
        """When an order arrived; None: it never did."""
        with self._log.path.open("rb") as file:
            file.seek(self._read)
            for line in file.read().decode().splitlines():
                found, at, *_ = line.split()
                self._known[found] = float(at)
            self._read = file.tell()
        return self._known.get(order_id)

    def close(self) -> None:
        self._log.close()
