"""One supervised worker: a command, the processes that came of it, their level, and why it ended. Linux."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import time
from collections import deque
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

import msgspec

from flatwater.guard.oom import OomKills
from flatwater.guard.policy import Decision, Limits, Policy
from flatwater.guard.presence import Place
from flatwater.memory import procfs
from flatwater.memory.slope import Slope, slope

log = logging.getLogger("flatwater.guard")


class Ending(msgspec.Struct, frozen=True):
    """Why a worker ended: ``reason`` is recycled, stopped, exit, crash, killed (by the guard), oom or lost (SIGKILL
    from elsewhere); ``detail`` says it in words; ``failed`` is True for all but the first three.
    """

    reason: str
    detail: str
    failed: bool


class Instance:
    """A running worker in a session of its own, so that a terminal's Ctrl-C reaches the supervisor alone.

    Its base is its first level; with ``settle_s`` it may settle for so long before it is recycled.
    """

    def __init__(
        self, command: Sequence[str], environment: Mapping[str, str], warm: signal.Signals, *, settle_s: float = 0.0
    ) -> None:
        words = list(command)  # the operator's own words, run as they are
        self.process = subprocess.Popen(words, env=dict(environment), start_new_session=True)  # noqa: S603
        self.pid = self.process.pid
        self.born, self.since = time.monotonic(), time.time()
        self.level = self.highest = self.last = 0
        self.policy: Policy | None = None
        self.wanted = ""  # why it should be recycled, until it has been asked
        self.ready = False  # it has told that it takes tasks
        self.leaving = ""  # why it was asked, or leaves by itself
        self.killed = ""
        self.ending: Ending | None = None
        self.beyond_reach = False  # it runs as another user, whom we may not signal
        self._rest_since: float | None = None
        self.warm = warm
        self._settle_s = settle_s
        self._levels: deque[tuple[float, int]] = deque(maxlen=240)

    def judge(self, limits: Limits, now: float) -> Decision | None:
        """Measure, and decide; None while it has no processes."""
        self.level = tree_level(self.pid)
        if self.policy is None:
            self.policy = Policy(limits, base=self.level)
        if not self.level:
            return self.policy.judge(0, now) if self.policy.asked else None  # unreadable, or just ending
        self.last = self.level
        self.highest = max(self.highest, self.level)
        self._levels.append((now, self.level))
        if now - self.born < self._settle_s:
            self.policy.settle(self.level)
        self.policy.base = self.policy.base or self.level
        return self.policy.judge(self.level, now, self.trend())

    def place(self, number: int) -> Place:
        """What others may see of it."""
        return Place(
            place=number, pid=self.pid, since=self.since, level=self.last, highest=self.highest,
            base=self.policy.base if self.policy else 0, leaving=self.leaving,
        )  # fmt: skip

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
        """SIGKILL to it and all its descendants."""
        self.killed = self.killed or reason
        for pid in tree(self.pid):
            self._signal(pid, signal.SIGKILL)

    def send(self, number: signal.Signals) -> None:
        """A signal to its first process."""
        if self.process.returncode is None:
            self._signal(self.pid, number)

    def remains(self, now: float, rest_s: float) -> bool:
        """Whether processes of its session live on after its first one; asked to end, and killed after ``rest_s``."""
        rest = session(self.pid)
        if not rest or self.beyond_reach:
            return False
        asked, self._rest_since = self._rest_since is not None, self._rest_since or now
        over = self.killed or now - self._rest_since >= rest_s
        if over or not asked:
            log.warning("pid %d left %d processes behind: %s", self.pid, len(rest), "killed" if over else "SIGTERM")
            for pid in rest:
                self._signal(pid, signal.SIGKILL if over else signal.SIGTERM)
        return True

    def end(self, oom: OomKills) -> None:
        """Its first process has been reaped: find out why it ended, once. ``oom`` has just looked."""
        if self.ending is None:
            self.ending = self._why(oom)

    def _why(self, oom: OomKills) -> Ending:
        code = self.process.returncode
        if self.killed:
            return Ending("killed", f"killed by the guard: {self.killed}", True)
        if code == -signal.SIGKILL:
            if oom.take():
                return Ending("oom", "killed by the kernel for memory", True)
            return Ending("lost", "SIGKILL from elsewhere", True)
        if code is not None and code < 0:
            name = signal.Signals(-code).name if -code in set(signal.Signals) else f"signal {-code}"
            return self._asked(name) or Ending("crash", f"died of {name}", True)
        unasked = Ending("exit" if code == 0 else "crash", f"exit status {code}", code != 0)
        return self._asked(f"status {code}") or unasked

    def _asked(self, how: str) -> Ending | None:
        reason = "stopped" if self.leaving == "stop" else "recycled"
        return Ending(reason, f"{self.leaving} ({how})", False) if self.leaving else None

    def _signal(self, pid: int, number: signal.Signals) -> None:
        try:
            os.kill(pid, number)
        except ProcessLookupError:
            pass
        except PermissionError:
            self.beyond_reach = True
            log.error("pid %d runs as another user: it cannot be sent %s", pid, number.name)


def tree(pid: int) -> list[int]:
    """A process and all its descendants that live; those that end while it is read may be missing."""
    found, rest = [], [pid]
    while rest:
        one = rest.pop()
        found.append(one)
        with suppress(OSError):
            for task in Path(f"/proc/{one}/task").iterdir():
                with suppress(OSError):
                    rest += map(int, (task / "children").read_text("ascii").split())
    return found


def session(leader: int) -> list[int]:
    """The living processes of a session, zombies left out; by a walk over all of ``/proc``."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            fields = (process / "stat").read_text("utf-8", "replace").rpartition(")")[2].split()
            if fields[3] == str(leader) and fields[0] not in "ZX":
                found.append(int(process.name))
    return found


def tree_level(pid: int) -> int:
    """PSS of a process and its descendants together, in bytes: shared pages once. RSS where PSS may not be read."""
    total = 0
    for one in tree(pid):
        with suppress(OSError):
            memory = procfs.memory(one)
            total += memory.rss if memory.pss is None else memory.pss
    return total
