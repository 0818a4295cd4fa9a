"""Does a process grow, and which memory is it? A pure judgement over what was measured.

Resident memory comes in steps (an arena, a mapping, a heap's next page), so no single figure decides: the kernel's
(RSS by sort, threads), malloc's (used, free), Python's (blocks, bytes of objects, growing containers) and the
collector's are judged by their slopes, and must agree.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from statistics import median
from typing import Literal

import msgspec

from flatwater.memory.slope import Slope, slope
from flatwater.quantity import rate, size

Kind = Literal[
    "python-objects",
    "cyclic-garbage",
    "malloc-free",
    "pymalloc-pinned",
    "native",
    "thread-stacks",
    "page-cache",
    "plateau",
]

MIN_GROWTH = 96 << 10
"""Growth of RSS in the window, in bytes, below which it is noise: a few pages, a step of one heap."""
MIN_UNSEEN = 512 << 10
"""The same for what no object explains: allocators take and free in steps, also for being looked at."""
MIN_FREE = 3 << 20
"""The same for free memory inside malloc's heaps: each thread that allocates has its own, which settle slowly."""
MIN_CONTAINER = 4 << 10
"""The same for what a container that grows steadily keeps alive, when its entries have some size."""
PAYLOAD = 256
"""… in bytes: many small entries that become more are more often a vocabulary that is nearly complete."""
MIN_PYTHON = 16 << 10
"""Growth of Python's own figures in the window, in bytes, below which it is noise: they are exact."""
MIN_HELD = 16 << 20
"""Free or pinned memory, in bytes, from which it is a verdict although nothing grows."""
HELD_SHARE = 0.4
"""… and of which share of the anonymous memory."""
UNSURE = 0.25
"""How far the bytes of a container's new entries may be above what its entries have on the average."""
HOLES = 0.2
"""Growth of malloc's free memory of which growing objects are this part comes of them."""
OWNED = 0.3
"""Native growth of which a growing container's own entries are this part is most likely theirs, whatever they are."""
MAX_LOST = 0.35
"""Of what an exact count gains in the window, what it may lose again."""
MIN_RISES = 0.8
"""The share of its steps that must go up."""
STACK = 48 << 10
"""What a thread that does little keeps resident, in bytes: its stack's top and its thread state."""


class Point(msgspec.Struct, frozen=True, kw_only=True):
    """Figures at ``at`` seconds: bytes, ``threads`` and ``frozen`` objects counted; None where nobody tells.

    Shared memory counts as anonymous: no file holds it, so the kernel cannot take it back.
    """

    at: float
    rss: int
    anon: int | None = None
    file: int | None = None
    vms: int = 0
    threads: int = 0
    cache: int | None = None


class Inner(msgspec.Struct, frozen=True, kw_only=True):
    """What the process says of itself at ``at`` seconds: pymalloc's blocks, malloc's bytes, the collector's figures."""

    at: float
    blocks: int
    used: int | None = None
    free: int | None = None
    objects: int = 0
    frozen: int = 0
    full_collections: int = 0


class Evidence(msgspec.Struct, frozen=True, kw_only=True):
    """All that the verdict rests on.

    ``points`` come from the kernel, ``inner`` from the process. ``object_bytes`` are all objects' shallow bytes at the
    window's begin and end, ``container_per_s`` what its growing containers gain in bytes, ``payload_per_s`` those of
    them whose entries have at least PAYLOAD bytes, ``filling_per_s`` what those gain that have a bound (it is no
    growth), ``foreign`` whether their entries may own memory outside Python, ``sought`` that two snapshots were
    compared and no holder was found, ``garbage`` the unreachable bytes at the end. ``pinned`` is what Python's arenas
    keep resident beyond their blocks, at begin and end; ``returnable`` malloc's free memory that is resident.
    ``collector`` (switched on) and ``thresholds`` say whether cycles are collected; ``headroom`` is what is left up to
    ``limit``.
    """

    window_s: float
    points: tuple[Point, ...]
    inner: tuple[Inner, ...] = ()
    object_bytes: tuple[int, int] = (0, 0)
    container_per_s: float = 0.0
    containers: int = 0
    payload_per_s: float = 0.0
    filling_per_s: float = 0.0
    foreign: bool = False
    sought: bool = False
    garbage: int = 0
    garbage_count: int = 0
    collector: bool = True
    thresholds: tuple[int, ...] = (700, 10, 10)
    pinned: tuple[int, int] = (0, 0)
    returnable: int = 0
    limit: int | None = None
    headroom: int | None = None
    limit_of: str = ""


