"""How a process ended that is not a child of this one. Linux, standard library only."""

from __future__ import annotations

import fcntl
import os
import select
import struct
from typing import Final

# include/uapi/linux/pidfd.h: struct pidfd_info, first version, 64 bytes; the answer to PIDFD_INFO_EXIT (Linux 6.15) is
# its last field, as waitpid(2) gives it.
_SIZE: Final = 64
_GET_INFO: Final = (3 << 30) | (_SIZE << 16) | (0xFF << 8) | 11
_EXIT: Final = 1 << 3
_STATUS_AT: Final = 60


class ExitWatch:
    """Holds on to one process by a pidfd, so that its pid cannot be taken for another's and its end is seen at once.

    Raises ProcessLookupError if it is gone already, OSError where the kernel has no pidfds (before 5.3).
    """

    def __init__(self, pid: int) -> None:
        self._fd = os.pidfd_open(pid)

    def ended(self) -> bool:
        """True when it has ended, reaped or not."""
        poll = select.poll()
        poll.register(self._fd, select.POLLIN)
        return bool(poll.poll(0))

    def status(self) -> int | None:
        """The wait status; None while it runs, and on kernels that do not tell (before 6.15)."""
        answer = bytearray(_SIZE)
        struct.pack_into("=Q", answer, 0, _EXIT)
        try:
            fcntl.ioctl(self._fd, _GET_INFO, answer)
        except OSError:
            return None
        mask: int = struct.unpack_from("=Q", answer)[0]
        return int(struct.unpack_from("=i", answer, _STATUS_AT)[0]) if mask & _EXIT else None

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


def watch(pid: int) -> ExitWatch | None:
    """A watch if one can be had: None for a process that has gone, no pidfds, or no descriptors left."""
    try:
        return ExitWatch(pid)
    except (OSError, AttributeError):
        return None


def ending(status: int | None, *, oom: bool = False) -> str:
    """A wait status in words: ``exit 1``, ``signal 9 (SIGKILL), killed for memory``, ``ended``."""
    if status is None:
        words = "ended"
    elif number := status & 127:
        words = f"signal {number}{_signal_name(number)}"
    else:
        words = f"exit {status >> 8 & 255}"
    return f"{words}, killed for memory" if oom else words


def _signal_name(number: int) -> str:
    import signal

    try:
        return f" ({signal.Signals(number).name})"
    except ValueError:
        return ""
