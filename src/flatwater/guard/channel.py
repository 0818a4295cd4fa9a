"""What workers tell the supervisor: JSON datagrams to the socket named in ``FLATWATER_GUARD``; and what it leaves them.

Beside the socket lie ``quarantine.json`` (names of tasks that must not run) and ``killed-*.json`` (tasks that were
killed, for the integration that can write it into their results).
"""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec

from flatwater.guard.flight import started
from flatwater.quantity import size

log = logging.getLogger("flatwater.guard")

VARIABLE = "FLATWATER_GUARD"
EVIDENCE = "FLATWATER_GUARD_EVIDENCE_BYTES"  # the level from which a worker tells who holds its memory
MAX_BYTES = 60_000
_MAX_NAME_BYTES = 107  # of a UNIX socket


class Killed(msgspec.Struct, frozen=True, kw_only=True):
    """A task whose process was killed: why, its peak and the limit in bytes, and what held the memory."""

    kind: str
    name: str
    id: str
    reason: str
    peak: int | None = None
    limit: int | None = None
    holders: str = ""

    def __str__(self) -> str:
        figures = [f"{word} {size(level)}" for word, level in (("peak", self.peak), ("limit", self.limit)) if level]
        held = [f"held by {self.holders}"] if self.holders else []
        return "; ".join([f"{self.name} [{self.id}] was killed: {self.reason}", *figures, *held])


@contextmanager
def address(path: Path) -> Iterator[str]:
    """How a socket is named: by its path, or where that is too long for a name (a deep TMPDIR), by its folder's
    descriptor."""
    if len(os.fsencode(path)) <= _MAX_NAME_BYTES:
        yield str(path)
        return
    folder = os.open(path.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{folder}/{path.name}"
    finally:
        os.close(folder)


def receiver(path: Path) -> socket.socket:
    """The supervisor's end, which never blocks."""
    end = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK)
    with address(path) as name:
        end.bind(name)
    return end


class Channel:
    """The worker's end. Sending never blocks: what does not fit is dropped and counted."""

    def __init__(self, path: str) -> None:
        self._path = Path(path)
        self.folder = self._path.parent
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
        self._socket.setblocking(False)
        self._process = {"pid": os.getpid(), "start": started(os.getpid())}
        self.dropped = 0

    def send(self, topic: str, /, **fields: Any) -> bool:
        """Tell the supervisor; False when it could not be told."""
        data = msgspec.json.encode({"t": topic, **self._process, **fields})
        try:
            if len(data) <= MAX_BYTES:
                with address(self._path) as name:
                    self._socket.sendto(data, name)
                return True
        except OSError:
            pass
        self.dropped += 1
        return False

    def quarantine(self) -> frozenset[str]:
        """The names of tasks that must not run."""
        try:
            return frozenset(msgspec.json.decode((self.folder / "quarantine.json").read_bytes(), type=list[str]))
        except (OSError, msgspec.MsgspecError):
            return frozenset()

    def close(self) -> None:
        """Close the socket. Closing twice is allowed."""
        self._socket.close()


def supervised() -> Channel | None:
    """The channel to the supervisor this process runs under; None without one, or when that has gone with its folder.

    A guard that was killed leaves its workers behind, and the next one clears its folder away.
    """
    path = os.environ.get(VARIABLE, "")
    if path and not Path(path).parent.is_dir():
        log.warning("%s is gone, and the guard with it: going on unsupervised", Path(path).parent)
        return None
    return Channel(path) if path else None
