"""Which processes run: one cheap look at ``/proc``. Linux.

A look reads one file per process (``stat``); command lines are remembered. 100 processes take about 2 ms.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

TICKS_PER_S: Final = os.sysconf("SC_CLK_TCK")
PAGE: Final = os.sysconf("SC_PAGE_SIZE")

# proc(5), from the field after the name on; what procpath calls them, too.
FIELDS: Final = (
    *("state", "ppid", "pgrp", "session", "tty_nr", "tpgid", "flags", "minflt", "cminflt", "majflt", "cmajflt"),
    *("utime", "stime", "cutime", "cstime", "priority", "nice", "num_threads", "itrealvalue", "starttime"),
    *("vsize", "rss"),
)
_EXIT_CODE: Final = 49  # counted from the state; readable of a zombie by its user

# A process just started may still be a copy of its parent (between fork and exec): look again until it is this old.
YOUNG_S: Final = 3.0
REREAD_S: Final = 10.0
_READ: Final = 4096
MAX_COMMAND: Final = 4096


@dataclass(slots=True)
class Process:
    """One process as ``stat`` shows it: sizes in bytes, times in clock ticks, ``start`` in ticks since boot.

    (pid, start) names a process for as long as the machine runs: a pid alone is used again.
    """

    pid: int
    start: int
    ppid: int
    name: str
    state: str
    rss: int
    vms: int
    user: int
    system: int
    threads: int
    minor_faults: int
    major_faults: int
    status: int | None
    raw: tuple[str, ...] = field(repr=False)
    command: str = ""

    @property
    def key(self) -> tuple[int, int]:
        return self.pid, self.start

    @property
    def alive(self) -> bool:
        """False for zombies and the dead: they hold no memory."""
        return self.state not in "ZX"

    def document(self) -> dict[str, Any]:
        """The process as procpath shows it to a JSONPath: ``stat`` (rss in pages) and ``cmdline``."""
        stat: dict[str, Any] = {"pid": self.pid, "comm": self.name, "state": self.state}
        stat.update((name, int(value)) for name, value in zip(FIELDS[1:], self.raw[1:], strict=False))
        return {"stat": stat, "cmdline": self.command, "children": []}


def read(pid: int, root: str = "/proc") -> Process | None:
    """One process without its command line; None when it is gone or may not be seen."""
    line = content(f"{root}/{pid}/stat")
    if line is None:
        return None
    # The name stands in parentheses and may hold anything, parentheses and spaces too.
    opening, closing = line.find(b"("), line.rfind(b")")
    raw = line[closing + 2 :].decode("ascii", "replace").split()
    if opening < 0 or len(raw) < len(FIELDS):
        return None
    return Process(
        pid=pid,
        start=int(raw[19]),
        ppid=int(raw[1]),
        name=line[opening + 1 : closing].decode("utf-8", "replace"),
        state=raw[0],
        rss=int(raw[21]) * PAGE,
        vms=int(raw[20]),
        user=int(raw[11]),
        system=int(raw[12]),
        threads=int(raw[17]),
        minor_faults=int(raw[7]),
        major_faults=int(raw[9]),
        status=int(raw[_EXIT_CODE]) if raw[0] == "Z" and len(raw) > _EXIT_CODE else None,
        raw=tuple(raw[: len(FIELDS)]),
    )


def content(path: str, size: int = _READ) -> bytes | None:
    """The first ``size`` bytes of a file of ``/proc``; None when it is gone or may not be read."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        return os.read(descriptor, size)
    except OSError:  # ESRCH: it ended between open and read
        return None
    finally:
        os.close(descriptor)


class Scanner:
    """Looks at all processes again and again. What it remembers (command lines) is of living processes only."""

    def __init__(self, root: Path = Path("/proc")) -> None:
        self._root = str(root)
        self._commands: dict[tuple[int, int], tuple[str, str, float]] = {}  # process → name, command, when read

    def look(self, now: float) -> Table:
        """All processes. ``now``: seconds since boot (CLOCK_BOOTTIME), which the age of processes is counted in."""
        found: dict[int, Process] = {}
        for entry in os.listdir(self._root):  # noqa: PTH208 (thousands of Path objects a second)
            if entry.isdigit() and (process := read(int(entry), self._root)) is not None:
                process.command = self._command(process, now)
                found[process.pid] = process
        keys = {process.key for process in found.values()}
        self._commands = {key: known for key, known in self._commands.items() if key in keys}
        return Table(found)

    def again(self, process: Process, now: float) -> Process | None:
        """One process of an earlier look; None when it has ended, or its pid belongs to another one now."""
        current = read(process.pid, self._root)
        if current is None or current.start != process.start:
            return None
        current.command = self._command(current, now)
        return current

    def _command(self, process: Process, now: float) -> str:
        known = self._commands.get(process.key)
        if known is not None:
            name, command, read_at = known
            young = now - process.start / TICKS_PER_S < YOUNG_S
            if name == process.name and not young and now - read_at < REREAD_S:
                return command
        raw = content(f"{self._root}/{process.pid}/cmdline", MAX_COMMAND) or b""
        command = raw.rstrip(b"\0").replace(b"\0", b" ").decode("utf-8", "replace").strip()
        if not command and known is not None and known[1]:
            # A zombie has lost its own; between the steps of an exec nobody has one: the old name has it read again.
            self._commands[process.key] = known
            return known[1]
        self._commands[process.key] = (process.name, command, now)
        return command


class Table(Mapping[int, Process]):
    """The processes of one look, by pid."""

    def __init__(self, found: dict[int, Process]) -> None:
        self._found = found
        self._children: dict[int, list[int]] = {}
        for process in found.values():
            self._children.setdefault(process.ppid, []).append(process.pid)

    def __getitem__(self, pid: int) -> Process:
        return self._found[pid]

    def __iter__(self) -> Iterator[int]:
        return iter(self._found)

    def __len__(self) -> int:
        return len(self._found)

    def below(self, roots: set[int], without: frozenset[int] = frozenset()) -> set[int]:
        """``roots`` and all their descendants, except ``without`` and what is below these."""
        reached: set[int] = set()
        stack = [pid for pid in roots if pid in self._found]
        while stack:
            pid = stack.pop()
            if pid in reached or pid in without:
                continue
            reached.add(pid)
            stack.extend(self._children.get(pid, ()))
        return reached

    def above(self, pid: int) -> frozenset[int]:
        """The ancestors of ``pid``, without itself."""
        found: set[int] = set()
        while (process := self._found.get(pid)) is not None and process.ppid not in found:
            pid = process.ppid
            found.add(pid)
        return frozenset(found)

    def document(self) -> dict[str, Any]:
        """The forest as procpath's document: ``{"children": [{"stat": …, "cmdline": …, "children": […]}]}``."""
        nodes = {pid: process.document() for pid, process in sorted(self._found.items())}
        roots: list[dict[str, Any]] = []
        for pid, node in nodes.items():
            parent = nodes.get(self._found[pid].ppid)
            (roots if parent is None or parent is node else parent["children"]).append(node)
        return {"children": roots}
