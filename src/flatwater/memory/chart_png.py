"""A picture as PNG, drawn here: lines with smooth edges, letters as strokes. Standard library only."""

from __future__ import annotations

import math
import struct
import zlib
from collections.abc import Iterator, Sequence
from itertools import pairwise

from flatwater.memory import chart_font
from flatwater.memory.chart import Band, Dot, Line, Picture, Ring, Text


def render(picture: Picture, *, scale: int = 2) -> bytes:
    """``scale`` pixels for each of the picture's."""
    canvas = Canvas(picture.width * scale, picture.height * scale)
    for shape in picture.shapes:
        if isinstance(shape, Line):
            dots = [(x * scale, y * scale) for x, y in shape.dots]
            pieces = dashes(dots, [length * scale for length in shape.dash]) if shape.dash else [dots]
            canvas.strokes(pieces, shape.colour, shape.width * scale, shape.opacity)
        elif isinstance(shape, Band):
            canvas.band([(x * scale, low * scale, high * scale) for x, low, high in shape.columns], shape)
        elif isinstance(shape, Ring):
            _ring(canvas, shape, scale)
        else:
            _text(canvas, shape, scale)
    return canvas.png()


class Canvas:
    """White paper of RGB pixels."""

    def __init__(self, width: int, height: int) -> None:
        self._width, self._height = width, height
        self._pixels = bytearray(b"\xff" * (3 * width * height))

    def strokes(self, pieces: Sequence[Sequence[Dot]], colour: str, width: float, opacity: float = 1.0) -> None:
        """Lines of one colour; where they touch one another nothing gets darker."""
        cover: dict[int, float] = {}
        for dots in pieces:
            for one, other in pairwise(dots) if len(dots) > 1 else [(dots[0], dots[0])]:
                self._segment(cover, one, other, width / 2)
        self._blend(cover, colour, opacity)

    def disc(self, at: Dot, radius: float, colour: str) -> None:
        self.strokes([[at, at]], colour, 2 * radius)

    def band(self, columns: Sequence[tuple[float, float, float]], shape: Band) -> None:
        """The area between two lines; ``columns`` by rising x, larger y is lower."""
        cover: dict[int, float] = {}
        for (x, low, high), (right, next_low, next_high) in pairwise(columns):
            for column in range(max(0, math.ceil(x)), min(self._width, math.ceil(right))):
                part = (column - x) / (right - x) if right > x else 0.0
                top, bottom = high + part * (next_high - high), low + part * (next_low - low)
                for row in range(max(0, math.floor(top)), min(self._height, math.ceil(bottom))):
                    cover[row * self._width + column] = min(1.0, row + 1 - top, bottom - row)
        self._blend(cover, shape.colour, shape.opacity)

    def png(self) -> bytes:
        """The file: 8 bits a channel, one compressed block (PNG specification, W3C 2003)."""
        row = 3 * self._width
        lines = b"".join(b"\0" + self._pixels[at : at + row] for at in range(0, len(self._pixels), row))
        header = struct.pack(">IIBBBBB", self._width, self._height, 8, 2, 0, 0, 0)
        chunks = _chunk(b"IHDR", header) + _chunk(b"IDAT", zlib.compress(lines, 6)) + _chunk(b"IEND", b"")
        return b"\x89PNG\r\n\x1a\n" + chunks

    def _segment(self, cover: dict[int, float], one: Dot, other: Dot, half: float) -> None:
        """Cover by the distance of each pixel's middle from the segment; only pixels near it are looked at."""
        (x, y), (right, down) = one, other
        dx, dy = right - x, down - y
        length = dx * dx + dy * dy
        steep = abs(dy) > abs(dx)
        # Along the longer axis, and across it as far as the slanted line is wide.
        run, across, start, side = (dy, dx, y, x) if steep else (dx, dy, x, y)
        reach = (half + 1) * math.sqrt(1 + (across / run) ** 2) if run else half + 1
        ends = (min(start, start + run) - half - 1, max(start, start + run) + half + 1)
        along_max, across_max = (self._height, self._width) if steep else (self._width, self._height)
        for along in range(max(0, int(ends[0])), min(along_max, int(ends[1]) + 1)):
            part = min(1.0, max(0.0, (along + 0.5 - start) / run)) if run else 0.0
            middle = side + part * across
            for place in range(max(0, int(middle - reach)), min(across_max, int(middle + reach) + 1)):
                px, py = (place + 0.5, along + 0.5) if steep else (along + 0.5, place + 0.5)
                near = min(1.0, max(0.0, ((px - x) * dx + (py - y) * dy) / length)) if length else 0.0
                amount = half + 0.5 - math.hypot(px - x - near * dx, py - y - near * dy)
                if amount > 0:
                    index = (along * self._width + place) if steep else (place * self._width + along)
                    if amount > cover.get(index, 0.0):
                        cover[index] = min(amount, 1.0, 2 * half)

    def _blend(self, cover: dict[int, float], colour: str, opacity: float) -> None:
        red, green, blue = (int(colour[at : at + 2], 16) for at in (1, 3, 5))
        pixels = self._pixels
        for index, amount in cover.items():
            share = amount * opacity
            at = 3 * index
            pixels[at] += round((red - pixels[at]) * share)
            pixels[at + 1] += round((green - pixels[at + 1]) * share)
            pixels[at + 2] += round((blue - pixels[at + 2]) * share)


def dashes(dots: Sequence[Dot], pattern: Sequence[float]) -> list[list[Dot]]:
    """The drawn pieces of a dashed line: ``pattern`` is the length of a dash and of a gap."""
    return list(_dashes(dots, pattern[0], pattern[1]))


def _dashes(dots: Sequence[Dot], dash: float, gap: float) -> Iterator[list[Dot]]:
    drawn, left = True, dash
    piece = [dots[0]]
    for (x, y), (right, down) in pairwise(dots):
        length = math.hypot(right - x, down - y)
        done = 0.0
        while length - done > left:
            done += left
            place = (x + (right - x) * done / length, y + (down - y) * done / length)
            if drawn:
                yield [*piece, place]
            piece = [place]
            drawn = not drawn
            left = dash if drawn else gap
        left -= length - done
        piece.append((right, down))
    if drawn and len(piece) > 1:
        yield piece


def _ring(canvas: Canvas, ring: Ring, scale: int) -> None:
    at = (ring.at[0] * scale, ring.at[1] * scale)
    canvas.disc(at, (ring.radius + 1) * scale, ring.colour)
    if not ring.filled:
        canvas.disc(at, (ring.radius - 1) * scale, "#ffffff")


def _text(canvas: Canvas, text: Text, scale: int) -> None:
    unit = text.size * scale * 0.72 / chart_font.CAP
    length = chart_font.width(text.words) * unit
    x = text.at[0] * scale - {"start": 0.0, "middle": length / 2, "end": length}[text.anchor]
    base = text.at[1] * scale
    pieces: list[list[Dot]] = []
    for letter in text.words:
        strokes, advance = chart_font.glyph(letter)
        pieces += (
            [(x + across * unit, base + (down - chart_font.CAP) * unit) for across, down in stroke]
            for stroke in strokes
        )
        x += advance * unit
    if pieces:
        canvas.strokes(pieces, text.colour, (0.135 if text.bold else 0.095) * text.size * scale)


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
