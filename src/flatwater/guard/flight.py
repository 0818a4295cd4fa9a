"""Tasks in flight, written where they outlive a killed process: a small mapped file per process. No locks, no calls."""

from __future__ import annotations

import mmap
import os
import time
from contextlib import suppress
from pathlib import Path

import msgspec

SLOTS, SIZE = 64, 256


class Flight(msgspec.Struct, frozen=True):
    """A task that was running: its kind of worker, its name and id, and since when (seconds since the epoch)."""

    kind: str
    name: str
    id: str
    since: float


class FlightFile:
    """The tasks in flight of this process, at most 64; further ones are not written (``skipped`` counts them)."""

    def __init__(self, folder: Path, kind: str) -> None:
        self.pid, self._kind = os.getpid(), kind[:40]
        self.path = folder / f"flight-{self.pid}-{started(self.pid)}"
        descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        try:
            os.ftruncate(descriptor, SLOTS * SIZE)
            self._map = mmap.mmap(descriptor, SLOTS * SIZE)
        finally:
            os.close(descriptor)
        self._free = list(range(SLOTS))
        self.skipped = 0

    def put(self, name: str, id: str) -> int:
        """The slot of a task that begins now; -1 when all are taken."""
        try:
            slot = self._free.pop()
        except IndexError:
            self.skipped += 1
            return -1
        text = f"{time.time():.3f}\t{self._kind}\t{name[:110]}\t{id[:60]}\n".encode()[:SIZE]
        self._map[slot * SIZE : slot * SIZE + len(text)] = text
        return slot

    def clear(self, slot: int) -> None:
        """The task of the slot has ended."""
        if slot >= 0:
            self._map[slot * SIZE] = 0
            self._free.append(slot)

    def close(self) -> None:
        """Remove the file, when it is this process's own. Closing twice is allowed."""
        self._map.close()
        if os.getpid() == self.pid:
            self.path.unlink(missing_ok=True)


def started(pid: int) -> str:
    """The start time of a process in ticks since boot, so that a reused pid is not taken for it; "" when it is gone."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text("utf-8", "replace")
    except OSError:
        return ""
    fields = text.rpartition(")")[2].split()
    return "" if fields[0] in "ZX" else fields[19]


def read(path: Path) -> tuple[Flight, ...]:
    """The tasks in a flight file; half-written slots are left out."""
    try:
        data = path.read_bytes()
    except OSError:
        return ()
    found = []
    for at in range(0, len(data), SIZE):
        line = data[at : at + SIZE].partition(b"\n")[0]
        if line and line[0]:
            with suppress(ValueError):
                since, kind, name, id = line.decode("utf-8", "replace").split("\t")
                found.append(Flight(kind, name, id, float(since)))
    return tuple(found)


def dead(folder: Path) -> list[tuple[int, Path]]:
    """The flight files of processes that are no more, zombies included: pid and path."""
    found = []
    for path in sorted(folder.glob("flight-*")):
        _, pid, start = path.name.split("-")
        if started(int(pid)) != start:
            found.append((int(pid), path))
    return found
