"""From a recording to a chart: which processes get a colour and a name, what is said beside their lines."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final, NamedTuple

from flatwater.errors import InputError, StoreError
from flatwater.memory import chart
from flatwater.memory.agent_figures import HOLDER
from flatwater.memory.chart import Chart, Series
from flatwater.memory.recording_read import AGENT_FIGURES, BYTES, FIGURES, Point, ProcessLine, Reader
from flatwater.memory.summary import restarts
from flatwater.memory.trend import Trend, trend
from flatwater.quantity import duration, rate, size

MAX_NAMED: Final = 8
MAX_LINES: Final = 400
FORMATS: Final = (".svg", ".png", ".html")
_TITLES: Final = {
    "rss": "Resident memory (RSS)",
    "pss": "Proportional memory (PSS)",
    "uss": "Memory of its own (USS)",
    "swap": "Swapped out",
    "vms": "Address space (VMS)",
    "cpu": "CPU, percent of one",
    "threads": "Threads",
    "fds": "Open descriptors",
    "blocks": "Small Python objects",
    "arenas": "Python's arenas and other mappings",
    "malloc_used": "malloc, in use",
    "malloc_free": "malloc, free",
    "tasks": "asyncio tasks",
    "pool_checked_out": "Connections given out",
    "ledger": "Entries of bounded holders",
}
# A gap in a line: no sample for so much longer than between the samples around it.
_GAP_TIMES: Final = 6.0
_GAP_LEAST_S: Final = 5.0


class _Curve(NamedTuple):
    """What becomes a line: a figure of a process, or of one of its holders."""

    process: ProcessLine
    name: str
    points: Sequence[Point]


def build(reader: Reader, *, figure: str = "rss", since_s: float | None = None, max_named: int = MAX_NAMED) -> Chart:
    """The chart of one figure. ``since_s``: only the last seconds. The ``max_named`` largest get colour and name."""
    if figure not in (*FIGURES, *AGENT_FIGURES):
        raise InputError(f"no figure {figure}", hint=f"there are {', '.join((*FIGURES, *AGENT_FIGURES))}")
    lines = reader.processes()
    last = max((line.last for line in lines), default=0.0)
    begin = last - since_s if since_s is not None else None
    found = [curve for line in lines for curve in _curves(reader, line, figure, begin) if curve.points]
    found.sort(key=lambda curve: -max(point.high for point in curve.points))
    left_out = max(0, len(found) - MAX_LINES)
    found = found[:MAX_LINES]
    trends = [trend(curve.points, ended=curve.process.ended is not None) for curve in found[:max_named]]
    series = [
        _series(curve, trends[number] if number < max_named else None, figure, named=number < max_named)
        for number, curve in enumerate(found)
    ]
    shown = {curve.process.id for curve in found}
    again = [line for line in lines if line.id in restarts(lines) and line.id in shown and line.first >= (begin or 0)]
    first = min((curve.points[0].t for curve in found), default=0.0)
    return Chart(
        title=_title(figure, found),
        subtitle=_subtitle(reader, found, trends, figure, (first, last), len(found) - max_named, left_out),
        figure=figure,
        bytes=figure in BYTES,
        wall=reader.wall(first) - first,
        series=tuple(series),
        limit=_limit(reader, [curve.process for curve in found]) if figure in BYTES else None,
        marks=tuple((line.first, "restart") for line in again),
    )


def write(drawn: Chart, path: Path) -> None:
    """As the name's ending says: .svg, .png or .html. Raises InputError for another, StoreError for the disk."""
    kind = path.suffix.lower()
    if kind not in FORMATS:
        raise InputError(
            f"no format {kind or 'without an ending'}", where=str(path), hint=f"end it in {', '.join(FORMATS)}"
        )
    picture = chart.layout(drawn)
    if kind == ".png":
        from flatwater.memory import chart_png

        data = chart_png.render(picture)
    elif kind == ".svg":
        from flatwater.memory import chart_svg

        data = chart_svg.render(picture, title=drawn.title).encode()
    else:
        from flatwater.memory import chart_html

        data = chart_html.render(drawn, picture).encode()
    try:
        path.write_bytes(data)
    except OSError as error:
        raise StoreError(error.strerror or str(error), where=str(path)) from None


