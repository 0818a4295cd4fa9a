"""Those that died with their process: named in the record, told to their integration, and counted for quarantine."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from flatwater.guard.channel import Killed
from flatwater.guard.flight import Flight, dead, read, started
from flatwater.guard.hint import release_command
from flatwater.guard.instance import Instance
from flatwater.guard.oom import OomKills
from flatwater.guard.record import Record

log = logging.getLogger("flatwater.guard")

OOM = "killed by the kernel for memory"
_CLEAR = 1.5  # times as much as the next one holds he who holds clearly most


class Death(msgspec.Struct, frozen=True):
    """Why a process ends; ``counts`` when it ends for memory, and nobody else of its worker is to blame."""

    reason: str
    counts: bool


class Casualties:
    """What is known of processes that end, until their tasks have been buried. Nothing is kept after that.

    A task counts towards its quarantine when its process was ended for memory (by the kernel, at the hard limit, or
    when the grace passed after a limit), held clearly most of those that ended together, and had no other task to blame
    in flight: none of another name that ran already when the level began to rise.
    """

    def __init__(self, folder: Path, record: Record, oom: OomKills, *, after: int, within_s: float) -> None:
        self._folder, self._record, self._oom = folder, record, oom
        self._after, self._within_s = after, within_s
        self._deaths: dict[int, Death] = {}
        self._evidence: dict[int, dict[str, Any]] = {}  # the last of each living pid
        self._quarantined: list[str] | None = None
        self._notes = 0

    def witness(self, pid: int, evidence: dict[str, Any]) -> None:
        """What a process tells of who holds its memory."""
        self._evidence[pid] = evidence

    def expect(self, pid: int, reason: str, *, memory: bool) -> None:
        """A process is going to end, or has ended; the first who says why is right."""
        self._deaths.setdefault(pid, Death(reason, memory))

    def reason(self, pid: int) -> str:
        """Why it ends; "" when that is not known."""
        death = self._deaths.get(pid)
        return death.reason if death is not None else ""

    def kill(self, pids: Iterable[int], levels: Mapping[int, int], reason: str, *, memory: bool) -> None:
        """A worker with all its processes is going to be killed; ``levels`` are theirs in bytes."""
        pids = list(pids)
        busy = {pid: levels.get(pid, 0) for pid in pids if self._in_flight(pid)}
        guilty = clearly_most(busy) if memory else None
        for pid in pids:
            self._deaths[pid] = Death(reason, pid == guilty)

    def _in_flight(self, pid: int) -> bool:
        return any(read(path) for path in self._folder.glob(f"flight-{pid}-*"))

    def bury(self, instances: Collection[Instance], listen: Callable[[], None]) -> list[tuple[int, Killed, bool]]:
        """The flight files of dead processes: the tasks that were killed, each with whether it is quarantined now.

        ``listen`` is called before, for what was told of them in the meantime.
        """
        unread = {one.pid for one in instances if one.ending is None}  # ended since the last look, and not yet reaped
        gone = [pid for pid in {*self._deaths, *self._evidence} - unread if not started(pid)]
        found = dead(self._folder)
        if found:
            listen()
        buried = [one for pid, path in found for one in self._bury(pid, path, instances)]
        for pid in gone:  # the number may come again, for another process
            self._deaths.pop(pid, None)
            self._evidence.pop(pid, None)
        return buried

    def _bury(self, pid: int, path: Path, instances: Collection[Instance]) -> list[tuple[int, Killed, bool]]:
        flights = read(path)
        path.unlink(missing_ok=True)
        if flights and pid not in self._deaths and self._oom.take():
            self._deaths[pid] = Death(OOM, True)
        death = self._deaths.get(pid)
        if death is None:
            for flight in flights:
                self._record.add("interrupted", pid, name=flight.name, id=flight.id)
            return []
        worker = next((one for one in instances if pid in one.levels or pid == one.pid), None)
        guilty = to_blame(flights, time.time() if worker is None else worker.rose_from()) if death.counts else ""
        limit = None if worker is None else worker.policy.limits.hard
        buried = []
        for flight in flights:
            note = self._note(pid, flight, death.reason, limit)
            self._record.add("killed", pid, **msgspec.structs.asdict(note), counted=flight.name == guilty)
            self._tell(note)
            buried.append((pid, note, flight.name == guilty and self._counted(pid, flight.name)))
            guilty = "" if flight.name == guilty else guilty  # once for each process
        return buried

    def _note(self, pid: int, flight: Flight, reason: str, limit: int | None) -> Killed:
        seen = self._evidence.get(pid, {})
        return Killed(
            kind=flight.kind, name=flight.name, id=flight.id, reason=reason, peak=seen.get("peak"),
            limit=limit or seen.get("limit"), holders=seen.get("holders", ""),
        )  # fmt: skip

    def _tell(self, note: Killed) -> None:
        """Leave it to the integration that can write it into the task's result; on a full disk it is not told."""
        log.error("%s", note)
        self._notes += 1
        draft = self._folder / f"draft-{self._notes}"
        try:
            draft.write_bytes(msgspec.json.encode(note))
            draft.rename(self._folder / f"killed-{self._notes}.json")
        except OSError as error:
            draft.unlink(missing_ok=True)
            log.error("the result of %s [%s] cannot tell that it was killed: %s", note.name, note.id, error)

    def _counted(self, pid: int, name: str) -> bool:
        if not self._after or not self._record.kill(name, self._after, within_s=self._within_s):
            return False
        self._record.add("quarantined", pid, name=name)
        command = release_command(name, str(Path(self._record.name).absolute()))
        log.error("%s is quarantined; to release it: %s", name, command)
        return True

    def news(self) -> None:
        """Tell the workers what is quarantined, when that has changed (by us, or by ``flatwater guard release``).

        Raises OSError and sqlite3.Error; then it is tried again at the next call.
        """
        names = self._record.quarantined() if self._after else []
        if names != self._quarantined:
            draft = self._folder / "quarantine.draft"
            draft.write_bytes(msgspec.json.encode(names))
            draft.rename(self._folder / "quarantine.json")
            self._quarantined = names


def clearly_most(levels: Mapping[int, int]) -> int | None:
    """Who holds clearly more than each other; None when nobody does."""
    ranked = sorted(levels, key=lambda pid: -levels[pid])
    if len(ranked) > 1 and levels[ranked[0]] < _CLEAR * levels[ranked[1]]:
        return None
    return ranked[0] if ranked else None


def to_blame(flights: Sequence[Flight], rose_from: float) -> str:
    """The one name among the tasks in flight; of several the one that alone ran when the level began to rise
    (seconds since the epoch); "" when that cannot be told.
    """
    names = {flight.name for flight in flights}
    if len(names) > 1:
        names = {flight.name for flight in flights if flight.since <= rose_from}
    return names.pop() if len(names) == 1 else ""
