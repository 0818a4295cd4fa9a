"""What a recording says: per process its life, figures, trend and time to the limit, and one verdict for all."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import msgspec

from flatwater.memory.agent_figures import HOLDER, HOLDER_BOUND, HOLDER_BYTES
from flatwater.memory.recording_read import ProcessLine, Reader, stamp
from flatwater.memory.trend import Trend, trend
from flatwater.quantity import duration, rate, size

RESTART_S: Final = 120.0
_SHOWN: Final = 8
_AGENT_CHANGES: Final = {
    "blocks": "Python blocks",
    "tasks": "asyncio tasks",
    "gc_uncollectable": "uncollectable objects",
    "pool_checked_out": "connections given out",
}


class ProcessSummary(msgspec.Struct, frozen=True, kw_only=True):
    """One process. Bytes, seconds, wall times in seconds since 1970.

    ``restart_of`` and ``restarted_as`` are ids of this report: a process of the same command that ended shortly before
    this one began, or began after. ``time_to_limit_s`` is None unless the process grows for sure.
    """

    id: int
    pid: int
    label: str
    command: str
    started_at: float
    seen_at: float
    last_at: float
    seconds: float
    ending: str
    killed_for_memory: bool
    figures: dict[str, int | None]
    first_rss: int
    peak_rss: int
    mean_rss: float
    cpu_percent: float | None
    trend: Trend | None
    limit: int
    limit_of: str
    time_to_limit_s: float | None
    restart_of: int | None
    restarted_as: int | None
    changes: list[str]
    agent: dict[str, float]
    verdict: str

    @property
    def kind(self) -> str:
        """The trend in one word; ``short`` when there are too few samples."""
        return self.trend.kind if self.trend is not None else "short"


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """``verdict`` is what a person reads first. Processes: the growing ones first, then by peak."""

    verdict: str
    recording: str
    selection: str
    begin: float
    end: float
    processes: list[ProcessSummary]
    restarts: int
    oom_kills: int
    alerts: list[str]


def summarize(reader: Reader, *, figure: str = "rss") -> Report:
    """Read everything. ``figure``: which of rss, pss, uss the trend is taken of."""
    lines = reader.processes()
    before = restarts(lines)
    after = {old: new for new, old in before.items()}
    found = [_process(reader, line, figure, before.get(line.id), after.get(line.id)) for line in lines]
    order = {"growing": 0}
    found.sort(key=lambda one: (order.get(one.kind, 1), -one.peak_rss))
    events = reader.events()
    times = [(line.first, line.last) for line in lines] or [(0.0, 0.0)]
    kills = sum(one.killed_for_memory for one in found)
    return Report(
        verdict=_verdict(found, len(before), kills),
        recording=str(reader.path),
        selection=reader.meta.get("selection", ""),
        begin=reader.wall(min(first for first, _ in times)),
        end=reader.wall(max(last for _, last in times)),
        processes=found,
        restarts=len(before),
        oom_kills=kills,
        alerts=[f"{stamp(reader.wall(event.t))}  {event.detail}" for event in events if event.kind == "alert"],
    )


def restarts(lines: Sequence[ProcessLine]) -> dict[int, int]:
    """Who took whose place: new id → old id. The same command, begun within `RESTART_S` after the other's end."""
    found: dict[int, int] = {}
    taken: set[int] = set()
    for line in sorted(lines, key=lambda one: one.first):
        ended = [
            other
            for other in lines
            if other.ended is not None
            and other.command == line.command
            and other.id not in taken
            and other.id != line.id
            and 0 <= line.first - other.ended + 1.0 <= RESTART_S
            and other.first < line.first
        ]
        if ended:
            old = min(ended, key=lambda other: line.first - (other.ended or 0.0))
            taken.add(old.id)
            found[line.id] = old.id
    return found


