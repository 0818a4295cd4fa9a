"""What agents tell of the processes they live in, for the recorder: asked where one listens, never put anywhere.

A thread of its own asks, so that a process that is stopped or busy holds up nobody.
"""

from __future__ import annotations

import json
import os
import queue
import socket
import struct
import threading
import time
from contextlib import suppress
from typing import Any, Final, NamedTuple, Self

from flatwater.bounded.ledger import Usage
from flatwater.memory import protocol
from flatwater.memory.refusal import environment

POOLS_S: Final = 60.0  # looking for pools and ledgers costs the process about a full collection
HOLDERS_S: Final = 600.0  # between looks at a process's ledgers; more often at first: a fiftieth of what was followed
MAX_HOLDERS: Final = 20  # bounded holders of a process, the fullest
HOLDER: Final = "ledger:"  # begins the names of holders' figures: entries, …
HOLDER_BYTES: Final = "ledger_bytes:"
HOLDER_BOUND: Final = "ledger_bound:"  # … and the entries that it may have
_BOUNDS_S: Final = 3600.0
_MAX_KNOWN: Final = 200
_ABSENT_S: Final = 60.0  # how soon to look again where no agent listened
_MAX_ANSWER: Final = 1 << 20


class Told(NamedTuple):
    """A figure of a recorded process."""

    process: int
    figure: str
    value: float


class AgentStatistics(Usage, frozen=True, kw_only=True):
    """``size`` questions wait, of ``bound``; asked and answered since the start."""

    asked: int
    answered: int


class AgentFigures:
    """``want`` asks for a process's figures, ``take`` gives what has been told since.

    ``timeout_s`` bounds an answer, ``max_pending`` the questions that wait.
    """

    kind = "agent figures"

    def __init__(self, *, timeout_s: float = 5.0, max_pending: int = 200, name: str = "agent figures") -> None:
        self.name = name
        self._timeout_s = timeout_s
        self._max_pending = max_pending
        self._wanted: queue.Queue[tuple[int, int] | None] = queue.Queue(max_pending)
        self._told: queue.SimpleQueue[Told] = queue.SimpleQueue()
        self._pending: set[int] = set()
        self._absent: dict[int, float] = {}
        self._pools_at: dict[int, float] = {}
        self._holders_at: dict[int, tuple[float, float]] = {}  # first, and last
        self._bounds: dict[int, tuple[float, dict[str, int]]] = {}  # when they were told first, and what
        self._asked = self._answered = self._refused = 0
        self._closing = False
        self._thread: threading.Thread | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def want(self, process: int, pid: int) -> None:
        """Ask ``pid``'s agent, if one listens; nothing happens while the last question is open."""
        if process in self._pending or self._absent.get(process, 0.0) > time.monotonic() or not _sockets(pid):
            return
        if self._thread is None:
            self._thread = threading.Thread(target=self._work, name="flatwater-agents", daemon=True)
            self._thread.start()
        try:
            self._wanted.put_nowait((process, pid))
            self._pending.add(process)
        except queue.Full:
            self._refused += 1

    def forget(self, process: int) -> None:
        """It ended."""
        self._absent.pop(process, None)
        self._pools_at.pop(process, None)
        self._holders_at.pop(process, None)
        self._bounds.pop(process, None)

    def take(self) -> list[Told]:
        """What was told since the last call."""
        found = []
        while not self._told.empty():
            found.append(self._told.get())
        return found

    def statistics(self) -> AgentStatistics:
        return AgentStatistics(
            size=len(self._pending),
            bound=self._max_pending,
            evictions=self._refused,
            asked=self._asked,
            answered=self._answered,
        )

    def close(self) -> None:
        """Returns once an open question is answered or given up."""
        thread, self._thread = self._thread, None
        if thread is not None:
            self._closing = True
            self._wanted.put(None)
            thread.join(2 * self._timeout_s)

    def _work(self) -> None:
        while (item := self._wanted.get()) is not None:
            process, pid = item
            self._asked += 1
            told = [] if self._closing else self._ask(process, pid)
            if told:
                self._answered += 1
            else:
                self._absent[process] = time.monotonic() + _ABSENT_S
            for figure, value in told:
                self._told.put(Told(process, figure, value))
            self._pending.discard(process)

    def _ask(self, process: int, pid: int) -> list[tuple[str, float]]:
        for path in _sockets(pid):
            try:
                with _connected(path, pid, self._timeout_s) as connection:
                    now = time.monotonic()
                    seldom = now - self._pools_at.get(process, float("-inf")) >= POOLS_S
                    found = figures(_answer(connection, "usage", {"shares": seldom}))
                    if seldom:
                        self._pools_at[process] = now
                        with suppress(KeyError):  # an agent that knows no pools, or no ledgers
                            found += pool_figures(_answer(connection, "pools", {}))
                            if self._holders_due(process, now):
                                rows = _answer(connection, "ledger", {"limit": MAX_HOLDERS})
                                found += holder_figures(rows) + self._new_bounds(process, rows, now)
                    return found
            except (OSError, ValueError, KeyError, TypeError):  # it ended, is stopped, or is of another version
                continue
        return []

    def _holders_due(self, process: int, now: float) -> bool:
        """Twenty holders each minute would fill the recording of a month."""
        first, last = self._holders_at.get(process, (now, float("-inf")))
        if now - last < min(HOLDERS_S, (now - first) / 50):
            return False
        self._holders_at[process] = first, now
        return True

    def _new_bounds(self, process: int, rows: list[dict[str, Any]], now: float) -> list[tuple[str, float]]:
        """The bounds that were not told in the last hour: they hardly ever change."""
        begun, known = self._bounds.get(process, (now, {}))
        if now - begun >= _BOUNDS_S or len(known) > _MAX_KNOWN:
            begun, known = now, {}
        new = {row["name"]: row["bound"] for row in rows if known.get(row["name"]) != row["bound"]}
        self._bounds[process] = begun, known | new
        return [(HOLDER_BOUND + name, float(bound)) for name, bound in new.items()]