def _curves(reader: Reader, line: ProcessLine, figure: str, begin: float | None) -> list[_Curve]:
    """A process is one curve; of the bounded holders each is one."""
    if figure != "ledger":
        return [_Curve(line, line.label, reader.series(line.id, figure, since=begin))]
    names = reader.holders(line.id)
    return [_Curve(line, name, reader.series(line.id, HOLDER + name, since=begin)) for name in names]


def _series(curve: _Curve, found: Trend | None, figure: str, *, named: bool) -> Series:
    line, name, points = curve
    fit = None
    if found is not None and found.kind != "unclear":
        fit = ((found.since, found.start), (found.until, found.end))
    mark = "" if line.ended is None else "oom" if line.oom else "end"
    note = " · ".join([f"pid {line.pid}", _amount(points[-1].value, figure), *_note(line, found, figure)])
    key = str(line.id) if figure != "ledger" else f"{line.id} {name}"
    return Series(key, name, note, pieces(points), fit, mark, named)


def _note(line: ProcessLine, found: Trend | None, figure: str) -> list[str]:
    words = []
    if found is not None and found.kind in ("growing", "shrinking"):
        words.append(rate(found.per_s) if figure in BYTES else f"{found.per_s * 3600:+.3g}/h")
    elif found is not None and found.kind == "plateau":
        words.append("plateau")
    if line.ended is not None:
        words.append("OOM" if line.oom else line.ending.partition(" (")[0])
    return words


def pieces(points: Sequence[Point]) -> tuple[tuple[tuple[float, float, float, float], ...], ...]:
    """The points without the gaps: where nobody recorded there is no line."""
    found: list[list[tuple[float, float, float, float]]] = [[]]
    for number, point in enumerate(points):
        if number:
            step = point.t - points[number - 1].t
            around = [points[at + 1].t - points[at].t for at in (number - 2, number) if 0 <= at < len(points) - 1]
            if around and step > max(_GAP_LEAST_S, _GAP_TIMES * max(around)):
                found.append([])
        found[-1].append((point.t, point.value, point.low, point.high))
    return tuple(tuple(piece) for piece in found if piece)


def _amount(value: float, figure: str) -> str:
    return size(value) if figure in BYTES else f"{value:.3g}"


def _title(figure: str, found: Sequence[_Curve]) -> str:
    names = {curve.process.label for curve in found}
    what = next(iter(names)) if len(names) == 1 else f"{len({curve.process.id for curve in found})} processes"
    return f"{_TITLES[figure]} of {what}"


def _subtitle(
    reader: Reader,
    found: Sequence[_Curve],
    trends: Sequence[Trend | None],
    figure: str,
    span: tuple[float, float],
    others: int,
    left_out: int,
) -> str:
    begin = time.strftime("%Y-%m-%d %H:%M", time.localtime(reader.wall(span[0])))
    parts = [f"{begin}, {duration(max(0.0, span[1] - span[0]))}"]
    growing = [one for one in trends if one is not None and one.grows]
    if growing:
        worst = max(one.per_s for one in growing)
        fastest = rate(worst) if figure in BYTES else f"{worst * 3600:+.3g}/h"
        parts.append(f"{len(growing)} growing, the fastest by {fastest}")
    elif trends:
        parts.append("no growth that is sure")
    limit = _limit(reader, [curve.process for curve in found]) if figure in BYTES else None
    peak = max((point.high for curve in found for point in curve.points), default=0.0)
    if limit is not None and limit[0] > 2.2 * peak:
        parts.append(f"{limit[1]} is above the chart")
    if others > 0:
        parts.append(f"{others} smaller in grey")
    if left_out:
        parts.append(f"{left_out} not shown")
    return " · ".join(parts)


def _limit(reader: Reader, lines: Sequence[ProcessLine]) -> tuple[float, str] | None:
    """The tightest limit of the groups that these live in; else the machine's memory."""
    limits = [limit for path in {line.group for line in lines} if (limit := reader.limit(path)) is not None]
    if limits and (not reader.machine_bytes or min(limits) < reader.machine_bytes):
        return float(min(limits)), f"limit {size(min(limits))}"
    if reader.machine_bytes:
        return float(reader.machine_bytes), f"the machine's memory of {size(reader.machine_bytes)}"
    return None
