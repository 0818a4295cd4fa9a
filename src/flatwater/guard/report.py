"""What a record says in figures: which task grows, what recycling and trims gave back, what was killed."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterable
from typing import Any

import msgspec

from flatwater.guard.ending import End, endings
from flatwater.guard.flight import started
from flatwater.guard.record import Event, Process, Record
from flatwater.quantity import size

_MAX_ENDS = 20
_MAX_PROCESSES = 20
_BACK = 0.1  # a process so little above its start, as a part of it, has given all back


class TaskSummary(msgspec.Struct, frozen=True, kw_only=True):
    """A task over all processes of the record. Bytes and seconds; growth is None where it could not be told."""

    name: str
    count: int
    failed: int
    mean_s: float
    max_s: float
    peak: int
    rise: int
    per_call: float | None
    low: float | None
    high: float | None
    share: float | None


class ProcessSummary(Process, frozen=True, kw_only=True):
    """A process that runs tasks, as it last told of itself.

    ``back`` is whether it is within 10 % of its first level, which ``rest`` says in words. While it is not, ``holders``
    says which allocators have its memory, and what a trim may return.
    """

    lives: bool
    back: bool
    rest: str


class Summary(msgspec.Struct, frozen=True, kw_only=True):
    """The record in figures; ``given_back`` is what recycling freed (bytes), ``away_s`` how long places stood empty.

    ``recycled`` counts workers, and processes of pools that left alone. ``trims``, ``trimmed`` (bytes) and ``trim_s``
    are of all processes in the record; ``processes`` are the newest 20, those that live first. ``since`` is when the
    record begins (seconds since the epoch, None when it is empty): what is older has been forgotten. ``interrupted``
    are the newest 20 tasks whose process died without a known reason, ``unstartable``
    counts starts that failed, the last one with ``start_error``.
    """

    since: float | None
    tasks: tuple[TaskSummary, ...]
    processes: tuple[ProcessSummary, ...]
    trims: int
    trimmed: int
    trim_s: float
    starts: int
    ends: dict[str, int]
    recycled: int
    given_back: int
    away_s: float
    ended: tuple[End, ...]
    killed: tuple[dict[str, Any], ...]
    interrupted: tuple[dict[str, Any], ...]
    unstartable: int
    start_error: str
    retained: tuple[dict[str, Any], ...]
    quarantined: tuple[str, ...]


def summary(record: Record) -> Summary:
    """Read a record's figures."""
    events = record.events(limit=10_000)
    by_kind: dict[str, list[Event]] = defaultdict(list)
    for event in events:
        by_kind[event.kind].append(event)
    ends = Counter(event.body["reason"] for event in by_kind["end"] if "reason" in event.body)
    ended = endings(events)
    recycled = [end for end in ended if end.reason == "recycled"]
    processes = record.processes()
    return Summary(
        since=events[0].at if events else None,
        tasks=_tasks(record.tasks()),
        processes=_processes(processes),
        trims=sum(one.trims for one in processes),
        trimmed=sum(one.trimmed for one in processes),
        trim_s=sum(one.trim_s for one in processes),
        starts=len(by_kind["start"]),
        ends=dict(ends),
        recycled=len(recycled),
        given_back=sum(end.freed for end in recycled),
        away_s=_away(by_kind["start"]),
        ended=tuple(end for end in ended if end.reason != "stopped")[-_MAX_ENDS:],
        killed=_told(by_kind["killed"]),
        interrupted=_told(by_kind["interrupted"])[-_MAX_ENDS:],
        unstartable=len(by_kind["unstartable"]),
        start_error=by_kind["unstartable"][-1].body["error"] if by_kind["unstartable"] else "",
        retained=tuple(event.body for event in by_kind["retained"]),
        quarantined=tuple(record.quarantined()),
    )


def _told(events: Iterable[Event]) -> tuple[dict[str, Any], ...]:
    return tuple(event.body | {"at": event.at, "pid": event.pid} for event in events)


def _processes(processes: list[Process]) -> tuple[ProcessSummary, ...]:
    found = [
        ProcessSummary(
            **msgspec.structs.asdict(one), lives=started(one.pid) == one.start, back=_is_back(one), rest=_rest(one)
        )
        for one in reversed(processes)
    ]
    return tuple(sorted(found, key=lambda one: not one.lives)[:_MAX_PROCESSES])


def _is_back(process: Process) -> bool:
    return process.level <= process.base * (1 + _BACK)


def _rest(process: Process) -> str:
    """How far a process is back at its start, in words."""
    level, base = process.level, process.base
    if not level or not base:
        return "its level is not known"
    above = (level - base) / base
    if above <= 0:
        return f"back at its start ({size(base)})"
    if _is_back(process):
        return f"back within {math.ceil(above * 100)} % of its start ({size(base)})"
    return f"{above * 100:.0f} % above its start ({size(base)} → {size(level)})"


def _tasks(rows: Iterable[dict[str, Any]]) -> tuple[TaskSummary, ...]:
    groups: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for row in rows:
        groups[row["name"]].append(row)
    tasks = [_task(name, group) for name, group in groups.items()]
    return tuple(sorted(tasks, key=lambda task: -(task.per_call or 0) * task.count))


def _task(name: str, rows: list[dict[str, Any]]) -> TaskSummary:
    count = sum(row["count"] for row in rows)
    fitted = [row for row in rows if row["per_call"] is not None]
    weight = sum(row["count"] for row in fitted)
    growth = sum(row["per_call"] * row["count"] for row in fitted) / weight if weight else None
    # Processes are independent: the margin of their weighted mean.
    margin = sum(((row["high"] - row["per_call"]) * row["count"]) ** 2 for row in fitted) ** 0.5 / (weight or 1)
    shares = [(row["share"], row["count"]) for row in fitted if row["share"] is not None]
    return TaskSummary(
        name=name,
        count=count,
        failed=sum(row["failed"] for row in rows),
        mean_s=sum(row["total_s"] for row in rows) / count if count else 0.0,
        max_s=max(row["max_s"] for row in rows),
        peak=max(row["peak"] for row in rows),
        rise=max(row["rise"] for row in rows),
        per_call=growth,
        low=None if growth is None else growth - margin,
        high=None if growth is None else growth + margin,
        share=sum(share * often for share, often in shares) / sum(often for _, often in shares) if shares else None,
    )


def _away(starts: list[Event]) -> float:
    """Seconds between the end of a worker and the next start in its place, as the supervisor's own clock had them."""
    return float(sum(event.body.get("away_s", 0.0) for event in starts))
