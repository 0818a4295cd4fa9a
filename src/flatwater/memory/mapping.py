"""What the mappings of a process hold, by their sort: allocators' heaps, stacks, files. Linux, ``/proc/PID/smaps``."""

from __future__ import annotations

import re
from pathlib import Path

import msgspec

_LINE = re.compile(r"^([0-9a-f]+)-([0-9a-f]+) (\S{4}) \S+ \S+ \S+ *(.*)$")
_MALLOC_HEAP = 64 << 20  # glibc's secondary heaps are aligned to this (HEAP_MAX_SIZE on 64 bit)
_SHARED = ("/dev/shm", "/dev/zero", "/memfd:", "/SYSV")  # noqa: S108 (names that the kernel shows, nothing is opened)
_GUARD = 64 << 10  # a guard below a thread's stack is a page, or a few


class Mappings(msgspec.Struct, frozen=True):
    """Resident bytes by sort: malloc's main ``heap``, its ``arenas`` of other threads, thread ``stacks``, mapped
    ``files``, shared memory, and ``anonymous`` for the rest (Python's arenas and malloc's large blocks)."""

    heap: int = 0
    arenas: int = 0
    stacks: int = 0
    files: int = 0
    shared: int = 0
    anonymous: int = 0


def mappings(pid: int, *, root: Path = Path("/")) -> Mappings | None:
    """Read them now (about 1 ms per 100 MB); None without the right to, or when the process is gone."""
    try:
        text = (root / f"proc/{pid}/smaps").read_text("utf-8", "replace")
    except OSError:
        return None
    found = dict.fromkeys(Mappings.__struct_fields__, 0)
    sort, before = "", (0, "", 0)
    for line in text.splitlines():
        if match := _LINE.match(line):
            begin, end = int(match[1], 16), int(match[2], 16)
            sort = _sort(begin, end, match[3], match[4], before)
            before = (end, match[3], end - begin)
        elif line.startswith("Rss:"):
            found[sort] += int(line.split()[1]) * 1024
    return Mappings(**found)


def _sort(begin: int, end: int, rights: str, name: str, before: tuple[int, str, int]) -> str:
    if name == "[heap]":
        return "heap"
    if name.startswith("[stack"):
        return "stacks"
    if name.startswith(_SHARED) or (rights.endswith("s") and not name):
        return "shared"
    if name.startswith("/"):
        return "files"
    edge, earlier, size = before
    if edge == begin and earlier.startswith("---") and size <= _GUARD:
        return "stacks"
    if begin % _MALLOC_HEAP == 0 and end - begin < _MALLOC_HEAP and rights.startswith("rw"):
        return "arenas"
    return "anonymous"
