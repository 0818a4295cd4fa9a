"""What a guard tells of itself while it runs, in a file of its folder, and how others of the same user find it."""

from __future__ import annotations

import os
import shutil
import stat
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import msgspec

from flatwater.guard.flight import started

PREFIX = "flatwater-guard-"
_FILE = "guard.json"


class Place(msgspec.Struct, frozen=True, kw_only=True):
    """A worker and its place: levels in bytes, ``since`` in seconds since the epoch; ``leaving`` is why, or ""."""

    place: int
    pid: int
    since: float
    level: int
    highest: int
    base: int
    leaving: str


class Presence(msgspec.Struct, frozen=True, kw_only=True):
    """A running guard: its process, what it runs, the file it writes to, and the limits of each worker in bytes."""

    pid: int
    start: str
    command: tuple[str, ...]
    record: str
    since: float
    soft: int | None
    hard: int | None
    places: tuple[Place, ...] = ()


def make_folder() -> Path:
    """A folder for a guard, in the directory for temporary files, for this user alone.

    Those of guards that were killed, which could not remove them, are removed.
    """
    for folder, presence in _told():
        if not _lives(presence):
            shutil.rmtree(folder, ignore_errors=True)
    return Path(tempfile.mkdtemp(prefix=PREFIX))


def tell(folder: Path, presence: Presence) -> None:
    """Replace what the guard of this folder has told; on a full disk the former word stays."""
    draft = folder / f"{_FILE}.draft"
    with suppress(OSError):
        draft.write_bytes(msgspec.json.encode(presence))
        draft.rename(folder / _FILE)


def present() -> Iterator[tuple[Path, Presence]]:
    """The guards that run now and belong to this process's user, with their folders."""
    return ((folder, presence) for folder, presence in _told() if _lives(presence))


def left(hard: int | None, level: int, folder: Path | None) -> int | None:
    """Bytes left below a worker's own hard limit and below the one that the guard of ``folder`` has for its processes
    together, of which the caller is one; None without a limit."""
    rooms = [] if hard is None else [hard - level]
    if folder is not None:
        with suppress(OSError, msgspec.MsgspecError):
            presence = msgspec.json.decode((folder / _FILE).read_bytes(), type=Presence)
            session = os.getsid(0)  # the guard's workers begin one each
            if presence.hard is not None:
                rooms += [presence.hard - place.level for place in presence.places if place.pid == session]
    return max(min(rooms), 0) if rooms else None


def _told() -> Iterator[tuple[Path, Presence]]:
    """Only of folders of this user: in a directory that all may write to, others could name any file."""
    for folder in sorted(Path(tempfile.gettempdir()).glob(f"{PREFIX}*")):
        with suppress(OSError, msgspec.MsgspecError):
            found = folder.lstat()
            if stat.S_ISDIR(found.st_mode) and found.st_uid == os.geteuid() and not found.st_mode & 0o077:
                yield folder, msgspec.json.decode((folder / _FILE).read_bytes(), type=Presence)


def _lives(presence: Presence) -> bool:
    return presence.start != "" and started(presence.pid) == presence.start
