"""What every integration does around a task: measure, trim, refuse what is quarantined, ask to be recycled."""

from __future__ import annotations

import atexit
import logging
import os
import threading
import time
from collections.abc import Callable
from threading import get_ident
from typing import Any

import msgspec

from flatwater.bounded import Usage
from flatwater.errors import FlatwaterError
from flatwater.guard.aside import Aside
from flatwater.guard.channel import EVIDENCE, Channel, Killed, supervised
from flatwater.guard.death import die
from flatwater.guard.flight import FlightFile, flights, named
from flatwater.guard.gauge import Gauge
from flatwater.guard.hint import release_by_worker
from flatwater.guard.meter import Call, Meter
from flatwater.guard.note import Notes
from flatwater.guard.policy import Limits, Policy, Verdict
from flatwater.guard.presence import left
from flatwater.guard.private import Private
from flatwater.guard.rest import Rest
from flatwater.guard.table import Row, Table
from flatwater.guard.turn import Turn
from flatwater.guard.witness import Witness
from flatwater.memory.expect import Expectation, Retained
from flatwater.memory.trim import Trimmer
from flatwater.quantity import size

log = logging.getLogger("flatwater.guard")

_TICK_S, _NEWS_S, _REPORT_S = 0.1, 1.0, 5.0
_END_S = 2.0  # what results of killed tasks, and a look at what should be dead, have at the end of the process
_STANDS_S = 0.01  # how long a reading of the level stands for tasks that touch no new pages: see Meter
_NEVER = 1 << 62  # bytes
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


