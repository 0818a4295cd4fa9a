"""What a record says, for people: which task grows, what recycling cost and gave back, what was killed."""

from __future__ import annotations

import time
from collections import Counter, defaultdict
from collections.abc import Iterable
from typing import Any

import msgspec

from flatwater.guard.record import Event, Record
from flatwater.quantity import size

_MAX_ENDS = 20


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


class End(msgspec.Struct, frozen=True, kw_only=True):
    """A worker, or a process of its pool, that did not end by order of an operator.

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


class Summary(msgspec.Struct, frozen=True, kw_only=True):
    """The record in figures; ``given_back`` is what recycling freed (bytes), ``away_s`` how long places stood empty."""

    tasks: tuple[TaskSummary, ...]
    starts: int
    ends: dict[str, int]
    recycled: int
    given_back: int
    away_s: float
    ended: tuple[End, ...]
    killed: tuple[dict[str, Any], ...]
    retained: tuple[dict[str, Any], ...]
    quarantined: tuple[str, ...]


def summary(record: Record) -> Summary:
    """Read a record's figures."""
    events = record.events(limit=10_000)
    by_kind: dict[str, list[Event]] = defaultdict(list)
    for event in events:
        by_kind[event.kind].append(event)
    ends = Counter(event.body["reason"] for event in by_kind["end"] if "reason" in event.body)
    leaving = by_kind["leaving"]
    return Summary(
        tasks=_tasks(record.tasks()),
        starts=len(by_kind["start"]),
        ends=dict(ends),
        recycled=max(ends["recycled"], len(leaving)),
        given_back=_given_back(by_kind["end"], leaving),
        away_s=_away(by_kind["start"]),
        ended=_ended(events)[-_MAX_ENDS:],
        killed=tuple(event.body | {"at": event.at, "pid": event.pid} for event in by_kind["killed"]),
        retained=tuple(event.body for event in by_kind["retained"]),
        quarantined=tuple(record.quarantined()),
    )


def text(record: Record) -> str:
    """The report as it is printed."""
    found = summary(record)
    parts = [_workers(found), _table(found.tasks)]
    if found.retained:
        parts.append("Held after its time:\n" + "\n".join(_held(row) for row in _latest(found.retained)))
    if found.killed:
        parts.append("Killed:\n" + "\n".join(_killed(row) for row in found.killed[-20:]))
    if found.quarantined:
        released = "".join(f"\n  {name}   (flatwater guard release {name})" for name in found.quarantined)
        parts.append(f"Quarantined:{released}")
    return "\n\n".join(part for part in parts if part)


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


def _given_back(ends: list[Event], leaving: list[Event]) -> int:
    """What workers that were recycled, and processes of pools that left, held beyond what they began with."""
    recycled = {event.pid: event for event in ends if event.body.get("reason") == "recycled"}
    children = {event.pid: event for event in leaving if event.pid not in recycled}
    left = [*recycled.values(), *children.values()]
    return sum(max(event.body.get("level", 0) - event.body.get("base", 0), 0) for event in left)


def _ended(events: list[Event]) -> tuple[End, ...]:
    ended: dict[int, End] = {}  # by the number of the event
    living: Counter[int] = Counter()  # by place
    empty: dict[int, int] = {}  # places, and the event since which they are
    workers = {event.pid for event in events if event.kind == "start"}
    for number, event in enumerate(events):
        body, slot = event.body, event.body.get("slot", -1)
        if event.kind == "start":
            living[slot] += 1
            if (former := empty.pop(slot, None)) is not None:
                ended[former] = msgspec.structs.replace(ended[former], away_s=body.get("away_s"))
        elif event.kind == "end" and "reason" in body:
            living[slot] -= 1
            if body["reason"] != "stopped":
                ended[number] = _end(event, 0.0 if living[slot] > 0 else None)
                if living[slot] <= 0:
                    empty[slot] = number
        elif event.kind == "leaving" and event.pid not in workers:
            ended[number] = _end(event, None)
    return tuple(ended.values())


def _end(event: Event, away_s: float | None) -> End:
    body = event.body
    freed = max(body.get("level", 0) - body.get("base", 0), 0)
    reason, detail = body["reason"], body.get("detail")
    if detail is None:  # a process of a pool tells only why
        reason, detail = "recycled", reason
    return End(
        at=event.at, pid=event.pid, reason=reason, detail=detail, life_s=body.get("life_s"), freed=freed, away_s=away_s
    )


def _away(starts: list[Event]) -> float:
    """Seconds between the end of a worker and the next start in its place, as the supervisor's own clock had them."""
    return float(sum(event.body.get("away_s", 0.0) for event in starts))


def _workers(found: Summary) -> str:
    ends = ", ".join(f"{count} {reason}" for reason, count in sorted(found.ends.items())) or "none"
    lines = [f"Workers: {found.starts} started; ended: {ends}"]
    if found.recycled:
        lines.append(
            f"Recycling: {found.recycled} {_times(found.recycled)}, {size(found.given_back)} given back, "
            f"places empty for {found.away_s:.1f} s together"
        )
    return "\n".join(lines)


def _times(count: int) -> str:
    return "time" if count == 1 else "times"


def _table(tasks: tuple[TaskSummary, ...]) -> str:
    if not tasks:
        return "No task was reported: give the worker an integration: flatwater.guard.huey, celery, …."
    lines = [f"{'task':40} {'calls':>7} {'failed':>6} {'mean':>8} {'peak':>9} {'grows per call':>24} {'share':>6}"]
    for task in tasks[:50]:
        share = "" if task.share is None else f"{task.share:.0%}"
        lines.append(
            f"{task.name[-40:]:40} {task.count:7,} {task.failed:6,} {task.mean_s * 1000:6.1f}ms {size(task.peak):>9} "
            f"{_growth(task):>24} {share:>6}"
        )
    return "\n".join(lines)


def _growth(task: TaskSummary) -> str:
    if task.per_call is None or task.low is None or task.high is None:
        return "too few calls"
    if task.low <= 0:
        return f"no (at most {size(max(task.high, 0))})"
    return f"{size(task.per_call)} ± {size(task.high - task.per_call)}"


def _latest(rows: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    return list({(row["owner"], row["type"]): row for row in rows}.values())[-10:]


def _held(row: dict[str, Any]) -> str:
    advice = f"\n      {row['advice']}" if row["advice"] else ""
    return f"  {row['name']}\n      {row['path'] or row['why']}{advice}"


def _killed(row: dict[str, Any]) -> str:
    at = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(row["at"]))
    figures = ", ".join(f"{word} {size(row[word])}" for word in ("peak", "limit") if row.get(word))
    held = f"\n      held by {row['holders']}" if row.get("holders") else ""
    return f"  {at} {row['name']} [{row['id']}], pid {row['pid']}: {row['reason']}; {figures}{held}"