class Part(msgspec.Struct, frozen=True):
    """One sort of memory: bytes per second, bytes held now, and why it is thought so."""

    kind: Kind
    per_s: float
    bytes: int
    reason: str


class Figure(msgspec.Struct, frozen=True):
    """A row of the evidence: first, last, and the slope with its 95 % interval (None: too few samples)."""

    name: str
    unit: str
    first: float
    last: float
    per_s: float | None
    low: float | None
    high: float | None


class Verdict(msgspec.Struct, frozen=True, kw_only=True):
    """The answer: ``kind``, whether it grows, and the slope that counts, in bytes per second with its 95 % interval.

    ``measured`` says whose slope it is: ``rss``, or ``python`` (or the kind) where RSS has made no step yet. ``others``
    are the lesser parts.
    """

    kind: Kind
    growing: bool
    slope_bytes_per_s: float
    ci: tuple[float, float]
    measured: str
    reason: str
    others: tuple[Part, ...]
    figures: tuple[Figure, ...]
    rss: int
    limit: int | None
    limit_of: str
    limit_in_s: float | None


def shift(points: Sequence[tuple[float, float]]) -> float:
    """What a figure that goes up and down gains each second: the middle of its last third against that of its first."""
    third = len(points) // 3
    if third == 0:
        return 0.0
    first, last = points[:third], points[-third:]
    gain = median(value for _, value in last) - median(value for _, value in first)
    return gain / ((median(at for at, _ in last) - median(at for at, _ in first)) or 1.0)


def steady(points: Sequence[tuple[float, float]], floor: float) -> Slope | None:
    """The slope, when it is surely above zero, goes on in the second half, and comes to ``floor`` in the window."""
    line = slope(points)
    if line is None or not line.grows or line.per_s * line.window_s < floor:
        return None
    half = len(points) // 2
    first, middle, last = points[0], points[half], points[-1]
    late = (last[1] - middle[1]) / ((last[0] - middle[0]) or 1.0)
    early = (middle[1] - first[1]) / ((middle[0] - first[0]) or 1.0)
    return line if late > 0.25 * early and late > 0 else None


def climbing(points: Sequence[tuple[float, float]], floor: float) -> Slope | None:
    """:func:`steady`, or an exact count that rises nearly always and keeps most of it, with a drop now and then.

    One collection in the window makes any straight line unsure.
    """
    if (line := steady(points, floor)) is not None or len(points) < 8:
        return line
    steps = [after - before for (_, before), (_, after) in pairwise(points)]
    gained, lost = sum(step for step in steps if step > 0), -sum(step for step in steps if step < 0)
    rises, half = sum(step > 0 for step in steps), len(steps) // 2
    if gained - lost < floor or lost > MAX_LOST * gained or rises < MIN_RISES * len(steps) or sum(steps[half:]) <= 0:
        return None
    seconds = points[-1][0] - points[0][0]
    per_s = (gained - lost) / seconds
    return Slope(per_s, per_s * (1 - MAX_LOST), per_s * (1 + MAX_LOST), len(points), seconds, float(len(points)))


def judge(evidence: Evidence) -> Verdict:
    """The verdict: the sort of memory that grows most; when none does, what is held without need; else a plateau."""
    growing = _owned(sorted(_growing(evidence), key=lambda part: -part.per_s), evidence)
    held = sorted(_held(evidence), key=lambda part: -part.bytes)
    parts = growing or held
    rss = _line(evidence, lambda point: point.rss)
    line, measured = _slope(evidence, growing[0] if growing else None, rss)
    now = evidence.points[-1].rss if evidence.points else 0
    reach = evidence.headroom / line.per_s if growing and evidence.headroom is not None and line.per_s > 0 else None
    return Verdict(
        kind=parts[0].kind if parts else "plateau",
        growing=bool(growing),
        slope_bytes_per_s=line.per_s,
        ci=(line.low, line.high),
        measured=measured,
        reason=parts[0].reason if parts else _plateau(rss, evidence),
        others=(*parts[1:], *(held if growing else [])),
        figures=_figures(evidence),
        rss=now,
        limit=evidence.limit,
        limit_of=evidence.limit_of,
        limit_in_s=reach,
    )


