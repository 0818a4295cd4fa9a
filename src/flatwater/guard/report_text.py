"""The report on a record as it is printed."""

from __future__ import annotations

import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from flatwater.guard.ending import End
from flatwater.guard.hint import release_command
from flatwater.guard.record import Record
from flatwater.guard.report import ProcessSummary, Summary, TaskSummary, summary
from flatwater.quantity import size

_WELL = ("recycled", "stopped")


def text(record: Record) -> str:
    """Everything that the record has to tell; what it has nothing of is left out."""
    found = summary(record)
    file = str(Path(record.name).absolute())
    parts = [
        _workers(found, file),
        _table(found.tasks),
        _processes(found.processes),
        _advice(found),
        _listed("Workers that did not end well", [_end(end) for end in found.ended if end.reason not in _WELL]),
        _listed("Held after its time", [_held(row) for row in _latest(found.retained)]),
        _listed("Tasks that were killed", [_killed(row) for row in found.killed]),
        _listed("Tasks whose process died", [_interrupted(row) for row in found.interrupted]),
        _listed("Quarantined, refused until released", [_quarantined(name, file) for name in found.quarantined]),
    ]
    return "\n\n".join(part for part in parts if part)


def _listed(head: str, lines: Iterable[str]) -> str:
    """The last twenty."""
    shown = list(lines)[-20:]
    return "\n  ".join([f"{head}:", *shown]) if shown else ""


def _workers(found: Summary, file: str) -> str:
    since = "nothing yet" if found.since is None else f"since {_time(found.since)}"
    ends = ", ".join(f"{count} {reason}" for reason, count in sorted(found.ends.items())) or "none"
    lines = [f"{file}, {since}", f"Workers: {found.starts} started; ended: {ends}"]
    if found.unstartable:
        lines.append(f"Not started: {_times(found.unstartable)}, the last time: {found.start_error}")
    if found.recycled:
        lines.append(
            f"Recycled: {_times(found.recycled)}, which gave {size(found.given_back)} back; "
            f"places without a worker for {found.away_s:.1f} s in all"
        )
    if found.trims:
        lines.append(f"Trimmed: {_times(found.trims)}, which gave {size(found.trimmed)} back in {found.trim_s:.1f} s")
    return "\n".join(lines)


def _times(count: int) -> str:
    return f"{count:,} time" if count == 1 else f"{count:,} times"


def _time(at: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(at))


def _table(tasks: tuple[TaskSummary, ...]) -> str:
    if not tasks:
        return "No task was reported: give the worker an integration: flatwater.guard.huey, celery, …."
    lines = [f"{'task':40} {'calls':>7} {'failed':>6} {'mean':>8} {'peak':>9} {'grows per call':>24} {'share':>6}"]
    for task in tasks[:50]:
        share = "" if task.share is None else f"{task.share:.0%}"
        name = task.name if len(task.name) <= 40 else f"…{task.name[-39:]}"
        lines.append(
            f"{name:40} {task.count:7,} {task.failed:6,} {task.mean_s * 1000:6.1f}ms {size(task.peak):>9} "
            f"{_growth(task):>24} {share:>6}"
        )
    if len(tasks) > 50:
        lines.append(f"and {len(tasks) - 50} more")
    lines.append("(peak: of the whole process; grows: with its 95 % margin; share: of the growth of its process)")
    return "\n".join(lines)


def _growth(task: TaskSummary) -> str:
    if task.per_call is None or task.low is None or task.high is None:
        return "too few calls"
    if task.low <= 0:
        return f"no (at most {size(max(task.high, 0))})"
    return f"{size(task.per_call)} ± {size(task.high - task.per_call)}"


def _processes(processes: tuple[ProcessSummary, ...]) -> str:
    """Of those that live, else of the three that ended last."""
    living = [one for one in processes if one.lives]
    head = "After their last task" if living else "After their last task, of processes that ended since"
    return _listed(head, [_process(one) for one in (living or processes[:3])])


def _process(one: ProcessSummary) -> str:
    trims = f"; trimmed {_times(one.trims)}, {size(one.trimmed)} given back" if one.trims else ""
    holders = one.holders or ("" if one.back else "which allocator holds it has not been measured")
    return f"pid {one.pid}, {one.worker}: {one.rest}{trims}" + (f"\n      {holders}" if holders else "")


def _advice(found: Summary) -> str:
    """What to do next, where a task grows and its process can be looked into."""
    grows = [task.name for task in found.tasks if task.low is not None and task.low > 0]
    living = sorted((one for one in found.processes if one.lives), key=lambda one: one.base - one.level)
    if not grows or not living:
        return ""
    return f"What {grows[0]} leaves behind, who holds it and which line makes it: flatwater diagnose {living[0].pid}"


def _end(end: End) -> str:
    detail = end.detail.removeprefix(end.reason).lstrip(" :")
    life = "" if end.life_s is None else f", {end.life_s:.1f} s old"
    return f"{_time(end.at)} pid {end.pid}{life}: {end.reason}, {detail}"


def _latest(rows: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    return list({(row["owner"], row["type"]): row for row in rows}.values())[-10:]


def _held(row: dict[str, Any]) -> str:
    advice = f"\n      {row['advice']}" if row["advice"] else ""
    return f"{row['name']}\n      {row['path'] or row['why']}{advice}"


def _killed(row: dict[str, Any]) -> str:
    figures = "".join(f"; {word} {size(row[word])}" for word in ("peak", "limit") if row.get(word))
    held = f"\n      held by {row['holders']}" if row.get("holders") else ""
    return f"{_time(row['at'])} {row['name']} [{row['id']}], pid {row['pid']}: {row['reason']}{figures}{held}"


def _interrupted(row: dict[str, Any]) -> str:
    return f"{_time(row['at'])} {row['name']} [{row['id']}], pid {row['pid']}"


def _quarantined(name: str, file: str) -> str:
    return f"{name}   ({release_command(name, file)})"
