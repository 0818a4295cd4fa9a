"""A chart of memory over time: what it shows, and where each line and word goes. Renderers draw what `layout` gives."""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import Final

from flatwater.quantity import size

WIDTH: Final = 1180
HEIGHT: Final = 600
_LEFT, _RIGHT, _TOP, _BOTTOM = 72, 268, 84, 44

INK: Final = "#1f2933"
QUIET: Final = "#6b7785"
GRID: Final = "#e6eaee"
GREY: Final = "#c3cad2"
ALARM: Final = "#c8321f"
# Distinct for most eyes, colour-blind ones too, and dark enough for words on white.
COLOURS: Final = ("#1f6fb4", "#d9730d", "#2f8f5b", "#a5408c", "#7a5a1e", "#0b8a99", "#5b54c4", "#b33a5b")

Dot = tuple[float, float]


@dataclass(frozen=True, slots=True)
class Series:
    """One process. ``points`` are (t, value, low, high) in pieces without gaps; ``t`` in seconds.

    ``fit`` is a dashed line (t, value) to (t, value): the trend of the last part. ``mark`` says how it ended: "" runs,
    "end", "oom". ``note`` stands under the label.
    """

    key: str
    label: str
    note: str
    pieces: tuple[tuple[tuple[float, float, float, float], ...], ...]
    fit: tuple[Dot, Dot] | None = None
    mark: str = ""
    named: bool = True


@dataclass(frozen=True, slots=True)
class Chart:
    """Everything a picture shows. ``wall``: seconds since 1970 at t = 0 of the first point's clock; ``limit`` in the
    unit of the values; ``marks`` are moments with a word each (restarts).
    """

    title: str
    subtitle: str
    figure: str
    bytes: bool
    wall: float
    series: tuple[Series, ...]
    limit: tuple[float, str] | None = None
    marks: tuple[tuple[float, str], ...] = ()


@dataclass(frozen=True, slots=True)
class Line:
    """A polyline in pixels. ``key`` names the series it belongs to."""

    dots: tuple[Dot, ...]
    colour: str
    width: float = 1.0
    dash: tuple[float, float] | None = None
    opacity: float = 1.0
    key: str = ""


@dataclass(frozen=True, slots=True)
class Band:
    """The area between ``low`` and ``high`` at each x."""

    columns: tuple[tuple[float, float, float], ...]
    colour: str
    opacity: float
    key: str = ""


@dataclass(frozen=True, slots=True)
class Ring:
    """A circle filled with white."""

    at: Dot
    radius: float
    colour: str
    key: str = ""
    filled: bool = False


@dataclass(frozen=True, slots=True)
class Text:
    """One line of words; ``at`` is its baseline's start, middle or end."""

    at: Dot
    words: str
    size: float
    colour: str
    anchor: str = "start"
    bold: bool = False
    key: str = ""


Shape = Line | Band | Ring | Text


@dataclass(slots=True)
class Picture:
    """Shapes to draw, in order, and the scales that turn pixels back into figures."""

    width: int
    height: int
    left: float
    right: float
    top: float
    bottom: float
    begin: float
    end: float
    low: float
    high: float
    shapes: list[Shape] = field(default_factory=list)

    def x(self, t: float) -> float:
        return self.left + (t - self.begin) / (self.end - self.begin) * (self.right - self.left)

    def y(self, value: float) -> float:
        return self.bottom - (value - self.low) / (self.high - self.low) * (self.bottom - self.top)


