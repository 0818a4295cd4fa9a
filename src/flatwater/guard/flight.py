"""Tasks in flight, written where they outlive a killed process: a small mapped file per process. No locks, no calls."""

from __future__ import annotations

import logging
import mmap
import os
import struct
from pathlib import Path

import msgspec

from flatwater.guard.meter import Slots
from flatwater.guard.meter_fallback import NAME, SIZE, SLOTS, TASK
from flatwater.guard.route import label

log = logging.getLogger("flatwater.guard")

_KIND = struct.Struct("255p")  # the head of the file


class Flight(msgspec.Struct, frozen=True):
    """A task that was running: its kind of worker, its name and id, and since when (seconds since the epoch).

    A request's id is its method and path, and its name what they are called with ids folded.
    """

    kind: str
    name: str
    id: str
    since: float


class FlightFile:
    """The tasks in flight of this process, at most 64; further ones are not written (``slots.skipped`` counts them).

    Raises OSError when there is no room for it: a page of it that came to lack later would kill the process (SIGBUS).
    """

    def __init__(self, folder: Path, kind: str) -> None:
        self.pid = os.getpid()
        self.path = folder / f"flight-{self.pid}-{started(self.pid)}"
        descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        try:
            os.posix_fallocate(descriptor, 0, _KIND.size + SLOTS * SIZE)
            self._map = mmap.mmap(descriptor, _KIND.size + SLOTS * SIZE)
        except OSError:
            self.path.unlink(missing_ok=True)
            raise
        finally:
            os.close(descriptor)
        _KIND.pack_into(self._map, 0, kind.encode())
        self.slots = Slots(self._map, _KIND.size)

    def put(self, name: str, id: str) -> int:
        """The slot of a task that begins now; -1 when all are taken, or it cannot be written."""
        return self.slots.put(name, id)

    def clear(self, slot: int) -> None:
        """The task of the slot has ended."""
        self.slots.clear(slot)

    def close(self) -> None:
        """Remove the file, when it is this process's own. Closing twice is allowed."""
        self.slots.release()
        self._map.close()
        if os.getpid() == self.pid:
            self.path.unlink(missing_ok=True)


def flights(folder: Path, kind: str) -> FlightFile | None:
    """The file of this process; None, which the log says, where it cannot be (a full disk): tasks run without it."""
    try:
        return FlightFile(folder, kind)
    except OSError as error:
        log.warning("%s: tasks in flight are not written, so none will be named when it is killed: %s", kind, error)
        return None


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
    slots = range(_KIND.size, len(data) - SIZE + 1, SIZE)
    kind = _text(data[1 : 1 + data[0]])
    return tuple(_flight(kind, data, slot + 1) for slot in slots if data[slot] == 1)


def named(name: str, id: str) -> tuple[str, str]:
    """Name and id of what is in flight: a request has no id, and its route is told at its end only."""
    return (name, id) if id else (label(name), name)


def _flight(kind: str, data: bytes, at: int) -> Flight:
    since, id = TASK.unpack_from(data, at)
    (name,) = NAME.unpack_from(data, at + TASK.size)
    return Flight(kind, *named(_text(name), _text(id)), since)


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
