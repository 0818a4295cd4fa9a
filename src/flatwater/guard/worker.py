"""What every integration does around a task: measure, trim, refuse what is quarantined, ask to be recycled."""

from __future__ import annotations

import atexit
import logging
import os
import signal
import threading
import time
from collections.abc import Callable
from threading import get_ident
from time import monotonic
from typing import Any

import msgspec

from flatwater.bounded import Usage
from flatwater.errors import FlatwaterError
from flatwater.guard.channel import EVIDENCE, Channel, Killed, supervised
from flatwater.guard.flight import FlightFile
from flatwater.guard.gauge import Gauge
from flatwater.guard.policy import Limits, Policy, Verdict
from flatwater.guard.table import Row, Table
from flatwater.guard.turn import Turn
from flatwater.memory import heap
from flatwater.memory.expect import Expectation, Retained
from flatwater.memory.trim import Trimmer, holders
from flatwater.quantity import size

log = logging.getLogger("flatwater.guard")

_TICK_S, _NEWS_S, _REPORT_S = 0.1, 1.0, 5.0
_SAME_S = 0.001  # a reading at the end of a task stands for the beginning of the next one when that is so near
_FORKED_TRIM_BYTES = 64 << 20  # the first collection in a forked child copies the pages that it shares with its parent
_PEAK_BYTES = 16 << 20  # a peak that stands so far above the level hides those of later tasks: begin a new one


_forks = 0  # how many lie between this process and the one that loaded this: cheaper to compare than pids


def _count_fork() -> None:
    global _forks
    _forks += 1


os.register_at_fork(after_in_child=_count_fork)


class Quarantined(FlatwaterError, code="quarantined"):
    """The task is quarantined: the processes that ran it were killed again and again."""


class MemoryKilled(FlatwaterError, code="memory_killed"):
    """The task was killed for memory."""


class WorkerStatistics(Usage, frozen=True, kw_only=True):
    """``size`` tasks run now; tasks ended, refused; the level and the first level in bytes; what trims gave back."""

    ended: int
    refused: int
    level: int
    base: int
    leaving: bool
    trims: int
    trimmed: int
    trim_s: float


class Call:
    """A task in flight: levels at its begin in bytes, whether it began alone, its number and its flight's slot."""

    __slots__ = ("alone", "before", "began", "id", "mark", "name", "number", "peak", "slot")

    def __init__(self, name: str, id: str, began: float, before: int, mark: int, alone: bool, number: int) -> None:
        self.name, self.id, self.began, self.before, self.mark = name, id, began, before, mark
        self.alone, self.number, self.peak, self.slot = alone, number, before, -1


