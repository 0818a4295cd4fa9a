"""Levels of this process's memory, cheap enough to read before and after each task. Linux, standard library only."""

from __future__ import annotations

import os
import resource
from contextlib import suppress

from flatwater.memory import procfs

_PAGE = os.sysconf("SC_PAGE_SIZE")


class Gauge:
    """Reads this process's level; make a new one after a fork. Bytes."""

    def __init__(self) -> None:
        self.pid = os.getpid()
        self._statm = os.open("/proc/self/statm", os.O_RDONLY | os.O_CLOEXEC)

    def rss(self) -> int:
        """Resident memory, shared pages whole; two microseconds."""
        return int(os.pread(self._statm, 64, 0).split(None, 2)[1]) * _PAGE

    def peak(self) -> int:
        """The highest RSS since the start or since ``reset_peak``; one microsecond."""
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024

    def reset_peak(self) -> None:
        """Begin a new peak, where the kernel allows it (Linux 4.0)."""
        with suppress(OSError), open("/proc/self/clear_refs", "w") as file:  # noqa: PTH123 a Path costs as much again
            file.write("5")

    def private(self) -> int:
        """USS: what the end of this process would free; about 1 ms per 100 MB."""
        memory = procfs.memory()
        return memory.uss if memory.uss is not None else memory.rss

    def close(self) -> None:
        """Let go of the file. Closing twice is allowed."""
        if self._statm >= 0:
            os.close(self._statm)
            self._statm = -1