class Worker:
    """The guard inside a worker process; made once, before a pool forks, and begun anew in each child by itself.

    ``on_recycle(reason)`` asks the host for its warm stop; ``on_killed(note)`` writes a killed task's result.
    ``stopping`` tells that a stop is under way already: a second one would be taken for impatience, and end the tasks.
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
        stopping: Callable[[], bool] | None = None,
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
        self._hard = float("inf") if limits.hard is None else limits.hard
        self._on_recycle, self._on_killed, self._on_tick = on_recycle, on_killed, on_tick
        self._stopping = stopping
        self._collect, self._max_names, self._max_running = collect, max_names, max_running
        self._made_in = _forks
        self._began_in: int | None = None
        self._starting = threading.Lock()
        self._gauge: Gauge | None = None
        self._channel: Channel | None = None
        self._flight: FlightFile | None = None
        self._meter: Meter | None = None
        self._reset()

    def start(self) -> None:
        """Begin watching in this process, if that is not done: called by ``begin``, and by hosts that may be idle."""
        with self._starting:
            if self._began_in != _forks:
                self._begin_anew()
                atexit.register(self.close)  # the last report; children of a pool are closed by their integration

    def begin(self, name: str, id: str) -> None:
        """A task begins in this thread. Raises Quarantined, and then ``end`` must not be called."""
        thread = get_ident()
        if thread in self._running and self._meter is not None and self._began_in == _forks:
            self._meter.drop(self._running.pop(thread))  # it never ended: its host cancelled it, and told nobody
        self._running[thread] = self._open(name, id)

    def admit(self, name: str) -> None:
        """Raises Quarantined for a task that must not run."""
        if self._began_in != _forks:
            self.start()
        if name in self._quarantine:
            self._refused += 1
            raise Quarantined(name, hint=release_by_worker(name, self._channel.folder if self._channel else None))

    def end(self, *, failed: bool = False) -> None:
        """The task of this thread has ended; may ask the host for its warm stop."""
        call = self._running.pop(get_ident(), None)
        if call is not None:
            self._shut(call, failed)

    @property
    def forked(self) -> bool:
        """Whether this process is a child of the one in which the guard was installed."""
        return self._made_in != _forks

    @property
    def highest(self) -> int:
        """The highest RSS of this process, in bytes: what the kernel tells begins anew after each spike."""
        return self._gauge.highest() if self._gauge is not None else 0

    def ready(self) -> None:
        """Tell the supervisor that this process takes tasks now, so that the one it replaces may leave."""
        self.start()
        self._send("ready")

    def ask_supervisor(self, reason: str) -> bool:
        """Ask ``flatwater guard`` to recycle the whole command, whose grace holds then; False where none hears it."""
        self._handed = self._channel is not None and self._channel.send("wanted", reason=reason)
        return self._handed

    def rows(self) -> tuple[Row, ...]:
        """The table of tasks."""
        return self._table.rows(None if self._meter is None else self._meter.level)

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
        self._looking.end(_END_S)
        if self._notes is not None:
            self._notes.end(_END_S)
        self._report()
        self._let_go()
        self._began_in = None

    @property
    def _ended(self) -> int:
        return 0 if self._meter is None else self._meter.ended

    @property
    def _level(self) -> int:
        """At the last task's end, or now, of what is this process's own in a forked child."""
        if self._private is not None:
            return self._private.last
        return 0 if self._meter is None else self._meter.level

    def _open(self, name: str, id: str) -> Call:
        """The measures at the begin of a task. With ``_shut`` the way of every task: each line costs all of them."""
        if self._began_in != _forks:
            self.start()
        if name in self._quarantine:
            self.admit(name)
        assert self._meter is not None  # start has made it
        return self._meter.open(name, id, not self._running)

    def _shut(self, call: Call, failed: bool) -> None:
        meter = self._meter
        if meter is None or self._gauge is None:
            return
        try:
            if not meter.shut(call, failed):
                self._settle(meter, call, failed)
        except Exception as error:  # the task is done, and its result is not ours to spoil
            self._stumbled(error)

    def _settle(self, meter: Meter, call: Call, failed: bool) -> None:
        """What is not of every task: a trim, a new peak, a row's first task, the end of an interval, the soft limit."""
        gauge, level = self._gauge, call.after
        if gauge is None:
            return
        if level >= self._trim_from:
            level = meter.level = self._trim(level)
        if meter.mark - level > _PEAK_BYTES and not self._running:
            gauge.reset_peak()
            meter.mark = gauge.peak()
        seconds = call.ended - call.began
        self._table.add(call.name, call.ended, seconds, call.before, level, call.peak, call.alone, failed)
        meter.until = self._table.until
        if level >= self._soft:
            self._consider(level)

    def _stumbled(self, error: Exception) -> None:
        if type(error) not in self._stumbles:
            self._stumbles.add(type(error))
            log.error("%s: the guard failed, the work goes on; told once", self.name, exc_info=error)

    def _trim(self, level: int) -> int:
        """Give back what can be, if that pays; the level after."""
        assert self._gauge is not None
        if self._trimmer.offer(level) is not None:
            level = self._gauge.rss()
            self._trim_from = self._trimmer.threshold
            self._calm_down()
        return level

    def _calm_down(self) -> None:
        """Tell the meter from which level on the end of a task is ours."""
        if self._meter is not None:
            self._meter.calm = int(min(self._trim_from, self._soft, _NEVER))

    def _reset(self) -> None:
        self._running: dict[int, Call] = {}
        self._table = Table(max_names=self._max_names)
        self._trimmer = Trimmer()
        self._policy = Policy(self.limits, base=0)
        self._quarantine: frozenset[str] = frozenset()
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self._meter = None
        self._refused = self._told = 0
        self._trim_from = float("inf")
        self._private: Private | None = None  # of a forked child, now and
        self._kept: Private | None = None  # at the ends of tasks
        self.leaving = self._handed = False
        self._witness = Witness(self.name, self.limits, send=self._send, flying=self._flying)
        self._evident = float("inf")
        self._stumbles: set[type[Exception]] = set()
        self._rest = Rest()
        self.expectation = Expectation(
            self.name, max_pending=100, min_collect_s=30, min_graph_s=120, on_retained=self._retained,
            collect=self._collect, room=self._room,
        )  # fmt: skip
        self._looking = Aside("flatwater-guard-expectation", self.expectation.check)
        self._notes: Notes | None = None

    def _begin_anew(self) -> None:
        """In a fresh process, or after a fork: nothing of the parent's counts, its files are not ours."""
        self._let_go()
        self._reset()
        self._gauge = Gauge()
        if self._gauge.peak() - self._gauge.rss() > _PEAK_BYTES:
            self._gauge.reset_peak()
        self._channel = supervised()
        if self._channel is not None:
            self._flight = flights(self._channel.folder, self.name)
            if self._on_killed is not None:
                self._notes = Notes(self._channel.folder, self.name, self._on_killed)
        if self.forked:
            self._private = Private(self._gauge, min(self._soft, self._hard))
            self._kept = Private(self._gauge, self._soft)
        slots = None if self._flight is None else self._flight.slots
        self._meter = Meter(self._gauge, slots, self._table.sums, self._gauge.inherited, _STANDS_S, _PEAK_BYTES)
        self._meter.level = self._gauge.rss()
        self._policy = Policy(self.limits, base=self._level)
        if self._collect:
            self._trimmer = Trimmer(min_bytes=_FORKED_TRIM_BYTES) if self.forked else Trimmer()
            self._trimmer.offer(self._gauge.rss())
            self._trim_from = self._trimmer.threshold
        self._calm_down()
        told = os.environ.get(EVIDENCE, "") if self._channel else ""
        self._evident = min(self.limits.soft or float("inf"), float(told or "inf"))
        self._news()
        self._thread = threading.Thread(target=self._watch, name="flatwater-guard", daemon=True)
        self._thread.start()
        self._began_in = _forks  # last: other threads go on as soon as they see it

    def _let_go(self) -> None:
        for part in (self._flight, self._channel, self._meter, self._gauge):
            if part is not None:
                part.close()
        self._flight = self._channel = self._gauge = None

    def _consider(self, rss: int) -> None:
        """Above the soft limit by RSS; a forked child is judged by what is its own."""
        if self.leaving or (self._stopping is not None and self._stopping()):
            return
        if self._kept is not None and not self._kept.measure(rss):
            return
        level = rss if self._kept is None else self._kept.last
        if self._policy.over(level) and (self.turn is None or not self.forked or self.turn.take()):
            self.leaving = True
            log.warning("%s: %s, above the soft limit of %s: leaving", self.name, size(level), _limit(self.limits.soft))
            if self._by_supervisor and not self.forked and self.ask_supervisor("soft limit"):
                return
            self._send("leaving", reason="soft limit", level=level, base=self._policy.base, ended=self._ended)
            self._report()
            try:
                self._on_recycle("soft limit")
            finally:
                if not self._handed:
                    self._policy.ask()

    def _judged(self, rss: int, least: float = 0) -> int:
        """The level by which this process is judged; below ``least`` RSS will do, which is never less."""
        if self._private is None or rss < least:
            return rss
        self._private.measure(rss)
        return self._private.last

    def _watch(self) -> None:
        news = report = time.monotonic()
        while not self._stop.wait(_TICK_S):
            steps, now = [self._look], time.monotonic()
            if now >= news + _NEWS_S:
                news = now
                steps.append(self._attend)
            if now >= report + _REPORT_S:
                report = now
                steps.append(self._report)
            for step in steps:
                try:
                    step()
                except Exception as error:
                    self._stumbled(error)

    def _look(self) -> None:
        gauge = self._gauge
        if gauge is None:
            return
        rss = gauge.rss()
        level = self._judged(rss, min(self._hard, self._evident))
        for call in list(self._running.values()):
            if rss > call.peak:
                call.peak = rss
        if self.limits.hard is not None:  # first: what comes after may fail
            decision = self._policy.judge(level, time.monotonic())
            if decision.verdict is Verdict.KILL:
                die(self._witness.last_words(decision.reason, level, rss, self._on_killed))
        if self._on_tick is not None:
            self._on_tick()
        if self._running and level >= self._evident:
            self._witness.look(level, rss)
        if self._running and not self.forked and level >= self._soft:
            self._consider(level)

    def _flying(self) -> list[tuple[str, str, int]]:
        return [(*named(call.name, call.id), call.peak) for call in list(self._running.values())]

    def _attend(self) -> None:
        self._news()
        if self._notes is not None:
            self._notes.look()
        if self.expectation.due:
            self._looking.begin()

    def _news(self) -> None:
        if self._channel is not None:
            self._quarantine = self._channel.quarantine()

    def _room(self) -> int | None:
        """Bytes that a look at the heap may take below the hard limit; None without one."""
        folder, gauge = self._channel.folder if self._channel is not None else None, self._gauge
        return left(self.limits.hard, self._judged(self._level if gauge is None else gauge.rss()), folder)

    def _retained(self, found: Retained) -> None:
        self._send("retained", kind=self.name, **msgspec.structs.asdict(found))

    def _report(self) -> None:
        gauge = self._gauge
        if self._channel is None or gauge is None or (self._told == self._ended and not self._rest.pending):
            return
        self._told = self._ended
        held = self._rest.look(self._judged(gauge.rss()), self._policy.base, resting=not self._running)
        rows = [msgspec.structs.asdict(row) for row in self.rows()]
        self._send("table", kind=self.name, rows=rows, holders=held, **msgspec.structs.asdict(self.statistics()))

    def _send(self, topic: str, /, **fields: Any) -> None:
        if self._channel is not None:
            self._channel.send(topic, **fields)


def _limit(soft: int | None) -> str:
    return "no limit" if soft is None else size(soft)