class Worker:
    """The guard inside a worker process; made once, before a pool forks, and begun anew in each child by itself.

    ``on_recycle(reason)`` asks the host for its warm stop; ``on_killed(note)`` writes a killed task's result.
    ``collect=False`` leaves out collections and trims. ``turn`` lets pool processes leave one after another.
    ``by_supervisor``: the warm stop is a signal that ``flatwater guard`` sends when it is asked and the turn has come.
    Call ``begin`` and ``end`` in the thread (or greenlet) that runs the task.
    """

    kind = "guard"

    def __init__(
        self,
        name: str,
        *,
        limits: Limits,
        on_recycle: Callable[[str], object],
        on_killed: Callable[[Killed], object] | None = None,
        on_tick: Callable[[], object] | None = None,
        collect: bool = True,
        turn: Turn | None = None,
        by_supervisor: bool = False,
        max_names: int = 64,
        max_running: int = 10_000,
    ) -> None:
        self.name = name
        self.limits = limits
        self.turn = turn
        self._by_supervisor = by_supervisor
        self._soft = float("inf") if limits.soft is None else limits.soft
        self._on_recycle, self._on_killed, self._on_tick = on_recycle, on_killed, on_tick
        self._collect, self._max_names, self._max_running = collect, max_names, max_running
        self._made_in = _forks
        self._began_in: int | None = None
        self._starting = threading.Lock()
        self._gauge: Gauge | None = None
        self._channel: Channel | None = None
        self._flight: FlightFile | None = None
        self._begun = self._ended = 0
        self._read_at = -float("inf")
        self._reset()

    def start(self) -> None:
        """Begin watching in this process, if that is not done: called by ``begin``, and by hosts that may be idle."""
        with self._starting:
            if self._began_in != _forks:
                self._begin_anew()
                atexit.register(self.close)  # the last report; children of a pool are closed by their integration

    def begin(self, name: str, id: str) -> None:
        """A task begins in this thread. Raises Quarantined, and then ``end`` must not be called."""
        self._running[get_ident()] = self._open(name, id)

    def admit(self, name: str) -> None:
        """Raises Quarantined for a task that must not run."""
        if self._began_in != _forks:
            self.start()
        if name in self._quarantine:
            self._refused += 1
            raise Quarantined(name, hint="flatwater guard release " + name)

    def end(self, *, failed: bool = False) -> None:
        """The task of this thread has ended; may ask the host for its warm stop."""
        call = self._running.pop(get_ident(), None)
        if call is not None:
            self._shut(call, failed)

    @property
    def forked(self) -> bool:
        """Whether this process is a child of the one in which the guard was installed."""
        return self._made_in != _forks

    def ready(self) -> None:
        """Tell the supervisor that this process takes tasks now, so that the one it replaces may leave."""
        self.start()
        self._send("ready")

    def ask_supervisor(self, reason: str) -> bool:
        """Ask ``flatwater guard`` to recycle the whole command; False where none hears it."""
        return self._channel is not None and self._channel.send("wanted", reason=reason)

    def rows(self) -> tuple[Row, ...]:
        """The table of tasks."""
        return self._table.rows()

    def statistics(self) -> WorkerStatistics:
        return WorkerStatistics(
            size=len(self._running),
            bound=self._max_running,
            ended=self._ended,
            refused=self._refused,
            level=self._level,
            base=self._policy.base,
            leaving=self.leaving,
            trims=self._trimmer.count,
            trimmed=self._trimmer.freed,
            trim_s=self._trimmer.seconds,
        )

    def close(self) -> None:
        """Report a last time and end the watching thread. Closing twice is allowed."""
        if self._began_in != _forks:
            return
        atexit.unregister(self.close)
        self._stop.set()
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join()
        self._report()
        self._let_go()
        self._began_in = None

    def _open(self, name: str, id: str) -> Call:
        """The measures at the begin of a task. With ``_shut`` the way of every task: each line costs all of them."""
        if self._began_in != _forks:
            self.start()
        if name in self._quarantine:
            self.admit(name)
        now = monotonic()
        if now - self._read_at > _SAME_S:
            gauge = self._gauge
            assert gauge is not None  # start has made it
            self._rss, self._mark = gauge.rss(), gauge.peak()
        self._begun = number = self._begun + 1
        call = Call(name, id, now, self._rss, self._mark, not self._running, number)
        if self._flight is not None:
            call.slot = self._flight.put(name, id)
        return call

    def _shut(self, call: Call, failed: bool) -> None:
        gauge = self._gauge
        if gauge is None:
            return
        now, level, mark = monotonic(), gauge.rss(), gauge.peak()
        peak = mark if mark > call.mark else call.peak
        if peak < level:
            peak = level
        if level >= self._trim_from:
            level = self._trim(level)
        if mark - level > _PEAK_BYTES and not self._running:
            gauge.reset_peak()
            mark = gauge.peak()
        alone = call.alone and call.number == self._begun
        self._table.add(call.name, now, now - call.began, call.before, level, peak, alone, failed)
        if self._flight is not None:
            self._flight.clear(call.slot)
        self._ended += 1
        self._read_at, self._rss, self._mark = now, level, mark
        self._level = level
        if level >= self._soft:
            self._consider(level)

    def _trim(self, level: int) -> int:
        """Give back what can be, if that pays; the level after."""
        assert self._gauge is not None
        if self._trimmer.offer(level) is not None:
            level = self._gauge.rss()
            self._trim_from = self._trimmer.threshold
        return level

    def _reset(self) -> None:
        self._running: dict[int, Call] = {}
        self._table = Table(max_names=self._max_names)
        self._trimmer = Trimmer()
        self._policy = Policy(self.limits, base=0)
        self._quarantine: frozenset[str] = frozenset()
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self._begun = self._ended = self._refused = self._told = self._witnessed = 0
        self._read_at, self._rss, self._mark, self._level = -float("inf"), 0, 0, 0
        self._trim_from = float("inf")
        self._next_private = -float("inf"), -float("inf")  # at the earliest, and at the latest
        self._risen = -float("inf")
        self.leaving = False
        self._evidence = ""
        self._evident = float("inf")
        self.expectation = Expectation(
            self.name, max_pending=100, min_collect_s=30, min_graph_s=120, on_retained=self._retained
        )

    def _begin_anew(self) -> None:
        """In a fresh process, or after a fork: nothing of the parent's counts, its files are not ours."""
        self._let_go()
        self._reset()
        self._gauge = Gauge()
        if self._gauge.peak() - self._gauge.rss() > _PEAK_BYTES:
            self._gauge.reset_peak()
        self._channel = supervised()
        self._flight = FlightFile(self._channel.folder, self.name) if self._channel else None
        self._level = self._gauge.private() if self.forked else self._gauge.rss()
        self._policy = Policy(self.limits, base=self._level)
        if self._collect:
            self._trimmer = Trimmer(min_bytes=_FORKED_TRIM_BYTES) if self.forked else Trimmer()
            self._trimmer.offer(self._gauge.rss())
            self._trim_from = self._trimmer.threshold
        told = os.environ.get(EVIDENCE, "") if self._channel else ""
        self._evident = min(self.limits.soft or float("inf"), float(told or "inf"))
        self._news()
        self._thread = threading.Thread(target=self._watch, name="flatwater-guard", daemon=True)
        self._thread.start()
        self._began_in = _forks  # last: other threads go on as soon as they see it

    def _let_go(self) -> None:
        for part in (self._flight, self._channel, self._gauge):
            if part is not None:
                part.close()
        self._flight = self._channel = self._gauge = None

    def _consider(self, rss: int) -> None:
        """Above the soft limit by RSS; a forked child is judged by what is its own."""
        if self.leaving or (level := self._own(rss)) is None:
            return
        self._level = level
        if self._policy.over(level) and (self.turn is None or not self.forked or self.turn.take()):
            self.leaving = True
            self._policy.ask()
            log.warning("%s: %s, above the soft limit of %s: leaving", self.name, size(level), _limit(self.limits.soft))
            if self._by_supervisor and not self.forked and self.ask_supervisor("soft limit"):
                return
            self._send("leaving", reason="soft limit", level=level, base=self._policy.base, ended=self._ended)
            self._report()
            self._on_recycle("soft limit")

    def _own(self, rss: int) -> int | None:
        """The level in bytes. None when it was measured a moment ago and RSS has not risen much since: the measure
        takes 1 ms per 100 MB, and so at most half a percent of the time, or what half of the room that is left takes.
        """
        gauge = self._gauge
        assert gauge is not None
        if not self.forked:
            return rss
        now = monotonic()
        if now < self._next_private[0] or (now < self._next_private[1] and rss < self._risen):
            return None
        level = gauge.private()
        self._risen = rss + max(self._soft - level, 0) / 2
        took = monotonic() - now
        self._next_private = now + 20 * took, now + 200 * took
        return level

    def _watch(self) -> None:
        news = report = time.monotonic()
        while not self._stop.wait(_TICK_S):
            try:
                self._look()
                now = time.monotonic()
                if now >= news + _NEWS_S:
                    news = now
                    self._news()
                    self.expectation.check()
                if now >= report + _REPORT_S:
                    report = now
                    self._report()
            except Exception:
                log.exception("%s: the watching thread goes on after", self.name)

    def _look(self) -> None:
        gauge = self._gauge
        if gauge is None:
            return
        rss = gauge.rss()
        for call in list(self._running.values()):
            if rss > call.peak:
                call.peak = rss
        if self._on_tick is not None:
            self._on_tick()
        limits = self.limits
        if self._running and rss >= self._evident and rss > self._witnessed * 1.25:
            self._witness(rss)
        if self._running and not self.forked and limits.soft is not None and rss >= limits.soft:
            self._consider(rss)
        if limits.hard is not None and self._policy.judge(rss, time.monotonic()).verdict is Verdict.KILL:
            self._die(rss)

    def _witness(self, rss: int) -> None:
        """Tell who holds the memory while there is somebody to tell it."""
        self._witnessed = rss
        self._evidence = evidence()
        tasks = [(call.name, call.id) for call in list(self._running.values())]
        limit = self.limits.hard or self.limits.soft
        self._send("evidence", kind=self.name, tasks=tasks[:20], peak=rss, limit=limit, holders=self._evidence)

    def _die(self, rss: int) -> None:
        """The hard limit: write it into the results of the tasks in flight, and end."""
        self._witness(rss)
        notes = [
            Killed(kind=self.name, name=call.name, id=call.id, reason="hard limit", peak=max(call.peak, rss),
                   limit=self.limits.hard, holders=self._evidence)
            for call in list(self._running.values())
        ]  # fmt: skip
        for note in notes:
            log.critical("%s", note)
            if self._on_killed is not None:
                self._on_killed(note)
        self._send("died", kind=self.name, reason="hard limit", level=rss)
        os.kill(os.getpid(), signal.SIGKILL)

    def _news(self) -> None:
        if self._channel is None:
            return
        self._quarantine = self._channel.quarantine()
        if self._on_killed is not None:
            for note in self._channel.killed(self.name):
                log.error("%s", note)
                self._on_killed(note)

    def _retained(self, found: Retained) -> None:
        self._send("retained", kind=self.name, **msgspec.structs.asdict(found))

    def _report(self) -> None:
        if self._channel is None or self._told == self._ended:
            return
        self._told = self._ended
        rows = [msgspec.structs.asdict(row) for row in self.rows()]
        self._send("table", kind=self.name, rows=rows, **msgspec.structs.asdict(self.statistics()))

    def _send(self, topic: str, /, **fields: Any) -> None:
        if self._channel is not None:
            self._channel.send(topic, **fields)


def evidence(max_types: int = 3) -> str:
    """Who holds this process's memory, in one line: the largest types and the allocators."""
    types = heap.census("all").types[:max_types]
    objects = ", ".join(f"{row.count:,} {row.type} ({size(row.bytes)})" for row in types)
    return f"{objects}; {holders()}"


def _limit(soft: int | None) -> str:
    return "no limit" if soft is None else size(soft)
