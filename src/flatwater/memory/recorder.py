"""The recorder: looks at the chosen processes each interval and adds rows to a recording.

What a look costs is bounded: the fast figures are one file per process; a search of ``/proc`` for new processes takes
at most a fiftieth of the time, PSS and its kin at most a hundredth.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self

from flatwater.bounded.ledger import Usage
from flatwater.errors import FlatwaterError
from flatwater.memory import control_group, exit_watch, procfs, scan
from flatwater.memory.agent_figures import AgentFigures, AgentStatistics
from flatwater.memory.alert import Observation
from flatwater.memory.recording import Clock, Recording, Sample
from flatwater.memory.selector import Selector

MIN_INTERVAL_S: Final = 0.05
THIN_S: Final = 60.0
_MAX_SHARES_S: Final = 300.0
_SIGKILL: Final = 9


class RecorderStatistics(Usage, frozen=True, kw_only=True):
    """``size`` processes are followed, of ``bound`` at most; ``seen`` since the start, ``refused`` above the bound.

    ``late`` ticks began an interval too late or more; ``scan_ms`` and ``tick_ms`` are the dearest of each so far.
    """

    ticks: int
    late: int
    samples: int
    seen: int
    ended: int
    refused: int
    scans: int
    scan_ms: float
    tick_ms: float
    problem: str


@dataclass(slots=True)
class _Followed:
    id: int
    process: scan.Process
    chosen: bool
    watch: exit_watch.ExitWatch | None
    group: str | None
    shares_due: float
    cpu_ms: int
    seen_at: float
    shares: tuple[int | None, ...] = (None,) * 6


class Recorder:
    """Follows what ``selector`` means into ``recording``. ``tick`` is one look; ``run`` ticks until it is told to stop.

    ``interval_s`` down to 0.05; ``shares_s`` is how often PSS, USS, swap, descriptors and context switches are read;
    ``max_processes`` are followed at once.
    """

    kind = "recorder"

    def __init__(
        self,
        recording: Recording,
        selector: Selector,
        *,
        interval_s: float = 1.0,
        shares_s: float = 10.0,
        max_processes: int = 1000,
        clock: Clock | None = None,
        name: str = "recorder",
    ) -> None:
        self.name = name
        self._recording = recording
        self._selector = selector
        self._interval_s = max(MIN_INTERVAL_S, interval_s)
        self._shares_s = shares_s
        self._max_processes = max_processes
        self._clock = clock or Clock()
        self._scanner = scan.Scanner()
        self._agents = AgentFigures()
        self._followed: dict[tuple[int, int], _Followed] = {}
        self._groups: dict[str, control_group.GroupFigures] = {}
        self._looked: dict[str, int] = {}  # kills for memory in the groups that were looked at in this tick
        self._machine_kills = control_group.machine_oom_kills()
        self._resumed = recording.resumed()
        self._scan_due = self._thin_due = self._groups_due = self._last = 0.0
        self._ticks = self._late = self._samples = self._seen = self._ended = self._refused = self._scans = 0
        self._scan_ms = self._tick_ms = 0.0
        self._problem = ""
        self._machine = os.sysconf("SC_PHYS_PAGES") * scan.PAGE
        recording.note("selection", selector.text)
        recording.note("interval_s", f"{self._interval_s:g}")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def finished(self) -> bool:
        """True when only pids were chosen and all of these processes have ended."""
        return bool(self._selector.pids) and self._ticks > 0 and not self._followed

    @property
    def problem(self) -> str:
        """Why the last tick could not be written; "" when it was."""
        return self._problem

    def run(
        self,
        stop: threading.Event,
        *,
        for_s: float | None = None,
        on_tick: Callable[[list[Observation]], None] | None = None,
    ) -> None:
        """Tick each interval until ``stop`` is set, ``for_s`` have passed, or all is finished."""
        begin = due = self._clock.steady()
        while True:
            observations = self.tick()
            if on_tick is not None:
                on_tick(observations)
            due += self._interval_s
            now = self._clock.steady()
            if due < now:
                self._late += 1
                due = now
            if self.finished or (for_s is not None and due - begin > for_s) or stop.wait(due - now):
                return

    def tick(self) -> list[Observation]:
        """One look at everything followed, written; what alerts are decided on is returned. Never raises for the disk:
        `problem` says what is wrong, the rows wait.
        """
        now, t = self._clock.steady(), self._recording.now()
        if self._last and now - self._last > 5 * self._interval_s + 5:
            self._recording.add_event(t, None, "gap", f"no look for {now - self._last:.0f} s")
        self._last = now
        self._find(now, t) if now >= self._scan_due else self._look_again(now, t)
        if now >= self._groups_due:
            self._look_at_groups(now, t)
        observations = [self._sample(followed, now, t) for followed in self._followed.values()]
        observations += self._observed_groups(now)
        for told in self._agents.take():
            self._recording.add_agent_sample(told.process, told.figure, t, told.value)
        self._problem = self._recording.flush() or ""
        if now >= self._thin_due:
            self._thin_due = now + THIN_S
            with suppress(FlatwaterError):  # a disk without room: the flush says so, and thinning is tried again
                self._recording.thin(t)
        self._ticks += 1
        self._samples += len(self._followed)
        self._tick_ms = max(self._tick_ms, (self._clock.steady() - now) * 1000)
        return observations

    def log(self, kind: str, detail: str, process: int | None = None) -> None:
        """An event of the caller's in the recording (an alert), written with the next tick."""
        self._recording.add_event(self._recording.now(), process, kind, detail)

    def statistics(self) -> RecorderStatistics:
        return RecorderStatistics(
            size=len(self._followed),
            bound=self._max_processes,
            ticks=self._ticks,
            late=self._late,
            samples=self._samples,
            seen=self._seen,
            ended=self._ended,
            refused=self._refused,
            scans=self._scans,
            scan_ms=self._scan_ms,
            tick_ms=self._tick_ms,
            problem=self._problem,
        )

    def agents(self) -> AgentStatistics:
        """What was asked of the agents in the processes."""
        return self._agents.statistics()

    def close(self) -> None:
        """Let go of the processes. What still runs is continued by the next recorder of the same file."""
        for followed in self._followed.values():
            if followed.watch is not None:
                followed.watch.close()
        self._followed.clear()
        self._agents.close()

    # Who is there

    def _find(self, now: float, t: int) -> None:
        table = self._scanner.look(now)
        chosen, meant = self._selector.choose(table)
        if self._selector.children:  # once followed, always: a child whose parent ended belongs to nobody else
            alive = {pid for pid, start in self._followed if pid in table and table[pid].start == start}
            meant |= table.below(alive, frozenset({os.getpid()}))
        self._settle(((key, table.get(key[0])) for key in tuple(self._followed)), now, t)
        for pid in sorted(meant):
            process = table[pid]
            if process.alive and process.key not in self._followed and process.rss:
                self._follow(process, pid in chosen, now, t)
        took = self._clock.steady() - now
        self._scan_due = now + max(self._interval_s, 1.0 if self._ticks else 0.0, 50 * took)
        self._scans += 1
        self._scan_ms = max(self._scan_ms, took * 1000)

    def _look_again(self, now: float, t: int) -> None:
        known = tuple(self._followed.items())
        self._settle(((key, self._scanner.again(followed.process, now)) for key, followed in known), now, t)

    def _settle(self, seen: Iterable[tuple[tuple[int, int], scan.Process | None]], now: float, t: int) -> None:
        """Take over what was seen of the followed ones; end those that are no more."""
        gone = []
        for key, process in seen:
            followed = self._followed[key]
            if process is None or process.start != key[1] or not process.alive:
                gone.append((followed, process.status if process is not None and process.start == key[1] else None))
                continue
            if (process.name, process.command) != (followed.process.name, followed.process.command):
                self._recording.rename_process(followed.id, process.name, process.command)
                if process.command != followed.process.command:
                    self._recording.add_event(t, followed.id, "exec", process.command or process.name)
            followed.process = process
        if gone:
            self._end(gone, t)

    def _follow(self, process: scan.Process, chosen: bool, now: float, t: int) -> None:
        if len(self._followed) >= self._max_processes:
            self._refused += 1
            return
        group = self._group_of(process.pid, t)
        id = self._resumed.pop(process.key, None)
        if id is None:
            parent = next((one.id for one in self._followed.values() if one.process.pid == process.ppid), None)
            id = self._recording.add_process(
                process,
                t,
                started_t=self._recording.at(process.start / scan.TICKS_PER_S),
                chosen=chosen,
                parent=parent,
                group=None if group is None else self._recording.group(group),
            )
            self._recording.add_event(t, id, "start", process.command or process.name)
        cpu_ms = _ms(process.user + process.system)
        watch = exit_watch.watch(process.pid)
        self._followed[process.key] = _Followed(id, process, chosen, watch, group, 0.0, cpu_ms, now)
        self._seen += 1

    def _end(self, gone: list[tuple[_Followed, int | None]], t: int) -> None:
        kills = self._kills(t)
        for followed, status in sorted(gone, key=lambda pair: -pair[0].process.rss):
            if followed.watch is not None:
                told = followed.watch.status()
                # A zombie shows its status to those alone who may see its memory map; to others 0, whatever it was.
                readable = followed.shares[0] is not None
                status = told if told is not None else status if readable else status or None
                followed.watch.close()
            # Of those that ended together, the kernel takes the largest first.
            killed = status is not None and status & 127 == _SIGKILL
            own = kills.get(followed.group or "", 0)
            oom = (own > 0 and (killed or status is None)) or (killed and kills.get("", 0) > 0)
            if oom:
                for place in {followed.group or "", ""}:
                    kills[place] = kills.get(place, 0) - 1
            self._recording.end_process(followed.id, t, status, oom=oom)
            self._recording.add_event(t, followed.id, "end", exit_watch.ending(status, oom=oom))
            del self._followed[followed.process.key]
            self._agents.forget(followed.id)
            self._ended += 1

    # Control groups

    def _group_of(self, pid: int, t: int) -> str | None:
        found = control_group.of(pid)
        if found is None:
            return None
        if found.path not in self._groups:
            self._groups[found.path] = found
            self._add_group(found, t)
        return found.path

    def _look_at_groups(self, now: float, t: int) -> None:
        self._groups_due = now + self._shares_s
        used = {followed.group for followed in self._followed.values()}
        self._groups = {path: known for path, known in self._groups.items() if path in used}
        self._kills(t)

    def _kills(self, t: int) -> dict[str, int]:
        """Kills for memory since the last look, by group; "" for the whole machine."""
        found: dict[str, int] = {}
        for path, before in self._groups.items():
            current = control_group.figures(path)
            self._groups[path] = current
            self._add_group(current, t)
            found[path] = max(0, current.oom_kills - before.oom_kills)
            if found[path]:
                self._recording.add_event(t, None, "oom_kill", f"{found[path]} in {path}")
            if current.highs > before.highs:
                self._recording.add_event(t, None, "high", f"{current.highs - before.highs} in {path}")
        kills = control_group.machine_oom_kills()
        found[""] = kills - self._machine_kills
        self._machine_kills = kills
        return found

    def _observed_groups(self, now: float) -> list[Observation]:
        looked, self._looked = self._looked, {}
        return [
            Observation(source=f"group {path}", label=path, at=now, values={"oom_kills": kills})
            for path, kills in looked.items()
        ]

    def _add_group(self, found: control_group.GroupFigures, t: int) -> None:
        self._looked[found.path] = found.oom_kills
        self._recording.add_group_sample(
            self._recording.group(found.path), t, found.used, found.file, found.limit, found.oom_kills, found.highs
        )

    # Figures

    def _sample(self, followed: _Followed, now: float, t: int) -> Observation:
        process = followed.process
        shares: tuple[int | None, ...] = (None,) * 6
        if now >= followed.shares_due:
            begin = self._clock.steady()
            shares = followed.shares = _shares(process.pid)
            self._agents.want(followed.id, process.pid)
            took = self._clock.steady() - begin
            followed.shares_due = now + min(max(self._shares_s, 100 * took), max(self._shares_s, _MAX_SHARES_S))
        user, system = _ms(process.user), _ms(process.system)
        cheap = (process.rss, process.vms, user, system, process.threads, process.minor_faults, process.major_faults)
        self._recording.add_sample(Sample(followed.id, t, *cheap, *shares))
        spent, followed.cpu_ms = user + system - followed.cpu_ms, user + system
        passed, followed.seen_at = now - followed.seen_at, now
        return self._observed(followed, now, spent / passed / 10 if passed > 0 else 0.0)

    def _observed(self, followed: _Followed, now: float, cpu_percent: float) -> Observation:
        process = followed.process
        group = self._groups.get(followed.group or "")
        limit = group.limit if group is not None and group.limit is not None else self._machine
        values: dict[str, float] = {"rss": process.rss, "vms": process.vms, "threads": process.threads}
        values["cpu"] = cpu_percent
        known = zip(("pss", "uss", "swap", "fds"), followed.shares, strict=False)
        values.update((name, value) for name, value in known if value is not None)
        label = f"{process.name} {process.pid}"
        return Observation(source=str(followed.id), label=label, at=now, values=values, limit=limit)


def _ms(ticks: int) -> int:
    return ticks * 1000 // scan.TICKS_PER_S


def _shares(pid: int) -> tuple[int | None, ...]:
    """PSS, USS, swap, descriptors, voluntary and involuntary context switches; None where it may not be seen."""
    try:
        memory = procfs.memory(pid)
    except OSError:
        return (None,) * 6
    try:
        fds: int | None = len(os.listdir(f"/proc/{pid}/fd"))  # noqa: PTH208
    except OSError:
        fds = None
    status = Path(f"/proc/{pid}/status")
    switches: list[int | None] = [None, None]
    with suppress(OSError):
        lines = status.read_text("utf-8", "replace").splitlines()
        words = dict(line.split(":", 1) for line in lines if line.endswith(tuple("0123456789")) and "ctxt" in line)
        switches = [int(words[name]) for name in ("voluntary_ctxt_switches", "nonvoluntary_ctxt_switches")]
    return memory.pss, memory.uss, memory.swap, fds, *switches
