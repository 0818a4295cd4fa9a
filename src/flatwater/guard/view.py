"""The guards of this machine with what they run and what their records say: for a page, and for scripts."""

from __future__ import annotations

import re
import sqlite3
from pathlib import Path

import msgspec

from flatwater.errors import FlatwaterError, NotFoundError
from flatwater.guard.flight import read
from flatwater.guard.instance import tree
from flatwater.guard.presence import Place, Presence, present
from flatwater.guard.record import Record
from flatwater.guard.report import Summary, summary

_LISTED = 20
_PASSWORD = re.compile(r"(?<=://)([^\s/@:]*):[^\s/@]*@")


class Running(msgspec.Struct, frozen=True):
    """A task under way: in which process, and since when (seconds since the epoch)."""

    name: str
    id: str
    pid: int
    since: float


class Watched(msgspec.Struct, frozen=True):
    """A worker with the tasks that run in its processes."""

    worker: Place
    running: tuple[Running, ...]


class Guarded(msgspec.Struct, frozen=True):
    """A running guard; of kills and holders the newest 20. ``trouble`` is why its record cannot be read, or "".

    Passwords in the addresses of its command are not shown.
    """

    guard: Presence
    workers: tuple[Watched, ...]
    report: Summary | None
    trouble: str = ""


def guarded() -> list[Guarded]:
    """All guards of this user that run on this machine. Reads files and waits for disks: call it in a thread."""
    return [_guarded(folder, presence) for folder, presence in present()]


def release(pid: int, task: str) -> None:
    """Let a quarantined task run again, by the guard with this pid. Raises NotFoundError for either."""
    for _, presence in present():
        if presence.pid == pid:
            with Record(Path(presence.record), create=False) as record:
                record.release(task)
            return
    raise NotFoundError(f"no guard runs with the pid {pid}", hint="GET /api/guard lists those that do")


def _guarded(folder: Path, presence: Presence) -> Guarded:
    workers = _watched(folder, presence)
    words = tuple(_PASSWORD.sub(r"\1:…@", word) for word in presence.command)
    presence = msgspec.structs.replace(presence, command=words)
    try:
        with Record(Path(presence.record), create=False) as record:
            found = summary(record)
    except (sqlite3.Error, OSError, FlatwaterError) as error:
        return Guarded(presence, workers, None, f"{presence.record}: {error}")
    listed = msgspec.structs.replace(found, killed=found.killed[-_LISTED:], retained=found.retained[-_LISTED:])
    return Guarded(presence, workers, listed)


def _watched(folder: Path, presence: Presence) -> tuple[Watched, ...]:
    """A flight file is named by the process that wrote it."""
    flights = {int(path.name.split("-")[1]): read(path) for path in folder.glob("flight-*")}
    return tuple(
        Watched(
            place,
            tuple(
                Running(flight.name, flight.id, pid, flight.since)
                for pid in tree(place.pid)
                for flight in flights.get(pid, ())
            ),
        )
        for place in presence.places
    )
