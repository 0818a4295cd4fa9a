"""What the kernel says of a process's memory and of the limit it lives under. Linux, standard library only.

Sizes are bytes. Every function takes a pid ("self" for this process) and ``root``, where ``/proc`` and ``/sys`` are
found. ProcessLookupError: no such process. PermissionError: another user's; the figures that need rights are None
where the rest can be had without.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

_PAGE = os.sysconf("SC_PAGE_SIZE")
# What cgroup v1 shows for "no limit" is the largest multiple of the page size in 63 bits; nothing real comes near.
_UNLIMITED = 2**62


@dataclass(frozen=True, slots=True)
class ProcessMemory:
    """Memory of one process, in bytes.

    ``rss`` counts shared pages whole, ``pss`` by its share of them, ``uss`` not at all: what its end would free. The
    last three are None without the right to read ``smaps_rollup``, or when they were not asked for.
    """

    rss: int
    vms: int
    total: int
    threads: int
    pss: int | None = None
    uss: int | None = None
    swap: int | None = None

    @property
    def percent(self) -> float:
        """RSS of the machine's memory, in percent."""
        return 100 * self.rss / self.total if self.total else 0.0


@dataclass(frozen=True, slots=True)
class Cgroup:
    """The control group whose memory limit is the tightest among a process's own and its ancestors'.

    ``limit`` is None when nothing limits the process; ``used`` is what that group's processes use together, page cache
    included; ``oom_kills`` how many of them the kernel has killed for memory.
    """

    path: str
    limit: int | None
    used: int | None
    oom_kills: int


def memory(pid: int | str = "self", *, shares: bool = True, root: Path = Path("/")) -> ProcessMemory:
    """RSS, VMS and threads; with ``shares`` PSS, USS and swap too, which cost the kernel a walk over the page table."""
    proc = root / f"proc/{pid}"
    try:
        vms, rss = (int(field) * _PAGE for field in (proc / "statm").read_text("ascii").split()[:2])
        status = _fields(proc / "status")
    except FileNotFoundError:
        raise ProcessLookupError(f"there is no process {pid}") from None
    rollup = _rollup(proc / "smaps_rollup") if shares else {}
    total = _fields(root / "proc/meminfo").get("MemTotal", 0)
    uss = rollup["Private_Clean"] + rollup["Private_Dirty"] if rollup else None
    return ProcessMemory(rss, vms, total, status.get("Threads", 0), rollup.get("Pss"), uss, rollup.get("Swap"))


def cgroup(pid: int | str = "self", *, root: Path = Path("/")) -> Cgroup | None:
    """The group that will hit its limit first; without any limit the process's own. None where there are no cgroups."""
    groups = [group for place in _places(pid, root) for group in _upwards(*place)]
    limited = [group for group in groups if group.limit is not None]
    return min(limited, key=lambda group: group.limit or 0, default=groups[0] if groups else None)


def kill_counters(pid: int | str = "self", *, root: Path = Path("/")) -> tuple[Path, ...]:
    """The files where the kernel counts its kills for memory among the processes of the process's own group.

    Version 1 counts a kill in the group of the killed process alone, even when an ancestor's limit was reached. Where
    no group counts, the file is that of the whole machine. Empty for a process that is gone. Read by :func:`kills`.
    """
    places = _places(pid, root)
    found = [_own(*place) / ("memory.events" if place[2] else "memory.oom_control") for place in places]
    counting = tuple(path for path in found if path.exists())
    return counting or ((root / "proc/vmstat",) if (root / f"proc/{pid}").exists() else ())


def kills(counter: Path) -> int:
    """How many processes the kernel has killed for memory, by one of :func:`kill_counters`; 0 for one that is gone."""
    try:
        words = counter.read_text("ascii").split()
    except OSError:
        return 0
    return int(words[words.index("oom_kill") + 1]) if "oom_kill" in words else 0


def _own(mount: Path, node: Path, _: bool) -> Path:
    """The group itself; in a container without a namespace of its own, where the mount shows it."""
    while not node.is_dir() and node != mount and node.is_relative_to(mount):
        node = node.parent
    return node


def _fields(path: Path) -> dict[str, int]:
    """``Name:  number [kB]`` lines as bytes or plain numbers."""
    found: dict[str, int] = {}
    for line in path.read_text("utf-8", "replace").splitlines():
        name, _, rest = line.partition(":")
        number, _, unit = rest.strip().partition(" ")
        if number.isdigit():
            found[name] = int(number) * (1024 if unit == "kB" else 1)
    return found


def _rollup(path: Path) -> dict[str, int]:
    try:
        return _fields(path)
    except (PermissionError, FileNotFoundError, ProcessLookupError):  # another user's, an old kernel, just gone
        return {}


def _places(pid: int | str, root: Path) -> list[tuple[Path, Path, bool]]:
    """The mount, the process's own group in it, and whether it is cgroup v2."""
    try:
        lines = (root / f"proc/{pid}/cgroup").read_text("utf-8").splitlines()
    except OSError:
        return []
    base = root / "sys/fs/cgroup"
    places = []
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers == "":
            places.append((base, base / path.lstrip("/"), True))
        elif "memory" in controllers.split(","):
            places.append((base / "memory", base / "memory" / path.lstrip("/"), False))
    return places


def _upwards(mount: Path, node: Path, second: bool) -> list[Cgroup]:
    limit, used = ("memory.max", "memory.current") if second else ("memory.limit_in_bytes", "memory.usage_in_bytes")
    events = "memory.events" if second else "memory.oom_control"
    found = []
    while node.is_relative_to(mount):
        if node.is_dir():
            name = "/" + str(node.relative_to(mount)).lstrip(".")
            found.append(Cgroup(name, _number(node / limit), _number(node / used), kills(node / events)))
        node = node.parent
    return found


def _number(path: Path) -> int | None:
    try:
        text = path.read_text("ascii").strip()
    except OSError:
        return None
    return int(text) if text.isdigit() and int(text) < _UNLIMITED else None
