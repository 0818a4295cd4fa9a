"""The memory limit that the kernel holds this process to."""

from __future__ import annotations

from pathlib import Path

# What cgroup v1 shows for "no limit" is the largest multiple of the page size in 63 bits; nothing real comes near.
_UNLIMITED = 2**62


def memory_limit(pid: int | str = "self", root: Path = Path("/")) -> int | None:
    """Bytes that the process may use before the kernel kills: the tightest of its own and its ancestors' limits.

    ``memory.max`` of cgroup v2 (https://docs.kernel.org/admin-guide/cgroup-v2.html), or ``memory.limit_in_bytes`` of
    v1. None when nothing limits it, or when there are no cgroups. ``root`` is where ``/proc`` and ``/sys`` are found.
    """
    limits: list[int] = []
    for mount, file, path in _places(pid, root):
        node = mount / path.lstrip("/")
        while True:
            limit = _read(node / file)
            if limit is not None:
                limits.append(limit)
            if node == mount or mount not in node.parents:
                break
            node = node.parent
    return min(limits, default=None)


def _places(pid: int | str, root: Path) -> list[tuple[Path, str, str]]:
    try:
        lines = (root / f"proc/{pid}/cgroup").read_text("utf-8").splitlines()
    except OSError:
        return []
    places: list[tuple[Path, str, str]] = []
    base = root / "sys/fs/cgroup"
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers == "":
            places.append((base, "memory.max", path))
        elif "memory" in controllers.split(","):
            places.append((base / "memory", "memory.limit_in_bytes", path))
    return places


def _read(path: Path) -> int | None:
    try:
        text = path.read_text("utf-8").strip()
    except OSError:
        return None
    return int(text) if text.isdigit() and int(text) < _UNLIMITED else None
