"""What a control group used and suffered, by its path. Linux, both versions of cgroups, standard library only."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from flatwater.memory import procfs


@dataclass(frozen=True, slots=True)
class GroupFigures:
    """Bytes and counts. ``file`` is page cache that the kernel gives back when memory is short: ``used - file`` is what
    cannot be had back. ``oom_kills`` and ``highs`` (slowed down at ``memory.high``) count since the group was made.
    """

    path: str
    used: int | None
    file: int | None
    limit: int | None
    oom_kills: int
    highs: int

    @property
    def held(self) -> int | None:
        """What the limit is really compared with: used without the cache that can be dropped."""
        return None if self.used is None else max(0, self.used - (self.file or 0))


def of(pid: int, root: Path = Path("/")) -> GroupFigures | None:
    """The group of ``pid`` (or an ancestor of it) whose limit is tightest; None without cgroups."""
    found = procfs.cgroup(pid, root=root)
    return None if found is None else figures(found.path, root)


def own_use() -> tuple[int, int]:
    """Bytes in use and their limit: of this process's control group where that is tighter than the machine, page cache
    that can be dropped not counted; else this process's RSS and the machine's memory."""
    process = procfs.memory(shares=False)
    group = of(os.getpid())
    if group is not None and group.held is not None and group.limit is not None and group.limit < process.total:
        return group.held, group.limit
    return process.rss, process.total


def figures(path: str, root: Path = Path("/")) -> GroupFigures:
    """The figures of the group at ``path`` under the mount, as :attr:`procfs.Cgroup.path` has it."""
    mount = root / "sys/fs/cgroup"
    first = (mount / "memory/memory.limit_in_bytes").exists()
    place = (mount / "memory" if first else mount) / path.strip("/")
    if first:
        kills = _pairs(place / "memory.oom_control").get("oom_kill", 0)
        return GroupFigures(
            path,
            _number(place / "memory.usage_in_bytes"),
            _pairs(place / "memory.stat").get("total_inactive_file"),
            _number(place / "memory.limit_in_bytes"),
            kills,
            _number(place / "memory.failcnt") or 0,
        )
    events = _pairs(place / "memory.events")
    return GroupFigures(
        path,
        _number(place / "memory.current"),
        _pairs(place / "memory.stat").get("inactive_file"),
        _number(place / "memory.max"),
        events.get("oom_kill", 0),
        events.get("high", 0),
    )


def machine_oom_kills(root: Path = Path("/")) -> int:
    """Processes that the kernel has killed for memory since boot, in any group or none."""
    return _pairs(root / "proc/vmstat").get("oom_kill", 0)


def _pairs(path: Path) -> dict[str, int]:
    try:
        lines = path.read_text("ascii").splitlines()
    except OSError:
        return {}
    words = (line.split() for line in lines)
    return {pair[0]: int(pair[1]) for pair in words if len(pair) == 2 and pair[1].isdigit()}


def _number(path: Path) -> int | None:
    try:
        text = path.read_text("ascii").strip()
    except OSError:
        return None
    return int(text) if text.isdigit() and int(text) < 2**62 else None
