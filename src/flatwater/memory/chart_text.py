"""A chart for a terminal: dots of Braille, eight to a character."""

from __future__ import annotations

from typing import Final

from flatwater.memory.chart import Chart, Series, time_ticks, value_range, value_ticks
from flatwater.quantity import size

_DOTS: Final = ((0x01, 0x08), (0x02, 0x10), (0x04, 0x20), (0x40, 0x80))
_COLOURS: Final = (34, 33, 32, 35, 36, 31, 94, 93)  # ANSI; grey below all of them
_GREY: Final = 90
_MARGIN: Final = 11


def render(chart: Chart, *, width: int = 100, height: int = 24, colour: bool = True) -> str:
    """``width`` columns, ``height`` rows of the plot; the names of the lines stand below."""
    columns = max(20, width - _MARGIN - 1)
    points = [point for one in chart.series for piece in one.pieces for point in piece]
    if not points:
        return f"{chart.title}\nnothing was recorded\n"
    begin, end = min(point[0] for point in points), max(point[0] for point in points)
    end = max(end, begin + 1e-6)
    least, most = min(point[1] for point in points), max(point[3] for point in points)
    low, high = value_range(least, most)
    paper = _Paper(columns, height)
    hues = _hues(chart)
    for one in sorted(chart.series, key=lambda one: one.named):
        for piece in one.pieces:
            dots = [
                (
                    round((t - begin) / (end - begin) * (2 * columns - 1)),
                    round((high - value) / (high - low) * (4 * height - 1)),
                )
                for t, value, _, _ in piece
            ]
            paper.line(dots, hues[one.key])
    rows = paper.rows(colour)
    names = _value_names(chart, low, high, height)
    lines = [chart.title[:width], chart.subtitle[:width], ""]
    lines += [
        f"{names.get(number, ''):>{_MARGIN - 2}} {'┤' if number in names else '│'}{row}"
        for number, row in enumerate(rows)
    ]
    lines += _time_lines(chart, begin, end, columns)
    lines += ["", *(_legend(one, hues[one.key], colour) for one in chart.series if one.named)]
    return "\n".join(lines) + "\n"


class _Paper:
    def __init__(self, columns: int, height: int) -> None:
        self._columns, self._height = columns, height
        self._cells = [[0] * columns for _ in range(height)]
        self._hues = [[_GREY] * columns for _ in range(height)]

    def line(self, dots: list[tuple[int, int]], hue: int) -> None:
        for (x, y), (right, down) in zip(dots, dots[1:] or dots, strict=False):
            steps = max(abs(right - x), abs(down - y), 1)
            for step in range(steps + 1):
                self._dot(x + (right - x) * step // steps, y + (down - y) * step // steps, hue)

    def _dot(self, x: int, y: int, hue: int) -> None:
        if 0 <= x < 2 * self._columns and 0 <= y < 4 * self._height:
            self._cells[y // 4][x // 2] |= _DOTS[y % 4][x % 2]
            self._hues[y // 4][x // 2] = hue

    def rows(self, colour: bool) -> list[str]:
        return [
            "".join(
                " " if not cell else _painted(chr(0x2800 + cell), hue, colour)
                for cell, hue in zip(cells, hues, strict=True)
            ).rstrip()
            for cells, hues in zip(self._cells, self._hues, strict=True)
        ]


def _hues(chart: Chart) -> dict[str, int]:
    named = [one.key for one in chart.series if one.named]
    return {one.key: _COLOURS[named.index(one.key) % len(_COLOURS)] if one.named else _GREY for one in chart.series}


def _painted(text: str, hue: int, colour: bool) -> str:
    return f"\033[{hue}m{text}\033[0m" if colour else text


def _value_names(chart: Chart, low: float, high: float, height: int) -> dict[int, str]:
    names = {}
    for value in value_ticks(low, high, bytes=chart.bytes, wanted=max(2, height // 4)):
        row = round((high - value) / (high - low) * (height - 1))
        names[row] = size(value) if chart.bytes else f"{value:g}"
    return names


def _time_lines(chart: Chart, begin: float, end: float, columns: int) -> list[str]:
    axis, names = ["─"] * columns, [" "] * (columns + 12)
    for wall, name in time_ticks(begin + chart.wall, end + chart.wall, max(2, columns // 16)):
        place = round((wall - chart.wall - begin) / (end - begin) * (columns - 1))
        axis[place] = "┬"
        start = max(0, place - len(name) // 2)
        names[start : start + len(name)] = name
    margin = " " * (_MARGIN - 1)
    return [f"{margin}└{''.join(axis)}", f"{margin} {''.join(names)}".rstrip()]


def _legend(one: Series, hue: int, colour: bool) -> str:
    return f"{' ' * _MARGIN}{_painted('━━', hue, colour)} {one.label}  {one.note}"
