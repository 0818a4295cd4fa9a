"""How a worker is started: its environment, and the sockets that systemd has opened for it."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from flatwater.guard.channel import EVIDENCE, VARIABLE
from flatwater.guard.policy import Limits

_FIRST = 3  # of the descriptors that are passed on (sd_listen_fds(3))
# The worker's number is known in the process that becomes it: a shell names itself and gives way.
_NAMED = ("/bin/sh", "-c", 'LISTEN_PID=$$; export LISTEN_PID; exec "$@"', "sh")
# systemd's word is with the supervisor; what it said of the supervisor's own process holds for no other.
_OURS = ("NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID", "LISTEN_PIDFDID")


class Launch:
    """Starts workers of one command, each in a session of its own, so that Ctrl-C reaches the supervisor alone.

    ``socket`` is where they tell what they do. Sockets that systemd passed to this process (``LISTEN_FDS``) are passed
    on to each worker, as if systemd had started it.
    """

    def __init__(self, command: Sequence[str], socket: Path, limits: Limits, environ: Mapping[str, str]) -> None:
        self.command = list(command)
        self._socket, self._limits, self._environ = socket, limits, environ
        self._passed = tuple(range(_FIRST, _FIRST + passed(environ, os.getpid())))

    def start(self) -> subprocess.Popen[bytes]:
        """Raises OSError when the command cannot be run."""
        words = self.command  # the operator's own words, run as they are
        if self._passed:
            if shutil.which(words[0]) is None:  # the shell would start, and fail later
                raise FileNotFoundError(2, os.strerror(2), words[0])
            words = [*_NAMED, *words]
        return subprocess.Popen(words, env=self._environment(), start_new_session=True, pass_fds=self._passed)  # noqa: S603

    def _environment(self) -> dict[str, str]:
        environment = {key: value for key, value in self._environ.items() if key not in _OURS}
        environment[VARIABLE] = str(self._socket)
        if from_bytes := self._limits.soft or int(0.8 * (self._limits.hard or 0)):
            environment[EVIDENCE] = str(from_bytes)
        return environment


def passed(environ: Mapping[str, str], pid: int) -> int:
    """How many sockets were passed to the process ``pid``."""
    count = environ.get("LISTEN_FDS", "")
    return int(count) if count.isdigit() and environ.get("LISTEN_PID") == str(pid) else 0
