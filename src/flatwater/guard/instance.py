"""One supervised worker: a command, the processes that came of it, their level, and why it ended. Linux."""

from __future__ import annotations

import logging
import os
import signal
import time
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from functools import partial
from itertools import takewhile
from pathlib import Path

import msgspec

from flatwater.guard.flight import started
from flatwater.guard.language import addressees, is_wrapper, language, stays, warm_signal
from flatwater.guard.launch import Launch
from flatwater.guard.oom import OomKills
from flatwater.guard.pace import Pace
from flatwater.guard.policy import Decision, Limits, Policy
from flatwater.guard.presence import Place
from flatwater.memory import procfs
from flatwater.memory.slope import Slope, slope

log = logging.getLogger("flatwater.guard")

_PAGE = os.sysconf("SC_PAGE_SIZE")
_LOOK_S = 0.25  # between two walks over all processes
_AGAIN_S = 10.0  # a wrapper that has started another worker is asked again
_FLAT_S, _FLAT_BYTES, _FLAT_PART = 3.0, 1 << 20, 0.02  # a level that stays so long within so much has settled


class Ending(msgspec.Struct, frozen=True):
    """Why a worker ended: ``reason`` is recycled, stopped, exit, crash, killed (by the guard), oom or lost (SIGKILL
    from elsewhere); ``detail`` says it in words; ``failed`` is True for all but the first three.
    """

    reason: str
    detail: str
    failed: bool


