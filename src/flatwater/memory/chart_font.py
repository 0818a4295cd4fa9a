"""Letters as strokes, for pictures drawn without any font on the machine.

A glyph is strokes; a stroke is points of two characters, x and y in base 16, y growing downwards: capitals from 0 to
the baseline at 8, small letters from 3, what hangs below to b. ``~`` before a stroke rounds its corners.
"""

from __future__ import annotations

from functools import cache
from itertools import pairwise
from typing import Final

from flatwater.memory.chart import Dot

CAP: Final = 8.0
_GAP: Final = 2.1
_SPACE: Final = 3.6

_GLYPHS: Final = {
    "A": "083068 1555",
    "B": "0008 ~003050543404 ~043464683808",
    "C": "~6250100206185866",
    "D": "0008 ~003060683808",
    "E": "50000858 0444",
    "F": "500008 0444",
    "G": "~6250100206185866 666434",
    "H": "0008 6068 0464",
    "I": "0008",
    "J": "~404738180605",
    "K": "0008 5005 2358",
    "L": "000858",
    "M": "0800366068",
    "N": "08006860",
    "O": "~3010020618385866625030",
    "P": "0800 ~003060643404",
    "Q": "~3010020618385866625030 4669",
    "R": "0800 ~003060643404 3468",
    "S": "~615010010314546567581807",
    "T": "0060 3038",
    "U": "~0005061858666560",
    "V": "003860",
    "W": "0018325860",
    "X": "0068 6008",
    "Y": "003460 3438",
    "Z": "00600868",
    "a": "~4433130506183847 4348",
    "b": "0008 ~0413334546381807",
    "c": "~4433130506183847",
    "d": "4048 ~4433130506183847",
    "e": "0545 ~454433130506183847",
    "f": "~30101218 0333",
    "g": "~4433130506183847 ~43494a1a09",
    "h": "0008 ~0513334548",
    "i": "0308 0101",
    "j": "~13191a0a 1111",
    "k": "0008 4306 1548",
    "l": "~00060818",
    "m": "0308 ~0513333538 ~3543636568",
    "n": "0308 ~0513334548",
    "o": "~23130506183846453323",
    "p": "030b ~0413334546381807",
    "q": "434b ~4433130506183847",
    "r": "0308 ~051333",
    "s": "~44331304153647381807",
    "t": "~10161838 0333",
    "u": "~0306183846 4348",
    "v": "032843",
    "w": "0318345863",
    "x": "0348 4308",
    "y": "0328 431b",
    "z": "03430848",
    "0": "~20100206183846423020",
    "1": "022028",
    "2": "~0200404308 0848",
    "3": "~011040442414 ~142444481807",
    "4": "38300656",
    "5": "400004 ~041343481807",
    "6": "~413010030618384745341406",
    "7": "004018",
    "8": "~20100103143443413020 ~24140507183847453424",
    "9": "~071838454230100103143442",
    ".": "0808",
    ",": "080a",
    ":": "0404 0808",
    ";": "0404 080a",
    "·": "1515",
    "-": "0535",
    "–": "0555",
    "+": "0545 2327",
    "=": "0444 0646",
    "/": "0930",
    "\\": "0039",
    "|": "000a",
    "(": "~2003072a",
    ")": "~0023270a",
    "[": "20000a2a",
    "]": "00202a0a",
    "{": "~3020230515272a3a",
    "}": "~0010132515171a0a",
    "<": "430547",
    ">": "034507",
    "_": "0959",
    "'": "0002",
    '"': "0002 2022",
    "*": "2125 0244 0442",
    "#": "1028 3048 0353 0555",
    "%": "0850 0010120200 4656584846",
    "!": "0005 0808",
    "?": "~0200404324 2526 2828",
    "@": "~44331305163646436160100207185968",
    "&": "~6813115153160708183865",
    "$": "~615010010314546567581807 3a3b 3039",
    "^": "022042",
    "~": "~05142645",
    "×": "0448 4408",
    "→": "0555 335537",
    "…": "0808 2828 4848",
}
_UNKNOWN: Final = "00400848 0008 4048"


@cache
def glyph(letter: str) -> tuple[tuple[tuple[Dot, ...], ...], float]:
    """The strokes of a letter, and how far the next one stands."""
    if letter == " ":
        return (), _SPACE
    strokes = tuple(_stroke(text) for text in _GLYPHS.get(letter, _UNKNOWN).split())
    return strokes, max(x for stroke in strokes for x, _ in stroke) + _GAP


def width(words: str) -> float:
    """How long a line is, in units of the glyphs."""
    return sum(glyph(letter)[1] for letter in words) - _GAP if words else 0.0


def _stroke(text: str) -> tuple[Dot, ...]:
    digits = text.removeprefix("~")
    dots = [(float(int(digits[at], 16)), float(int(digits[at + 1], 16))) for at in range(0, len(digits), 2)]
    for _ in range(3 if text.startswith("~") else 0):
        dots = _rounder(dots)
    return tuple(dots)


def _rounder(dots: list[Dot]) -> list[Dot]:
    """Chaikin's corner cutting; the ends stay."""
    found = [dots[0]]
    for (x, y), (right, down) in pairwise(dots):
        found += [(0.75 * x + 0.25 * right, 0.75 * y + 0.25 * down), (0.25 * x + 0.75 * right, 0.25 * y + 0.75 * down)]
    return [*found, dots[-1]]