def _process(reader: Reader, line: ProcessLine, figure: str, old: int | None, new: int | None) -> ProcessSummary:
    points = reader.series(line.id, figure)
    rss = points if figure == "rss" else reader.series(line.id)
    found = trend(points, ended=line.ended is not None)
    latest = reader.latest(line.id)
    limit, of = _limit(reader, line)
    reach = _reach(reader, line, found, limit)
    cpu = (latest["user_ms"] or 0) + (latest["system_ms"] or 0)
    lived = line.last - line.started
    summary = ProcessSummary(
        id=line.id,
        pid=line.pid,
        label=line.label,
        command=line.command,
        started_at=reader.wall(line.started),
        seen_at=reader.wall(line.first),
        last_at=reader.wall(line.last),
        seconds=line.last - line.first,
        ending=line.ending,
        killed_for_memory=line.oom,
        figures=latest,
        first_rss=round(rss[0].value),
        peak_rss=line.peak_rss,
        mean_rss=sum(point.value for point in rss) / len(rss),
        cpu_percent=round(cpu / lived / 10, 2) if lived > 0 else None,
        trend=found,
        limit=limit,
        limit_of=of,
        time_to_limit_s=reach,
        restart_of=old,
        restarted_as=new,
        changes=_changes(reader, line),
        agent={name: told[-1][1] for name, told in reader.agent_figures(line.id).items()},
        verdict="",
    )
    return msgspec.structs.replace(summary, verdict=_sentence(summary, figure))


def _limit(reader: Reader, line: ProcessLine) -> tuple[int, str]:
    limit = reader.limit(line.group)
    if limit is not None and limit < (reader.machine_bytes or limit + 1):
        return limit, f"control group {line.group}"
    return reader.machine_bytes, "machine"


def _reach(reader: Reader, line: ProcessLine, found: Trend | None, limit: int) -> float | None:
    """Seconds until what cannot be given back in the group (or the process's own, without a group) is the limit."""
    if found is None or not found.grows or line.ended is not None or not limit:
        return None
    used = found.end
    rows = reader.group(line.group) if line.group is not None else []
    if rows and rows[-1].limit == limit and rows[-1].used is not None:
        used = max(used, rows[-1].used - (rows[-1].file or 0))
    return max(0.0, (limit - used) / found.per_s)


def _changes(reader: Reader, line: ProcessLine) -> list[str]:
    """What else moved between the first and the last look: threads, descriptors, swap, shares."""
    found = []
    for figure, least in (("rss", 2**20), ("pss", 2**20), ("uss", 2**20), ("swap", 2**20), ("threads", 2), ("fds", 5)):
        first, last = reader.ends(line.id, figure) or (0, 0)
        if abs(last - first) >= max(least, 0.02 * abs(first)):
            shown = (f"{first:.0f}", f"{last:.0f}") if figure in ("threads", "fds") else (size(first), size(last))
            found.append(f"{figure} {shown[0]} → {shown[1]}")
    told = reader.agent_figures(line.id)
    for name, points in told.items():
        if name in _AGENT_CHANGES and abs(points[-1][1] - points[0][1]) >= max(5, 0.02 * abs(points[0][1])):
            found.append(f"{_AGENT_CHANGES[name]} {points[0][1]:.0f} → {points[-1][1]:.0f}")
    arenas = [value for _, value in told.get("arenas", [])]
    if arenas and abs(arenas[-1] - arenas[0]) >= max(2**20, 0.02 * arenas[0]):
        found.append(f"Python's arenas {size(arenas[0])} → {size(arenas[-1])}")
    return found + _holders(told)


def _holders(told: dict[str, list[tuple[float, float]]]) -> list[str]:
    """Bounded holders that hold more than at first, those first that came nearest to their bound."""
    rows = []
    for figure, points in told.items():
        name = figure.removeprefix(HOLDER)
        first, last = points[0][1], points[-1][1]
        if name == figure or last - first < max(5, 0.02 * first):
            continue
        bounds = told.get(HOLDER_BOUND + name)
        held = told.get(HOLDER_BYTES + name)
        of = f" of {bounds[-1][1]:,.0f}" if bounds else ""
        full = f" ({size(held[0][1])} → {size(held[-1][1])})" if held else ""
        part = (last - first) / bounds[-1][1] if bounds and bounds[-1][1] else 0.0
        rows.append((-part, f"held by {name} {first:,.0f} → {last:,.0f}{of}{full}"))
    return [text for _, text in sorted(rows)[:_SHOWN]]


