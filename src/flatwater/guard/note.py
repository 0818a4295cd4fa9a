"""Killed tasks that the supervisor has left for the integration that can write them into their results.

``killed-N.json``, after T failures ``killed-N-T.json``; while a process writes it, ``writing-N-T-PID``.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import msgspec

from flatwater.guard.aside import Aside
from flatwater.guard.channel import Killed
from flatwater.guard.flight import started

log = logging.getLogger("flatwater.guard")

_MAX_TRIES = 10  # the waits between them double: a backend may be away for 17 minutes


class Notes:
    """The notes in ``folder`` for one kind of worker.

    Each is written by one process at a time, and again when that fails: ``first_s`` later, then twice as long, and so
    on. ``write`` may take its time, it is called in a thread of its own; make a new one after a fork.
    """

    def __init__(self, folder: Path, kind: str, write: Callable[[Killed], object], *, first_s: float = 1.0) -> None:
        self._folder, self._kind, self._write, self._first_s = folder, kind, write, first_s
        self._writing = Aside("flatwater-guard-notes", self._write_all)

    def look(self) -> None:
        """Begin to write those that are due; cheap when none is."""
        self._regain()
        if next(self._found(), None) is not None:
            self._writing.begin()

    def end(self, seconds: float) -> None:
        """Wait for those that are being written, at most so long."""
        self._writing.end(seconds)

    def _write_all(self) -> None:
        for path, note, tries in self._found():
            mine = self._folder / f"writing-{_number(path)}-{tries}-{os.getpid()}"
            with suppress(OSError):
                path.rename(mine)  # whoever comes second finds nothing to rename
                self._written(mine, note, tries)

    def _written(self, mine: Path, note: Killed, tries: int) -> None:
        if not tries:
            log.error("%s", note)
        try:
            self._write(note)
        except Exception as error:
            if tries + 1 < _MAX_TRIES:
                log.warning("%s: its result is not written, and tried again: %s", note.id, error)
                os.utime(mine)
                mine.rename(self._folder / f"killed-{_number(mine)}-{tries + 1}.json")
                return
            log.exception("%s: its result is given up after %d tries", note.id, _MAX_TRIES)
        mine.unlink()

    def _found(self) -> Iterator[tuple[Path, Killed, int]]:
        for path in sorted(self._folder.glob("killed-*.json")):
            with suppress(OSError, msgspec.MsgspecError):
                tries = int(path.stem.split("-")[2]) if path.stem.count("-") == 2 else 0
                since = time.time() - path.stat().st_mtime
                if tries and 0 <= since < self._first_s * 2 ** (tries - 1):  # a clock that went back: do not wait
                    continue
                note = msgspec.json.decode(path.read_bytes(), type=Killed)
                if note.kind == self._kind:
                    yield path, note, tries

    def _regain(self) -> None:
        """Those of processes that died while they wrote."""
        for path in self._folder.glob("writing-*"):
            number, tries, pid = path.name.split("-")[1:]
            if not started(int(pid)):
                with suppress(OSError):
                    if int(tries) + 1 < _MAX_TRIES:
                        path.rename(self._folder / f"killed-{number}-{int(tries) + 1}.json")
                    else:
                        path.unlink()


def _number(path: Path) -> str:
    return path.stem.split("-")[1]
