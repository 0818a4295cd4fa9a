"""Which workers and processes of pools have ended, what that gave back, and how long their places stood empty."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import msgspec

from flatwater.guard.record import Event


class End(msgspec.Struct, frozen=True, kw_only=True):
    """The end of a worker, or of a process of its pool that left alone.

    ``freed`` is what it held beyond its beginning (bytes); ``away_s`` how long its place stood empty, None where nobody
    has come yet or where a pool fills its places itself.
    """

    at: float
    pid: int
    reason: str
    detail: str
    life_s: float | None
    freed: int
    away_s: float | None


def endings(events: Sequence[Event]) -> tuple[End, ...]:
    """All ends in the order of their events. A process that had its whole worker recycled has none of its own."""
    walk, handed = _Walk(), _handed(events)
    for number, event in enumerate(events):
        if event.kind == "guard":  # those of a guard that was killed are not ours
            walk.forget()
        elif event.kind == "start":
            walk.start(event.pid, event.body)
        elif event.kind == "asked":
            walk.levels[event.pid] = event.body
        elif event.kind == "leaving" and event.pid in walk.living:
            walk.levels.setdefault(event.pid, event.body)
        elif event.kind == "leaving" and number not in handed:
            walk.ended.append(_left(event))
        elif event.kind == "end" and "reason" in event.body:
            walk.end(event)
    return tuple(walk.ended)


class _Walk:
    """Who lives, and which places are empty, on the way through the events."""

    def __init__(self) -> None:
        self.ended: list[End] = []
        self.forget()

    def forget(self) -> None:
        self.living: dict[int, int] = {}  # places by pid
        self.levels: dict[int, dict[str, Any]] = {}  # when they were asked to leave, by pid: later less is left of them
        self._empty: dict[int, int] = {}  # by place, the number of the end since which it is

    def start(self, pid: int, body: dict[str, Any]) -> None:
        slot = body.get("slot", -1)
        self.living[pid] = slot
        self.levels.pop(pid, None)
        if (former := self._empty.pop(slot, None)) is not None:
            self.ended[former] = msgspec.structs.replace(self.ended[former], away_s=body.get("away_s"))

    def end(self, event: Event) -> None:
        body, slot = event.body, event.body.get("slot", -1)
        self.living.pop(event.pid, None)
        replaced = slot in self.living.values()
        if body["reason"] != "stopped" and not replaced:
            self._empty[slot] = len(self.ended)
        levels = self.levels.pop(event.pid, body)
        self.ended.append(
            End(
                at=event.at, pid=event.pid, reason=body["reason"], detail=body.get("detail", ""),
                life_s=body.get("life_s"), freed=_freed(levels), away_s=0.0 if replaced else None,
            )
        )  # fmt: skip


def _handed(events: Iterable[Event]) -> set[int]:
    """The numbers of those events where a process leaves and hands that to the guard, which recycles its worker."""
    last: dict[int, int] = {}
    found = set()
    for number, event in enumerate(events):
        if event.kind == "leaving":
            last[event.pid] = number
        elif event.kind == "wanted" and event.pid in last:
            found.add(last.pop(event.pid))
    return found


def _left(event: Event) -> End:
    """A process of a pool tells only why."""
    detail, freed = event.body.get("reason", ""), _freed(event.body)
    return End(at=event.at, pid=event.pid, reason="recycled", detail=detail, life_s=None, freed=freed, away_s=None)


def _freed(levels: dict[str, Any]) -> int:
    return max(int(levels.get("level", 0)) - int(levels.get("base", 0)), 0)