class Instance:
    """A running worker in a session of its own.

    ``base`` is what it held when it had started: at its word that it takes tasks, else when its level had been flat
    for three seconds or it was ``started_s`` old; 0 until then. With ``settle_s`` it may settle for so long before it
    is recycled. ``warm`` is the signal of the warm stop, else told from the command line of who gets it.
    """

    def __init__(
        self,
        launch: Launch,
        limits: Limits,
        *,
        warm: signal.Signals | None = None,
        settle_s: float = 0.0,
        started_s: float = 10.0,
    ) -> None:
        self.process = launch.start()
        self.pid = self.process.pid
        self.born, self.since = time.monotonic(), time.time()
        self.level = self.highest = self.last = self.base = 0
        self.levels: dict[int, int] = {}  # of each process when it was last measured
        self.policy = Policy(limits, base=0)
        self.due = ""  # why it should be recycled, by the policy
        self.wanted = ""  # why it is going to be, until it has been asked
        self.ready = False  # it has told that it takes tasks
        self.leaving = ""  # why it was asked, or leaves by itself
        self.killed = ""
        self.hasty = False  # it was born so large that it had to be recycled at once
        self.ending: Ending | None = None
        self.beyond_reach = False  # it runs as another user, whom we may not signal
        self.wrapped = is_wrapper(launch.command)  # its first process is a shell or the like
        self._command, self._grace_s = launch.command, limits.grace_s
        self._rest_since: float | None = None
        self._rest_at = -float("inf")
        self._warm = warm
        self._asked: dict[int, str] = {}  # who got the warm signal, with the start of each
        self._asked_at = 0.0
        self._settle_s, self._started_s = settle_s, started_s
        self._pace = Pace(limits)
        self._trend: Slope | None = None
        self._levels: deque[tuple[float, int]] = deque(maxlen=240)

    @property
    def first(self) -> int:
        """Its level when it had started, or before that when it was first measured."""
        return self.base or self.policy.base

    def look(self) -> int:
        """The level now, whether it is time to measure or not."""
        self._measure(time.monotonic())
        return self.level

    def takes_tasks(self) -> None:
        """It has told that it does: what it holds now is its base."""
        if not self.ready:
            self.ready = True
            self.look()

    def judge(self, now: float) -> Decision | None:
        """Measure when it is time to, and decide; None while it has no processes."""
        if self._pace.due(now, partial(tree_rss, self.pid)):
            self._measure(now)
        if self.leaving:
            self._ask_again(now)
        if not self.level:
            return self.policy.judge(0, now) if self.policy.asked else None  # unreadable, or just ending
        return self.policy.judge(self.level, now, self._trend)

    def _measure(self, now: float) -> None:
        began = time.perf_counter()
        self.levels, rss = measured(self.pid)
        self.level = sum(self.levels.values())
        self._pace.measured(now, self.level, rss, time.perf_counter() - began)
        if words(self.pid):  # else a zombie
            self.wrapped = stays(self.pid, words, children)
        if not self.level:
            return
        self.last = self.level
        self.highest = max(self.highest, self.level)
        self._levels.append((now, self.level))
        self._trend = slope(list(self._levels)) if len(self._levels) >= 20 else None
        if now - self.born < self._settle_s:
            self.policy.settle(self.level)
        self.policy.base = self.policy.base or self.level
        if not self.base and (self.ready or now - self.born >= self._started_s or flat(self._levels)):
            self.base = self.level

    def place(self, number: int) -> Place:
        """What others may see of it."""
        return Place(
            place=number, pid=self.pid, since=self.since, level=self.last, highest=self.highest, base=self.first,
            leaving=self.leaving,
        )  # fmt: skip

    def rose_from(self) -> float:
        """When its level began to rise to where it is, in seconds since the epoch."""
        return time.time() - time.monotonic() + (rise(self._levels) if self._levels else self.born)

    def stop(self, reason: str) -> None:
        """Ask for the warm stop, once; the grace begins."""
        if not self.leaving:
            self.leaving = reason
            self._ask()
        self.policy.ask()

    def _ask(self) -> None:
        self._asked_at = time.monotonic()
        for pid in self._addressees():
            self._asked[pid] = started(pid)
            self._signal(pid, self._signal_for(pid))

    def _ask_again(self, now: float) -> None:
        """A wrapper may have started another worker after the one that was asked; what else it runs is left alone."""
        if not self._asked or not self.wrapped or now - self._asked_at < _AGAIN_S:
            return
        self._asked_at = now
        if any(self._asked.get(pid) != started(pid) and language(words(pid)) for pid in self._addressees()):
            self._ask()

    def _addressees(self) -> list[int]:
        return addressees(self.pid, words, children)

    def _signal_for(self, pid: int) -> signal.Signals:
        """By the process's own command line, or where that tells nothing (a title of its own) by the one it is of."""
        if self._warm is not None:
            return self._warm
        own = words(pid)
        return warm_signal(own if language(own) else self._command, environment(pid))

    def kill(self, reason: str) -> None:
        """SIGKILL to it and all its descendants."""
        self.killed = self.killed or reason
        for pid in tree(self.pid):
            self._signal(pid, signal.SIGKILL)

    def send(self, number: signal.Signals) -> None:
        """A signal to its first process, or to those that a wrapper has started."""
        if self.process.returncode is None:
            for pid in self._addressees():
                self._signal(pid, number)

    def remains(self, now: float, rest_s: float) -> bool:
        """Whether processes of its session live on after its first one; asked to end, and killed after ``rest_s``.

        What a wrapper leaves behind is the worker itself: it is asked for its warm stop and has the grace.
        """
        if self.beyond_reach:
            return False
        if now < self._rest_at and not self.killed:
            return True
        self._rest_at = now + _LOOK_S
        rest = session(self.pid)
        if not rest:
            return False
        asked, self._rest_since = self._rest_since is not None, self._rest_since or now
        over = self.killed or now - self._rest_since >= (self._grace_s if self.wrapped else rest_s)
        if over or not asked:
            log.warning(
                "pid %d left %d processes behind: %s", self.pid, len(rest), "killed" if over else "asked to end"
            )
            if over:
                for pid in rest:
                    self._signal(pid, signal.SIGKILL)
            else:
                self._ask_rest(rest)
        return True

    def _ask_rest(self, rest: Sequence[int]) -> None:
        if not self.wrapped:
            for pid in rest:
                self._signal(pid, signal.SIGTERM)
            return
        below = {child for pid in rest for child in children(pid)}  # they end with what has started them
        for pid in rest:
            if pid not in below and self._asked.get(pid) != started(pid):
                self._signal(pid, self._signal_for(pid))

    def end(self, oom: OomKills) -> None:
        """Its first process has been reaped: find out why it ended, once. ``oom`` has just looked."""
        if self.ending is None:
            self.ending = self._why(oom)

    def _why(self, oom: OomKills) -> Ending:
        code = self.process.returncode
        if self.wrapped and code is not None and 128 < code <= 128 + signal.NSIG:
            code = 128 - code  # how a shell says that its command died of a signal
        if self.killed:
            return Ending("killed", f"killed by the guard: {self.killed}", True)
        if code == -signal.SIGKILL:
            if oom.take():
                return Ending("oom", "killed by the kernel for memory", True)
            return Ending("lost", "SIGKILL from elsewhere", True)
        if code is not None and code < 0:
            name = signal.Signals(-code).name if -code in set(signal.Signals) else f"signal {-code}"
            return self._how(name) or Ending("crash", f"died of {name}", True)
        unasked = Ending("exit" if code == 0 else "crash", f"exit status {code}", code != 0)
        return self._how(f"status {code}") or unasked

    def _how(self, how: str) -> Ending | None:
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