def colours(series: Sequence[Series]) -> dict[str, str]:
    """A colour for each named series, grey for the others."""
    named = iter(COLOURS * (len(series) // len(COLOURS) + 1))
    return {one.key: next(named) if one.named else GREY for one in series}


def layout(chart: Chart, *, width: int = WIDTH, height: int = HEIGHT) -> Picture:
    """Place everything. An empty chart has axes and a word."""
    picture = _frame(chart, width, height)
    _head(picture, chart)
    _value_axis(picture, chart)
    _time_axis(picture, chart)
    _marks(picture, chart)
    _limit(picture, chart)
    hues = colours(chart.series)
    for one in sorted(chart.series, key=lambda one: one.named):  # grey first, below the others
        _curve(picture, one, hues[one.key])
    _labels(picture, [one for one in chart.series if one.named and one.pieces], hues)
    if not chart.series:
        middle = (picture.left + picture.right) / 2, (picture.top + picture.bottom) / 2
        picture.shapes.append(Text(middle, "nothing was recorded", 14, QUIET, "middle"))
    return picture


def _frame(chart: Chart, width: int, height: int) -> Picture:
    dots = [point for one in chart.series for piece in one.pieces for point in piece]
    begin = min((point[0] for point in dots), default=0.0)
    end = max((point[0] for point in dots), default=1.0)
    least = min((point[2] for point in dots), default=0.0)
    most = max((point[3] for point in dots), default=1.0)
    if chart.limit is not None and most <= chart.limit[0] <= 2.2 * most:
        most = chart.limit[0]
    low, high = value_range(least, most)
    ticks = value_ticks(low, high, bytes=chart.bytes)
    if len(ticks) > 1 and low > 0:
        low = min(ticks[0], max(0.0, ticks[0] - (ticks[1] - ticks[0])) if ticks[0] > least else ticks[0])
    if end - begin < 1:
        begin, end = begin - 0.5, end + 0.5
    return Picture(width, height, _LEFT, width - _RIGHT, _TOP, height - _BOTTOM, begin, end, low, high)


def value_range(least: float, most: float) -> tuple[float, float]:
    """Where the axis begins and ends: at 0, unless all values lie together far above it and move."""
    apart = most - least
    low = least - 0.15 * apart if apart and least > 0.7 * most else min(0.0, least)
    return low, most + 0.06 * (most - low) or 1.0


def _head(picture: Picture, chart: Chart) -> None:
    fits = int((picture.width - 48) / 6.1)
    subtitle = chart.subtitle if len(chart.subtitle) <= fits else chart.subtitle[: fits - 1] + "…"
    picture.shapes.append(Text((24, 32), chart.title, 17, INK, bold=True))
    picture.shapes.append(Text((24, 54), subtitle, 12.5, QUIET))


def value_ticks(low: float, high: float, *, bytes: bool, wanted: int = 6) -> list[float]:
    """Round values between ``low`` and ``high``; round in the binary unit for bytes."""
    unit = 1.0
    if bytes:
        unit = next((float(1024**power) for power in (3, 2, 1) if high >= 1.5 * 1024**power), 1.0)
    step = _round_step((high - low) / unit / wanted)
    first = math.ceil(low / unit / step - 1e-9)
    last = math.floor(high / unit / step + 1e-9)
    return [number * step * unit for number in range(first, last + 1)]


def _round_step(least: float) -> float:
    if least <= 0 or not math.isfinite(least):
        return 1.0
    power = 10.0 ** math.floor(math.log10(least))
    return next(factor * power for factor in (1, 2, 5, 10) if factor * power >= least * 0.999)


def _value_axis(picture: Picture, chart: Chart) -> None:
    for value in value_ticks(picture.low, picture.high, bytes=chart.bytes):
        y = picture.y(value)
        picture.shapes.append(Line(((picture.left, y), (picture.right, y)), GRID))
        words = size(value) if chart.bytes else f"{value:g}"
        picture.shapes.append(Text((picture.left - 10, y + 4), "0" if value == 0 else words, 11.5, QUIET, "end"))


_STEPS: Final = (
    *(0.1, 0.2, 0.5, 1, 2, 5, 10, 15, 30),
    *(60, 120, 300, 600, 900, 1800),
    *(3600, 7200, 10800, 21600, 43200, 86400, 172800, 604800, 1209600, 2592000, 7776000, 31536000),
)


def time_ticks(begin: float, end: float, wanted: int) -> list[tuple[float, str]]:
    """Round moments of local time between two walls, with their names."""
    step = next((step for step in _STEPS if (end - begin) / step <= wanted), _STEPS[-1])
    shift = time.localtime(begin).tm_gmtoff
    first = math.ceil((begin + shift) / step)
    last = math.floor((end + shift) / step)
    moments = [min(max(number * step - shift, begin), end) for number in range(first, last + 1)]
    return [(moment, _moment(moment, step, end - begin)) for moment in moments]


def _moment(wall: float, step: float, span: float) -> str:
    local = time.localtime(wall + 1e-6)
    if step < 1:
        return time.strftime("%M:%S", local) + f".{int(wall * 10 % 10 + 1e-6)}"
    if step < 60:
        return time.strftime("%H:%M:%S", local)
    if step >= 86400 or (span > 86400 and local.tm_hour == 0 and local.tm_min == 0):
        return f"{local.tm_mday} {time.strftime('%b', local)}"
    return time.strftime("%H:%M", local)


def _time_axis(picture: Picture, chart: Chart) -> None:
    wanted = max(2, int((picture.right - picture.left) / 95))
    picture.shapes.append(Line(((picture.left, picture.bottom), (picture.right, picture.bottom)), QUIET))
    for wall, name in time_ticks(picture.begin + chart.wall, picture.end + chart.wall, wanted):
        x = picture.x(wall - chart.wall)
        picture.shapes.append(Line(((x, picture.bottom), (x, picture.bottom + 5)), QUIET))
        picture.shapes.append(Text((x, picture.bottom + 20), name, 11.5, QUIET, "middle"))


def _marks(picture: Picture, chart: Chart) -> None:
    """Moments that are near one another share their words."""
    groups: list[list[tuple[float, str]]] = []
    for t, word in sorted(chart.marks):
        x = picture.x(t)
        picture.shapes.append(Line(((x, picture.top), (x, picture.bottom)), QUIET, 1, (2, 4), 0.6))
        if groups and x - groups[-1][-1][0] < 90:
            groups[-1].append((x, word))
        else:
            groups.append([(x, word)])
    for group in groups:
        word = group[0][1] if len(group) == 1 else f"{len(group)} {group[0][1]}s"
        middle = (group[0][0] + group[-1][0]) / 2
        picture.shapes.append(Text((middle, picture.top - 6), word, 11, QUIET, "middle"))


def _limit(picture: Picture, chart: Chart) -> None:
    if chart.limit is None or not picture.low < chart.limit[0] <= picture.high:
        return
    y = picture.y(chart.limit[0])
    picture.shapes.append(Line(((picture.left, y), (picture.right, y)), ALARM, 1.5, (7, 4)))
    picture.shapes.append(Text((picture.left + 8, y + 15), chart.limit[1], 11.5, ALARM, bold=True))


def _curve(picture: Picture, one: Series, colour: str) -> None:
    for piece in one.pieces:
        few = _thinned(piece, int((picture.right - picture.left) / 1.5))
        columns = tuple((picture.x(t), picture.y(low), picture.y(high)) for t, _, low, high in few)
        if any(low - high > 0.8 for _, low, high in columns) and one.named:
            picture.shapes.append(Band(columns, colour, 0.16, one.key))
        dots = tuple((picture.x(t), picture.y(value)) for t, value, _, _ in few)
        dots = dots if len(dots) > 1 else (dots[0], (dots[0][0] + 1.5, dots[0][1]))
        picture.shapes.append(Line(dots, colour, 2.2 if one.named else 1.2, key=one.key))
    if one.fit is not None and one.named:
        dots = tuple((picture.x(t), picture.y(value)) for t, value in one.fit)
        picture.shapes.append(Line(dots, INK, 1.2, (2, 3), 0.75, one.key))
    if one.pieces and one.mark:
        t, value, _, _ = one.pieces[-1][-1]
        _ending(picture, (picture.x(t), picture.y(value)), one, colour)


def _ending(picture: Picture, at: Dot, one: Series, colour: str) -> None:
    x, y = at
    if one.mark == "oom":
        for slope in (1, -1):
            cross = ((x - 5, y - 5 * slope), (x + 5, y + 5 * slope))
            picture.shapes.append(Line(cross, ALARM, 2.6, key=one.key))
        anchor = "end" if x > picture.right - 60 else "middle"
        picture.shapes.append(Text((x, y - 11), "killed for memory", 11.5, ALARM, anchor, True, one.key))
    elif one.named:
        picture.shapes.append(Ring(at, 3.4, colour, one.key))


def _thinned(
    piece: Sequence[tuple[float, float, float, float]], most: int
) -> Iterable[tuple[float, float, float, float]]:
    if len(piece) <= most:
        return piece
    first, width = piece[0][0], (piece[-1][0] - piece[0][0]) / most or 1.0
    chunks = (list(chunk) for _, chunk in groupby(piece, key=lambda point: int((point[0] - first) / width)))
    return [
        (
            chunk[-1][0] if number else chunk[0][0],
            sum(point[1] for point in chunk) / len(chunk),
            min(point[2] for point in chunk),
            max(point[3] for point in chunk),
        )
        for number, chunk in enumerate(chunks)
    ]


_LABEL_HEIGHT: Final = 35.0
_LABEL_LETTERS: Final = 30


def _labels(picture: Picture, named: Sequence[Series], hues: dict[str, str]) -> None:
    """Beside the end of each line, pushed apart so that none lies on another."""
    ends = {one.key: one.pieces[-1][-1] for one in named}
    order = sorted(named, key=lambda one: picture.y(ends[one.key][1]))
    wished = [picture.y(ends[one.key][1]) for one in order]
    for one, y in zip(order, apart(wished, _LABEL_HEIGHT, picture.top + 4, picture.bottom - 18), strict=True):
        t, value, _, _ = ends[one.key]
        from_x, from_y = picture.x(t), picture.y(value)
        x = picture.right + 22
        leader = ((from_x + 4, from_y), (max(from_x + 4, picture.right + 4), from_y), (x - 5, y))
        picture.shapes.append(
            Line(leader, hues[one.key], 1, None if from_x > picture.right - 3 else (1.5, 3), 0.55, one.key)
        )
        words = one.label if len(one.label) <= _LABEL_LETTERS else one.label[: _LABEL_LETTERS - 1] + "…"
        picture.shapes.append(Text((x, y + 1), words, 12.5, hues[one.key], bold=True, key=one.key))
        picture.shapes.append(Text((x, y + 16), one.note, 11.5, QUIET, key=one.key))


def apart(wished: Sequence[float], height: float, top: float, bottom: float) -> list[float]:
    """Places in the same order, ``height`` apart, as near to the wished ones as a push down and back up makes them."""
    if wished and height * (len(wished) - 1) > bottom - top:
        height = (bottom - top) / (len(wished) - 1)
    places: list[float] = []
    for wish in wished:
        places.append(max(wish, top, places[-1] + height if places else top))
    floor = bottom
    for number in range(len(places) - 1, -1, -1):
        places[number] = min(places[number], floor)
        floor = places[number] - height
    return places