def _owned(parts: list[Part], evidence: Evidence) -> list[Part]:
    """The parts, with what comes of growing objects given to them.

    Native memory beside a growing container is most likely owned by its entries, when these can own any (sockets,
    buffers, connections), or explain much of it themselves.
    """
    kinds = [part.kind for part in parts]
    if kinds[:1] == ["malloc-free"] and evidence.containers:  # what grows by being copied leaves holes behind
        return sorted(parts, key=lambda part: part.kind != "python-objects" or part.per_s < HOLES * parts[0].per_s)
    if kinds[:1] != ["native"] or not evidence.containers:
        return parts
    native, rest = parts[0], [part for part in parts[1:] if part.kind != "python-objects"]
    own = next((part for part in parts if part.kind == "python-objects"), None)
    per_s = own.per_s if own is not None else evidence.container_per_s
    if not evidence.foreign and (own is None or per_s < OWNED * native.per_s):
        return parts
    grown = own.reason if own is not None else f"a container grows by {rate(per_s)}"
    reason = f"{grown}; these objects seem to own native memory too, {rate(native.per_s)} of it"
    return [Part("python-objects", per_s + native.per_s, evidence.object_bytes[1], reason), *rest]


def _slope(evidence: Evidence, part: Part | None, rss: Slope | None) -> tuple[Slope, str]:
    """RSS's slope, unless RSS says nothing yet and Python's figures do."""
    none = Slope(0.0, 0.0, 0.0, len(evidence.points), evidence.window_s, 0.0)
    if part is None or (rss is not None and rss.grows and rss.per_s >= part.per_s / 2):
        return rss or none, "rss"
    blocks = slope([(point.at, float(point.blocks)) for point in evidence.inner])
    wide = (blocks.high - blocks.low) / 2 / blocks.per_s if blocks is not None and blocks.grows else 0.25
    spread = part.per_s * min(wide, 0.9)
    measured = "python" if part.kind in ("python-objects", "cyclic-garbage") else part.kind
    return Slope(
        part.per_s, part.per_s - spread, part.per_s + spread, len(evidence.inner), evidence.window_s, 0
    ), measured


def _plateau(rss: Slope | None, evidence: Evidence) -> str:
    now = size(evidence.points[-1].rss) if evidence.points else "?"
    if rss is None:
        return f"nothing grows; {now} resident"
    if rss.grows:
        gained = size(rss.per_s * rss.window_s)
        return f"no steady growth: {now} resident; {gained} came in the window and did not go on, or is noise"
    return f"nothing grows: {now} resident, slope between {rate(rss.low)} and {rate(rss.high)} (95 %)"


def _line(evidence: Evidence, of: Callable[[Point], int | None]) -> Slope | None:
    return slope(_series(evidence.points, of))


def _series(points: Sequence[Point], of: Callable[[Point], int | None]) -> list[tuple[float, float]]:
    return [(point.at, float(value)) for point in points if (value := of(point)) is not None]


def _own(evidence: Evidence, of: Callable[[Inner], int | None]) -> list[tuple[float, float]]:
    return [(point.at, float(value)) for point in evidence.inner if (value := of(point)) is not None]


def _growing(evidence: Evidence) -> list[Part]:
    parts = [part for find in (_threads, _python, _files) for part in [find(evidence)] if part is not None]
    explained = sum(part.per_s for part in parts if part.kind != "page-cache")
    rest = _rest(evidence, explained + evidence.filling_per_s)
    return parts if rest is None else [*parts, rest]