def flat(levels: Sequence[tuple[float, int]]) -> bool:
    """Whether the newest levels have stayed alike for some seconds."""
    if not levels or levels[-1][0] - levels[0][0] < _FLAT_S:
        return False
    newest = [level for _, level in takewhile(lambda one: levels[-1][0] - one[0] <= _FLAT_S, reversed(levels))]
    return max(newest) - min(newest) <= max(_FLAT_BYTES, _FLAT_PART * max(newest))


def rise(levels: Sequence[tuple[float, int]]) -> float:
    """When the rise to the last of the levels began: the last time that a fifth of it was not yet done."""
    low, last = min(level for _, level in levels), levels[-1][1]
    return next(at for at, level in reversed(levels) if level <= low + 0.2 * (last - low))


def tree(pid: int) -> list[int]:
    """A process and all its descendants that live; those that end while it is read may be missing."""
    found, rest = [], [pid]
    while rest:
        one = rest.pop()
        found.append(one)
        rest += children(one)
    return found


def children(pid: int) -> list[int]:
    """The children of a process; those that end while they are read may be missing."""
    found: list[int] = []
    with suppress(OSError):
        for task in Path(f"/proc/{pid}/task").iterdir():
            with suppress(OSError):
                found += map(int, (task / "children").read_text("ascii").split())
    return found


def words(pid: int) -> list[str]:
    """The command line of a process; empty for a zombie, and for one that is gone."""
    try:
        data = Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return []
    return os.fsdecode(data).removesuffix("\0").split("\0") if data else []


def environment(pid: int) -> dict[str, str]:
    """The environment a process was started with; this process's own where it may not be read."""
    try:
        data = Path(f"/proc/{pid}/environ").read_bytes()
    except OSError:
        return dict(os.environ)
    return dict(one.split("=", 1) for one in os.fsdecode(data).split("\0") if "=" in one)


def session(leader: int) -> list[int]:
    """The living processes of a session, zombies left out; by a walk over all of ``/proc``."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            fields = (process / "stat").read_text("utf-8", "replace").rpartition(")")[2].split()
            if fields[3] == str(leader) and fields[0] not in "ZX":
                found.append(int(process.name))
    return found


def measured(pid: int) -> tuple[dict[int, int], int]:
    """PSS of a process and of each descendant, in bytes, and their RSS together.

    PSS counts shared pages once; where it may not be read RSS stands for it.
    """
    levels, total = {}, 0
    for one in tree(pid):
        with suppress(OSError):
            memory = procfs.memory(one)
            levels[one] = memory.rss if memory.pss is None else memory.pss
            total += memory.rss
    return levels, total


def tree_level(pid: int) -> int:
    """PSS of a process and its descendants together, in bytes."""
    return sum(measured(pid)[0].values())


def tree_rss(pid: int) -> int:
    """RSS of a process and its descendants together, in bytes: shared pages many times, but cheap to read."""
    total = 0
    for one in tree(pid):
        with suppress(OSError):
            total += int(Path(f"/proc/{one}/statm").read_text("ascii").split()[1]) * _PAGE
    return total
