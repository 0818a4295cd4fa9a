"""Tasks in flight, written where they outlive a killed process: a small mapped file per process. No locks, no calls."""

from __future__ import annotations

import mmap
import os
import struct
import time
from pathlib import Path

import msgspec

SLOTS = 64
_KIND = struct.Struct("255p")  # the head of the file
_SLOT = struct.Struct("<d180p64p")  # since, name, id; before it a byte that is 1 while the task runs
_SIZE = 1 + _SLOT.size


class Flight(msgspec.Struct, frozen=True):
    """A task that was running: its kind of worker, its name and id, and since when (seconds since the epoch)."""

    kind: str
    name: str
    id: str
    since: float


class FlightFile:
    """The tasks in flight of this process, at most 64; further ones are not written (``skipped`` counts them)."""

    def __init__(self, folder: Path, kind: str) -> None:
        self.pid = os.getpid()
        self.path = folder / f"flight-{self.pid}-{started(self.pid)}"
        descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        try:
            os.ftruncate(descriptor, _KIND.size + SLOTS * _SIZE)
            self._map = mmap.mmap(descriptor, _KIND.size + SLOTS * _SIZE)
        finally:
            os.close(descriptor)
        _KIND.pack_into(self._map, 0, kind.encode())
        self._free = [_KIND.size + number * _SIZE for number in range(SLOTS)]
        self.skipped = 0

    def put(self, name: str, id: str) -> int:
        """The slot of a task that begins now; -1 when all are taken."""
        try:
            slot = self._free.pop()
        except IndexError:
            self.skipped += 1
            return -1
        _SLOT.pack_into(self._map, slot + 1, time.time(), name.encode(), id.encode())
        self._map[slot] = 1  # last: who is killed before has not begun the task
        return slot

    def clear(self, slot: int) -> None:
        """The task of the slot has ended."""
        if slot >= 0:
            self._map[slot] = 0
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
    """The tasks in a flight file; none when it is gone. Names are cut after 179 bytes, ids after 63."""
    try:
        data = path.read_bytes()
    except OSError:
        return ()
    slots = range(_KIND.size, len(data) - _SIZE + 1, _SIZE)
    taken = [_SLOT.unpack_from(data, slot + 1) for slot in slots if data[slot] == 1]
    return tuple(Flight(_text(data[1 : 1 + data[0]]), _text(name), _text(id), since) for since, name, id in taken)


def _text(data: bytes) -> str:
    """What may have been cut in the middle of a character."""
    return data.decode("utf-8", "ignore")


def dead(folder: Path) -> list[tuple[int, Path]]:
    """The flight files of processes that are no more, zombies included: pid and path."""
    found = []
    for path in sorted(folder.glob("flight-*")):
        _, pid, start = path.name.split("-")
        if started(int(pid)) != start:
            found.append((int(pid), path))
    return found