def figures(usage: dict[str, Any]) -> list[tuple[str, float]]:
    """:class:`flatwater.memory.usage.Usage`, as JSON, flat: names and numbers.

    ``arenas``, where USS was read, is what is neither shared nor malloc's: pymalloc's arenas first of all.
    """
    collector, malloc = usage["collector"], usage["malloc"] or {}
    found = {"blocks": usage["blocks"], "tasks": usage["tasks"]}
    found |= {f"malloc_{name}": malloc.get(name) for name in ("heap", "mapped", "used", "free", "top")}
    found |= {
        "gc_enabled": int(collector["enabled"]),
        "gc_frozen": collector["frozen"],
        "gc_collections": sum(collector["collections"]),
        "gc_collected": collector["collected"],
        "gc_uncollectable": collector["uncollectable"],
    }
    if malloc and (private := usage["memory"].get("uss")) is not None:
        found["arenas"] = max(0, private - malloc["used"] - malloc["free"] - malloc["mapped"])
    return [(name, float(value)) for name, value in found.items() if value is not None]


def holder_figures(rows: list[dict[str, Any]]) -> list[tuple[str, float]]:
    """What bounded holders hold, by name."""
    found = [(HOLDER + row["name"], float(row["size"])) for row in rows]
    return found + [(HOLDER_BYTES + row["name"], float(row["bytes"])) for row in rows if row["bytes"] is not None]


def pool_figures(pools: list[dict[str, Any]]) -> list[tuple[str, float]]:
    """All SQLAlchemy pools of the process together; nothing where there is none."""
    return [
        (f"pool_{name}", float(sum(max(0, pool[name] or 0) for pool in pools)))
        for name in ("size", "checked_out", "overflow")
        if pools
    ]


def _sockets(pid: int) -> list[str]:
    """Where an agent of ``pid`` has its socket, if it has one that can be trusted."""
    found = []
    try:
        uid = os.stat(f"/proc/{pid}").st_uid  # noqa: PTH116
        folders = protocol.directories(uid, environment(pid))
    except (OSError, ValueError):
        return []
    for folder in folders:
        path = f"{folder}/{pid}.sock"
        try:
            if os.path.exists(path):  # noqa: PTH110
                protocol.check_directory(folder, uid)
                found.append(path)
        except OSError:
            continue
    return found


def _connected(path: str, pid: int, timeout_s: float) -> socket.socket:
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        connection.settimeout(timeout_s)
        connection.connect(path)
        peer, _, _ = struct.unpack("3i", connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
        if peer != pid:
            raise OSError("another process listens there")
    except BaseException:
        connection.close()
        raise
    return connection


def _answer(connection: socket.socket, name: str, arguments: dict[str, Any]) -> Any:
    connection.sendall(protocol.request(name, arguments))
    line = bytearray()
    while not line.endswith(b"\n"):
        part = connection.recv(65536)
        if not part or len(line) > _MAX_ANSWER:
            raise OSError("no whole answer")
        line += part
    return json.loads(line)["ok"]