def _sentence(one: ProcessSummary, figure: str) -> str:
    name = f"{one.label} (pid {one.pid})"
    dead = f"; {one.ending}" if one.ending != "running" else ""
    found = one.trend
    if found is None:
        return f"{name}: too few samples for a trend{dead}"
    over = f"over the last {duration(found.until - found.since)}"
    if found.kind == "plateau":
        return f"{name}: {figure} stays at {size(found.level)} {over}{dead}"
    if found.kind == "unclear":
        return f"{name}: {figure} moves around {size(found.level)}, no trend is sure {over}{dead}"
    verb = "grows" if found.kind == "growing" else "shrinks"
    bounds = f"95 %: {rate(found.low)} to {rate(found.high)}"
    reach = one.time_to_limit_s
    limit = f"; {size(one.limit)} ({one.limit_of}) in {duration(reach)}" if reach is not None else ""
    return f"{name}: {figure} {verb} by {rate(found.per_s).lstrip('+-')} ({bounds}) {over}{limit}{dead}"


def _verdict(found: Sequence[ProcessSummary], restarted: int, kills: int) -> str:
    if not found:
        return "Nothing was recorded."
    growing = [one for one in found if one.kind == "growing"]
    parts = []
    if kills:
        parts.append(f"KILLED FOR MEMORY: {_count(kills, 'process')}.")
    if growing:
        worst = max(growing, key=lambda one: one.trend.per_s if one.trend is not None else 0.0)
        others = f" {_count(len(growing) - 1, 'other process')} too." if len(growing) > 1 else ""
        parts.append(f"GROWING: {worst.verdict}.{others}")
    else:
        flat = sum(one.kind in ("plateau", "shrinking") for one in found)
        unclear = sum(one.kind == "unclear" for one in found)
        short = sum(one.kind == "short" for one in found)
        rest = [f"{number} {words}" for number, words in ((unclear, "unclear"), (short, "too short to say")) if number]
        detail = f" ({', '.join(rest)})" if rest else ""
        head = "FLAT" if flat else "UNCLEAR"
        parts.append(f"{head}: {flat} of {_count(len(found), 'process')} at a plateau, none grows for sure{detail}.")
    if restarted:
        parts.append(f"{_count(restarted, 'restart')}.")
    return " ".join(parts)


def _count(number: int, noun: str) -> str:
    plural = f"{noun}es" if noun.endswith("s") else f"{noun}s"
    return f"{number} {noun if number == 1 else plural}"


def document(report: Report) -> Any:
    """The report for JSON; its fields are those of `Report`."""
    return msgspec.to_builtins(report)


def text(report: Report, *, max_processes: int = 50) -> str:
    """The report for a terminal."""
    lines = [report.verdict, ""]
    span = duration(report.end - report.begin)
    lines.append(f"{report.recording}: {_count(len(report.processes), 'process')}, {stamp(report.begin)} + {span}")
    if report.selection:
        lines.append(f"selected by {report.selection}")
    names = {one.id: f"pid {one.pid}" for one in report.processes}
    for one in report.processes[:max_processes]:
        lines += ["", *_lines(one, names)]
    if (left := len(report.processes) - max_processes) > 0:
        lines += ["", f"… and {left} more (--json has all)"]
    if report.alerts:
        lines += ["", "alerts", *(f"  {line}" for line in report.alerts[-_SHOWN:])]
    return "\n".join(lines) + "\n"


def _lines(one: ProcessSummary, names: dict[int, str]) -> list[str]:
    figures = one.figures
    shares = ", ".join(f"{name} {size(value)}" for name in ("pss", "uss", "swap") if (value := figures[name]))
    cpu = f", cpu {one.cpu_percent:g} %" if one.cpu_percent is not None else ""
    fds = f", {_count(figures['fds'], 'descriptor')}" if figures["fds"] is not None else ""
    found = [
        f"{one.kind.upper():<9} {one.verdict}",
        f"          rss {size(figures['rss'] or 0)}, peak {size(one.peak_rss)}, mean {size(one.mean_rss)}"
        + (f"; {shares}" if shares else ""),
        f"          started {stamp(one.started_at)}, seen for {duration(one.seconds)}, {one.ending}{cpu}",
        f"          {_count(figures['threads'] or 0, 'thread')}{fds}",
    ]
    if one.changes:
        found.append(f"          changed: {', '.join(one.changes)}")
    if one.restart_of is not None:
        found.append(f"          took the place of {names.get(one.restart_of, '?')}")
    return found
