"""Levels of this process's memory, cheap enough to read before and after each task. Linux, standard library only."""

from __future__ import annotations

import ctypes
import os
from contextlib import suppress
from functools import partial
from resource import getrusage

_PAGE = os.sysconf("SC_PAGE_SIZE")
_ROLLUP = os.access("/proc/self/smaps_rollup", os.R_OK)
_THREAD = 1  # RUSAGE_THREAD, whose maximum is the process's as well; of SELF the kernel adds up all threads first


class _Text:
    """A small file of /proc, kept open and read without giving up the GIL: to get it back may take 5 ms."""

    def __init__(self, path: str, size: int) -> None:
        self._descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        self._buffer = ctypes.create_string_buffer(size)
        place = ctypes.c_void_p(ctypes.addressof(self._buffer))
        pread = ctypes.PyDLL(None)["pread"]
        self._read = partial(pread, ctypes.c_int(self._descriptor), place, ctypes.c_size_t(size - 1), ctypes.c_long(0))

    def read(self) -> bytes:
        """What the file says now; behind it there may be a rest of what it said before."""
        self._read()
        return self._buffer.value

    def close(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1


class Gauge:
    """Reads this process's level; make a new one after a fork. Bytes."""

    def __init__(self) -> None:
        self._statm, self._status = _Text("/proc/self/statm", 128), _Text("/proc/self/status", 4096)
        self._rollup = _Text("/proc/self/smaps_rollup", 4096) if _ROLLUP else None  # Linux 4.14
        self._former = 0
        known = getrusage(_THREAD).ru_maxrss * 1024
        self.inherited = known if known > self._highest() else 0

    def rss(self) -> int:
        """Resident memory, shared pages whole; two microseconds."""
        return int(self._statm.read().split(None, 2)[1]) * _PAGE

    def peak(self) -> int:
        """The highest RSS since the start or since ``reset_peak``; one microsecond.

        The kernel passes a maximum on to a program that is executed: below what its parent once had, ten microseconds.
        """
        peak = getrusage(_THREAD).ru_maxrss * 1024
        return peak if peak > self.inherited else self._highest()

    def highest(self) -> int:
        """The highest RSS since this gauge was made, whatever peaks were begun anew since."""
        return max(self._former, self.peak())

    def usage(self) -> tuple[int, int]:
        """``peak`` and the page faults of this thread: without a new one its tasks have not raised the level."""
        usage = getrusage(_THREAD)
        peak = usage.ru_maxrss * 1024
        return (peak if peak > self.inherited else self._highest()), usage.ru_minflt

    def reset_peak(self) -> None:
        """Begin a new peak, where the kernel allows it (Linux 4.0)."""
        self._former = max(self._former, self.peak())
        with suppress(OSError), open("/proc/self/clear_refs", "w") as file:  # noqa: PTH123 a Path costs as much again
            file.write("5")

    def private(self) -> int:
        """USS: what the end of this process would free; about 1 ms per 100 MB. RSS where the kernel does not tell."""
        if self._rollup is None:
            return self.rss()
        text = self._rollup.read()
        return _kilobytes(text, b"Private_Clean:") + _kilobytes(text, b"Private_Dirty:")

    def close(self) -> None:
        """Let go of the files. Closing twice is allowed."""
        self._statm.close()
        self._status.close()
        if self._rollup is not None:
            self._rollup.close()

    def _highest(self) -> int:
        return _kilobytes(self._status.read(), b"VmHWM:")


def _kilobytes(text: bytes, field: bytes) -> int:
    at = text.index(field) + len(field)
    return int(text[at : text.index(b"kB", at)]) * 1024
