"""One supervised worker: a command, the processes that came of it, their level, and why it ended. Linux."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections import deque
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

import msgspec

from flatwater.guard.policy import Decision, Limits, Policy
from flatwater.memory import procfs
from flatwater.memory.slope import Slope, slope


class Ending(msgspec.Struct, frozen=True):
    """Why a worker ended: ``reason`` is recycled, stopped, exit, crash, killed (by the guard), oom or lost (SIGKILL
    from elsewhere); ``detail`` says it in words; ``failed`` is True for all but the first three.
    """

    reason: str
    detail: str
    failed: bool


class Instance:
    """A running worker in a session of its own, so that a terminal's Ctrl-C reaches the supervisor alone."""

    def __init__(self, command: Sequence[str], environment: Mapping[str, str], warm: signal.Signals) -> None:
        words = list(command)  # the operator's own words, run as they are
        self.process = subprocess.Popen(words, env=dict(environment), start_new_session=True)  # noqa: S603
        self.pid = self.process.pid
        self.born = time.monotonic()
        self.kills = oom_kills(self.pid)
        self.level = self.highest = self.last = 0
        self.policy: Policy | None = None
        self.wanted = ""  # why it should be recycled, until it has been asked
        self.leaving = ""  # why it was asked, or leaves by itself
        self.killed = ""
        self.warm = warm
        self._levels: deque[tuple[float, int]] = deque(maxlen=240)

    def judge(self, limits: Limits, now: float) -> Decision | None:
        """Measure, and decide; None while it has no processes. Its first levels, until 3 s old, are its base."""
        self.level = tree_level(self.pid)
        if not self.level:
            return None
        self.last = self.level
        self.highest = max(self.highest, self.level)
        self._levels.append((now, self.level))
        if self.policy is None:
            self.policy = Policy(limits, base=self.level)
        return self.policy.judge(self.level, now, self.trend())

    def trend(self) -> Slope | None:
        """The slope of the level over the last samples; None before there are twenty."""
        return slope(list(self._levels)) if len(self._levels) >= 20 else None

    def stop(self, reason: str) -> None:
        """Ask for the warm stop, once."""
        if not self.leaving:
            self.leaving = reason
            self.send(self.warm)
        if self.policy is not None:
            self.policy.ask()

    def kill(self, reason: str) -> None:
        """SIGKILL to the whole session."""
        self.killed = self.killed or reason
        for pid in tree(self.pid):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def send(self, number: signal.Signals) -> None:
        """A signal to its first process."""
        if self.process.returncode is None:
            with suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def ending(self) -> Ending:
        """Why it ended; its process has been reaped."""
        code = self.process.returncode
        if self.killed:
            return Ending("killed", f"killed by the guard: {self.killed}", True)
        if code is not None and code < 0:
            name = signal.Signals(-code).name if -code in set(signal.Signals) else f"signal {-code}"
            if code == -signal.SIGKILL:
                oom = oom_kills(os.getpid()) > self.kills
                detail = "killed by the kernel for memory" if oom else "SIGKILL from elsewhere"
                return Ending("oom" if oom else "lost", detail, True)
            if self.leaving:
                return Ending("recycled", f"{self.leaving} ({name})", False)
            return Ending("crash", f"died of {name}", True)
        if self.leaving:
            reason = "stopped" if self.leaving == "stop" else "recycled"
            return Ending(reason, f"{self.leaving} (status {code})", False)
        return Ending("exit" if code == 0 else "crash", f"exit status {code}", code != 0)


def tree(pid: int) -> list[int]:
    """A process and all its descendants that live."""
    found, rest = [], [pid]
    while rest:
        one = rest.pop()
        found.append(one)
        for task in Path(f"/proc/{one}/task").glob("*/children"):
            with suppress(OSError):
                rest += map(int, task.read_text("ascii").split())
    return found


def tree_level(pid: int) -> int:
    """PSS of a process and its descendants together, in bytes: shared pages once. RSS where PSS may not be read."""
    total = 0
    for one in tree(pid):
        with suppress(OSError):
            memory = procfs.memory(one)
            total += memory.rss if memory.pss is None else memory.pss
    return total


def oom_kills(pid: int) -> int:
    """How many processes of the tightest control group the kernel has killed for memory."""
    group = procfs.cgroup(pid)
    return group.oom_kills if group is not None else 0