def _threads(evidence: Evidence) -> Part | None:
    line = steady(_series(evidence.points, lambda point: point.threads), 2)
    if line is None:
        return None
    anon = _line(evidence, lambda point: point.anon)
    each = max(STACK, min((anon.per_s if anon else 0) / line.per_s, 256 << 10))
    now = evidence.points[-1].threads
    reason = f"threads grow by {line.per_s:.3g}/s to {now:,}; each keeps its stack"
    return Part("thread-stacks", line.per_s * each, int(now * each), reason)


def _python(evidence: Evidence) -> Part | None:
    """Objects grow when blocks do, or a container does; how much is told by the bytes of all objects."""
    blocks = (steady if evidence.sought else climbing)(_own(evidence, lambda point: point.blocks), 20)
    seconds = evidence.window_s or 1.0
    gained = (evidence.object_bytes[1] - evidence.object_bytes[0]) / seconds
    if blocks is None and not evidence.containers:
        return None
    gained -= (1 + UNSURE) * evidence.filling_per_s
    held = evidence.container_per_s if evidence.containers else 0.0
    per_s = max(gained, held, 0.0)
    sure = min(held, evidence.payload_per_s) * seconds >= MIN_CONTAINER
    if not sure and per_s * seconds < (MIN_PYTHON if held else 4 * MIN_PYTHON):  # no holder shows: be surer
        return None
    waste = evidence.garbage / seconds
    if evidence.garbage >= 0.5 * per_s * seconds and evidence.container_per_s < 0.5 * per_s:
        why = idle_collector(evidence)
        if why:
            text = f"{size(evidence.garbage)} in {evidence.garbage_count:,} unreachable objects wait: {why}"
            return Part("cyclic-garbage", per_s, evidence.garbage, text)
    if evidence.garbage >= 0.5 * per_s * seconds or not held:
        per_s = max(per_s - waste, held)  # it goes with the next full collection
    if not sure and (per_s * seconds < MIN_PYTHON or (blocks is None and not evidence.containers)):
        return None
    many = f"{evidence.containers} containers grow" if evidence.containers > 1 else "one container grows"
    by = f"; {many}" if evidence.containers else ""
    blocks_text = f", blocks by {blocks.per_s:,.0f}/s" if blocks else ""
    reason = f"reachable Python objects grow by {rate(per_s)}{blocks_text}{by}"
    return Part("python-objects", per_s, evidence.object_bytes[1], reason)


def idle_collector(evidence: Evidence) -> str:
    """Why cyclic garbage is not collected; "" when the collector does its work."""
    frozen = [point.frozen for point in evidence.inner]
    if not evidence.collector:
        return "the collector is switched off (gc.disable)"
    if evidence.thresholds and evidence.thresholds[0] == 0:
        return "the collector's threshold is 0: it never runs"
    if frozen and frozen[-1] > frozen[0]:
        return "objects are frozen again and again (gc.freeze): the collector no longer looks at them"
    if frozen and frozen[-1] and evidence.garbage_count > 0.5 * frozen[-1]:
        return "frozen objects (gc.freeze) are garbage: the collector does not look at them"
    if evidence.thresholds and evidence.thresholds[0] > 50_000:
        return f"the collector's thresholds are {evidence.thresholds}: it hardly ever runs"
    return ""


def _files(evidence: Evidence) -> Part | None:
    mapped = steady(_series(evidence.points, lambda point: point.file), 1 << 20)
    cache = steady(_series(evidence.points, lambda point: point.cache), 4 << 20)
    anon = steady(_series(evidence.points, lambda point: point.anon), MIN_GROWTH)
    line = mapped or cache
    if line is None or (anon is not None and anon.per_s > line.per_s):
        return None
    last = evidence.points[-1]
    what = "pages of mapped files" if mapped else "the control group's page cache"
    held = (last.file if mapped else last.cache) or 0
    return Part("page-cache", line.per_s, held, f"{what} grow by {rate(line.per_s)}; the kernel can take them back")


