"""What grows, for each task, request or run that was completed meanwhile, and with which of them it grows."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Any, NamedTuple

from flatwater.memory.growth import Observation
from flatwater.memory.suspect import Suspect
from flatwater.memory.target import Target
from flatwater.memory.work import is_running

Counts = dict[str, dict[str, int]]
Look = tuple[float, Counts]
"""When, and what :func:`flatwater.memory.work.work_done` told then."""
Work = tuple[str, str]
"""A unit and a name."""
MIN_INTERVALS = 4
EXPLAINED = 0.5
"""The part of the growth that the calls of one name must explain."""
_JITTER = 0.25  # calls, squared: between the reading of a length and of a counter some may end


class Cause(NamedTuple):
    """Work with which something grows, and by how much for each piece of it."""

    unit: str
    name: str
    each: float


class Course:
    """What a target completes in a window, which begins here: ask it at each look, and at the end.

    ``completed`` is by unit and name, after :meth:`end`; units that run count what ran at both ends.
    """

    def __init__(self, target: Target) -> None:
        self._target = target
        self._looks: tuple[Look, ...] = ()  # no list: where this process diagnoses itself, it would be found to grow
        self._before: Counts = target.ask("work_done")
        self.completed: Counts = {}

    def look(self, at: float) -> None:
        """Something was measured at this time: how far is the work?"""
        self._looks = (*self._looks, (at, self._target.ask("work_done", search=False)))

    def end(self) -> None:
        """The window is over."""
        after: Counts = self._target.ask("work_done")
        for unit, row in after.items():
            before = self._before.get(unit, {})
            self.completed[unit] = {
                name: min(count, before.get(name, 0)) if is_running(unit) else count - before.get(name, 0)
                for name, count in row.items()
            }

    def goes_with(self, points: Sequence[tuple[float, float]]) -> Cause | None:
        """:func:`goes_with` by the looks so far."""
        return goes_with(points, self._looks)


def goes_with(points: Sequence[tuple[float, float]], looks: Sequence[Look]) -> Cause | None:
    """The work with which something grows, by its amounts at the times of the looks; None when that cannot be told.

    For each name it is asked how well the growth of the intervals is its calls times a constant. The best is believed
    only when all else is worse by more than chance makes it (95 %): another name, all names of a unit together, and the
    time alone, for what grows in the background does so with any work that comes evenly.
    """
    told = dict(looks)
    known = [(at, amount, told[at]) for at, amount in points if at in told]
    if len(known) <= MIN_INTERVALS:
        return None
    grown = [after - before for (_, before, _), (_, after, _) in pairwise(known)]
    passed = [end - begin for (begin, _, _), (end, _, _) in pairwise(known)]
    calls = _calls([work for _, _, work in known])
    units = {unit: [name for name in calls if name[0] == unit] for unit, _ in calls}
    totals = [_sum([calls[name] for name in names]) for names in units.values() if len(names) > 1]
    fits = sorted((_fit(grown, count)[0], name) for name, count in calls.items())
    if not fits or sum(grown) <= 0:
        return None
    best, name = fits[0]
    rivals = [rest for rest, _ in fits[1:2]] + [_fit(grown, other)[0] for other in (passed, *totals)]
    each = _fit(grown, calls[name])[1]
    noise = max(best, _JITTER * len(grown) * each * each)
    # Two variances of so many intervals differ by such a factor by chance: about F at 97.5 %.
    chance = math.exp(3.92 / math.sqrt(len(grown) - 1.7))
    explains = each * sum(calls[name]) >= EXPLAINED * sum(grown)
    return Cause(*name, each) if explains and min(rivals) > chance * noise else None


def company(one: Suspect, seen: Observation) -> list[tuple[float, float]]:
    """The amounts of a suspect at the times of the looks: a container's entries, or how many there are of a type."""
    track = seen.containers.get(one.addresses[0]) if one.what == "container" and one.merged == 1 else None
    track = track or seen.types.get(one.items.type) or seen.types.get(one.type)
    return [] if track is None else list(zip(track.times, track.counts, strict=True))


def per(one: Suspect, work: Counts, seconds: float, cause: Cause | None = None) -> dict[str, Any] | None:
    """Growth per piece of work completed in the window: ``{"unit", "name", "count", "items", "bytes", "goes_with"}``.

    Of the work with which it grows, where the ``cause`` is known; else of the unit of which most was completed, all
    names together. Where nothing ended but a task ran all the time, what is held counts for it. None when nobody
    counts.
    """
    item = one.items.type.rpartition(".")[2] or "entry"
    busy = {unit: {name: count for name, count in names.items() if count > 0} for unit, names in work.items()}
    done = {unit: names for unit, names in busy.items() if names and not is_running(unit)}
    if not done:
        return _so_far(one, item, busy)
    if cause is not None and cause.name not in done.get(cause.unit, {}):
        cause = None
    unit, name = cause[:2] if cause is not None else _most(done)
    count = done[unit].get(name) or sum(done[unit].values())
    items = cause.each if cause is not None else one.per_s * seconds / count
    retained = items * one.bytes_per_s / one.per_s if one.per_s else one.bytes_per_s * seconds / count
    text = f"+{items:,.3g} {item}" if items < 1000 else f"+{items:,.0f} {item}"
    text += f" per {f'{unit} {name}'.strip()}"
    if not name and len(done[unit]) > 1:
        text += f" of {len(done[unit])} kinds"
    return {
        "unit": unit,
        "name": name,
        "count": count,
        "items": items,
        "bytes": retained,
        "goes_with": cause is not None,
        "text": text,
    }


def _most(done: dict[str, dict[str, int]]) -> Work:
    """The unit of which most was completed, and its name where it has one only."""
    unit = max(done, key=lambda unit: sum(done[unit].values()))
    return unit, next(iter(done[unit])) if len(done[unit]) == 1 else ""


def _so_far(one: Suspect, item: str, busy: Counts) -> dict[str, Any] | None:
    """Nothing ended: what there is belongs to what runs."""
    rows = [(count, unit, name) for unit, names in busy.items() for name, count in names.items()]
    if not rows:
        return None
    count, unit, name = max(rows)
    items, retained = one.length / count, one.retained / count
    text = f"{items:,.0f} {item} so far per {name} that runs"
    return {
        "unit": unit,
        "name": name,
        "count": count,
        "items": items,
        "bytes": retained,
        "goes_with": False,
        "text": text,
    }


def _calls(work: list[Counts]) -> dict[Work, list[float]]:
    """How much of each was completed between looks; what was not completed at all is left out."""
    names = {(unit, name) for told in work for unit, row in told.items() for name in row if not is_running(unit)}
    counts = {(unit, name): [told.get(unit, {}).get(name, 0) for told in work] for unit, name in sorted(names)}
    return {
        name: [float(max(0, after - before)) for before, after in pairwise(row)]
        for name, row in counts.items()
        if row[-1] > row[0]
    }


def _fit(grown: Sequence[float], calls: Sequence[float]) -> tuple[float, float]:
    """Least squares through the origin: what is left of the growth, squared, and the growth for each call."""
    squares = sum(count * count for count in calls)
    each = sum(gain * count for gain, count in zip(grown, calls, strict=True)) / squares if squares else 0.0
    each = max(0.0, each)
    return sum((gain - each * count) ** 2 for gain, count in zip(grown, calls, strict=True)), each


def _sum(rows: list[list[float]]) -> list[float]:
    return [sum(column) for column in zip(*rows, strict=True)]