def _rest(evidence: Evidence, explained: float) -> Part | None:
    """What of the growth of anonymous memory the other parts leave over: native, or held free by an allocator."""
    anon = steady(_series(evidence.points, lambda point: point.anon), MIN_UNSEEN)
    if anon is None:
        return None
    over = anon.per_s - explained
    used = steady(_own(evidence, lambda point: point.used), MIN_PYTHON)
    pinned = (evidence.pinned[1] - evidence.pinned[0]) / (evidence.window_s or 1)
    foreign = max(0.0, used.per_s - explained) if used else 0.0  # what malloc gave to others than Python's objects
    free = _own(evidence, lambda point: point.free)  # it goes up and down with every large block
    idle = shift(free)
    enough = idle * evidence.window_s >= MIN_FREE
    if enough and idle > max(0.3 * over, 0.2 * anon.per_s, foreign) and over > 0.25 * anon.per_s:
        text = f"free memory inside malloc's heaps grows by {rate(idle)}: fragmentation"
        return Part("malloc-free", over, evidence.returnable, text)
    if anon.per_s - explained * 1.5 < max(0.3 * anon.per_s, MIN_UNSEEN / (evidence.window_s or 1)):
        return None
    if pinned > 0.5 * over and pinned > foreign:
        text = f"Python's arenas grow by {rate(pinned)}, the blocks in them do not"
        return Part("pymalloc-pinned", over, evidence.pinned[1], text)
    if foreign < 0.3 * over and anon.low < 0.5 * anon.per_s:
        return None  # malloc and Python explain little of it, and it wavers: pages touched again after a peak
    by = f"malloc's used bytes grow by {rate(used.per_s)}" if used else "not through malloc (mmap or another allocator)"
    objects = "Python's objects do not" if not explained else f"Python's objects explain only {rate(explained)}"
    return Part("native", over, 0, f"anonymous memory grows by {rate(anon.per_s)}, {objects}; {by}")


def _held(evidence: Evidence) -> list[Part]:
    """Memory that nobody uses and nobody gave back, large enough to matter."""
    last = evidence.points[-1] if evidence.points else None
    anon = (last.anon if last is not None else None) or (last.rss if last is not None else 0)
    least = max(MIN_HELD, int(HELD_SHARE * anon))
    found = []
    if evidence.returnable >= least:
        text = f"{size(evidence.returnable)} of {size(anon)} are free inside malloc and were not given back"
        found.append(Part("malloc-free", 0.0, evidence.returnable, text))
    if evidence.pinned[1] >= least:
        text = f"Python's arenas keep {size(evidence.pinned[1])} of {size(anon)} beyond the blocks in use"
        found.append(Part("pymalloc-pinned", 0.0, evidence.pinned[1], text))
    if evidence.garbage >= least and (why := idle_collector(evidence)):
        text = f"{size(evidence.garbage)} in {evidence.garbage_count:,} unreachable objects wait: {why}"
        found.append(Part("cyclic-garbage", 0.0, evidence.garbage, text))
    return found


def _figures(evidence: Evidence) -> tuple[Figure, ...]:
    outer: list[tuple[str, str, Callable[[Point], int | None]]] = [
        ("resident", "bytes", lambda point: point.rss),
        ("anonymous", "bytes", lambda point: point.anon),
        ("mapped files", "bytes", lambda point: point.file),
        ("page cache of the control group", "bytes", lambda point: point.cache),
        ("threads", "count", lambda point: point.threads),
    ]
    inner: list[tuple[str, str, Callable[[Inner], int | None]]] = [
        ("Python blocks", "count", lambda point: point.blocks),
        ("container objects", "count", lambda point: point.objects),
        ("malloc used", "bytes", lambda point: point.used),
        ("malloc free", "bytes", lambda point: point.free),
        ("frozen objects", "count", lambda point: point.frozen or None),
    ]
    rows = [_figure(name, unit, _series(evidence.points, of)) for name, unit, of in outer]
    rows += [_figure(name, unit, _own(evidence, of_inner)) for name, unit, of_inner in inner]
    return tuple(row for row in rows if row is not None)


def _figure(name: str, unit: str, series: list[tuple[float, float]]) -> Figure | None:
    if not series:
        return None
    line = slope(series)
    first, last = series[0][1], series[-1][1]
    if line is None:
        return Figure(name, unit, first, last, None, None, None)
    return Figure(name, unit, first, last, line.per_s, line.low, line.high)
