"""Which lines fill a container, and which make what it holds: short windows in the process that is examined.

Commands of the agent, registered by :mod:`flatwater.memory.command`. Standard library and C extensions only.
Everything is as it was after a window, however it ends. The containers that are watched are held meanwhile: one that
the program drops in the window is freed at its end.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from typing import Any

from flatwater.memory import heap
from flatwater.memory.heap_graph import locals_of_frames
from flatwater.memory.heap_model import HeapError
from flatwater.memory.item import Item, newest, sighted
from flatwater.memory.site import Functions, Place, own, to_json
from flatwater.memory.slot import content, new_below, resolved
from flatwater.memory.statement import kept_at
from flatwater.memory.trace import Allocations, Lines, at_fork, extension

_SLICE_S = 0.04  # tracing is on for this long,
_REST = 3.0  # and off for that many times as long, while the process is busy
_BUSY = 0.5  # of one core
_ALLOCATION_SHARE = 0.15  # of the window, while the process is busy: tracemalloc makes it several times slower
_ITEMS = 100  # new items of one container that tell enough
_LOOK_AT = 400  # the newest items of one container
_FEWEST_SLICES = 8
_MAX_SITES = 20
_window = threading.Lock()


def watch(
    session: Any,
    *,
    addresses: list[int],
    seconds: float,
    slots: Sequence[tuple[int, str | None, int]] = (),
    trace_allocations: bool = True,
    max_events: int = 200,
    frames: int = 16,
) -> dict[str, Any]:
    """A command: who changes the containers at these addresses (at most 64), and where their new items are made.

    Of ``slots`` (address of the holder, name or None, address of what was in it) the changes are told as if their
    objects were entries of a container, in rows that follow those of the containers. Ends after ``seconds``, when each
    became longer ``max_events`` times, or when the client is gone. Stacks have at most ``frames`` places (32). While
    the process is busy the tracing comes and goes, so that more than half of its speed remains. Raises HeapError while
    another watch is under way, HeapMissing without the C extension.
    """
    closed = getattr(session, "closed", None) or threading.Event()
    taken, _ = take([*addresses, *(holder for holder, _, _ in slots)])
    found = [item if item is not None and extension().figure(item) is not None else None for item in taken]
    found[len(addresses) :] = [
        None if item is None else resolved(item, name, child)
        for item, (_, name, child) in zip(taken[len(addresses) :], slots, strict=True)
    ]
    del taken
    alive = [item for item in found if item is not None]
    with _alone(), contextlib.ExitStack() as stack:
        one = _Window(alive, seconds, max_events, frames, trace_allocations, closed)
        stack.enter_context(at_fork(one.close))  # first in, last out: a child never has what nobody takes back
        stack.callback(one.close)
        one.run()
        told = iter(one.told())
        rows = [{"alive": False} if item is None else next(told) for item in found]
        rows = [{"address": at, **row} for at, row in zip([*addresses, *(row[0] for row in slots)], rows, strict=True)]
        return {"seconds": one.elapsed_s, "overhead": one.overhead(), "containers": rows}


def types_made(
    session: Any, *, seconds: float, types: list[str], max_items: int = 5_000, frames: int = 10
) -> dict[str, Any]:
    """A command: where the objects of these types (full names) were made that are new in the window and still alive.

    For growth that no container shows; ``inserted_at`` is read from the source. Looks at ``max_items`` objects, the
    youngest among them.
    """
    closed = getattr(session, "closed", None) or threading.Event()
    allocations = Allocations(frames)
    begun = time.monotonic()
    with _alone(), contextlib.ExitStack() as stack:
        stack.enter_context(at_fork(allocations.off))
        stack.callback(allocations.off)
        allocations.on()
        cpu = time.process_time()
        closed.wait(min(seconds, 0.5))
        if time.process_time() - cpu < _BUSY * min(seconds, 0.5):
            closed.wait(max(0.0, seconds - 0.5))
        _, items = take([], types, max_items)
        seen = sighted(items)
        del items
    by_type: dict[str, list[Item]] = defaultdict(list)
    for item in seen:
        if item.stack:
            by_type[item.type].append(item)
    functions = Functions()
    rows = [{"type": name, **_made(by_type.get(name, []), len(by_type.get(name, [])), functions)} for name in types]
    return {"seconds": time.monotonic() - begun, "types": [{**row, "inserted_at": _read(row)} for row in rows]}


def _read(row: dict[str, Any]) -> list[dict[str, Any]]:
    """Where the source says that the objects are kept; its share is 0, for it was not seen."""
    stack = [
        (step["file"], step["function"], step["line"]) for made in row["allocated_at"][:1] for step in made["stack"]
    ]
    place = kept_at(stack)
    return [] if place is None else [{**to_json(place), "count": 0, "share": 0.0, "stack": []}]


def take(addresses: list[int], types: list[str] | None = None, limit: int = 0) -> tuple[list[Any], list[Any]]:
    """The objects that live at these addresses now (None where none does), and objects of the types.

    An address is believed only when a walk of the heap meets an object there: the process stands still for that. What
    it meets may be another object than the caller knew.
    """
    extension = heap._extension()
    frames = locals_of_frames(extension)
    return extension.take(  # type: ignore[no-any-return]
        tuple(addresses), tuple(types or ()), limit, 512 << 20, heap._PACKAGE, frames
    )


@contextlib.contextmanager
def _alone() -> Iterator[None]:
    if not _window.acquire(blocking=False):
        raise HeapError("another watch is under way in this process: wait for its end")
    try:
        yield
    finally:
        _window.release()


class _Window:
    def __init__(
        self,
        containers: list[Any],
        seconds: float,
        max_events: int,
        frames: int,
        trace_allocations: bool,
        closed: threading.Event,
    ) -> None:
        self._containers = containers
        self._seconds = seconds
        self._max_events = max_events
        self._frames = frames
        self._closed = closed
        self._lengths = [_length(item) for item in containers]
        self._items: list[list[Item]] = [[] for _ in containers]
        self._allocations = Allocations(min(frames, 12))
        self._sampling = trace_allocations and bool(containers)
        self._allocation_s = self._line_s = self.elapsed_s = 0.0
        self._slices = 0
        self._busy = False
        self._lines = Lines()

    def run(self) -> None:
        begun = time.monotonic()
        self._lines.open(self._containers, self._frames)
        try:
            while self._containers and not self._closed.is_set() and not self._enough():
                left = begun + self._seconds - time.monotonic()
                if left <= 0:
                    break
                self._slice(min(_SLICE_S, left))
                self._slices += 1
            if self._sampling:
                self._collect()
        finally:
            self.elapsed_s = time.monotonic() - begun

    def _slice(self, slice_s: float) -> None:
        """Trace for a moment. A busy process has its lines and its allocations traced one after the other."""
        if self._sampling:
            self._allocations.on()
            if self._sampled() or (self._busy and self._allocation_s >= _ALLOCATION_SHARE * self._seconds):
                self._collect()
        lines = not (self._sampling and self._busy)
        cpu, wall = time.process_time(), time.monotonic()
        if lines:
            self._lines.on()
        try:
            self._closed.wait(slice_s)
        finally:
            if lines:
                self._lines.off()
        took = time.monotonic() - wall
        self._busy = time.process_time() - cpu > _BUSY * took
        self._line_s += took if lines else 0.0
        self._allocation_s += took if self._sampling else 0.0
        if self._busy and not self._sampling:
            self._closed.wait(_REST * took)

    def _enough(self) -> bool:
        sure = self._slices >= _FEWEST_SLICES and not self._sampling
        return sure and min(self._lines.rises(), default=0) >= self._max_events

    def _sampled(self) -> bool:
        """Each container has got enough new items, in more than one slice."""
        grown = (_grown(item, before) for item, before in zip(self._containers, self._lengths, strict=True))
        return self._slices >= 3 and min(grown, default=0) >= _ITEMS

    def _collect(self) -> None:
        self._sampling = False
        for number, (container, before) in enumerate(zip(self._containers, self._lengths, strict=True)):
            grown = min(_grown(container, before), _LOOK_AT)
            if type(container) is tuple:
                self._items[number] = sighted(new_below(content(container), _LOOK_AT))
            else:  # what grew before the window may go on further down
                self._items[number] = sighted(newest(container, grown) if grown else new_below(container, _LOOK_AT))
        self._allocations.off()

    def close(self) -> None:
        """Leave the process as it was. Closing twice is allowed."""
        self._lines.close()
        self._allocations.off()
        self._containers = []

    def overhead(self) -> dict[str, Any]:
        events, lost, _, _ = self._lines.results()
        return {
            "lines_s": self._line_s,
            "allocations_s": self._allocation_s,
            "slices": self._slices,
            "events": events,
            "lost": lost,
            "threads_left": self._lines.left,
        }

    def told(self) -> Iterator[dict[str, Any]]:
        functions = Functions()
        _, _, figures, sites = self._lines.results()
        for number, (entries, grew, shrank, rises) in enumerate(figures):
            changes = [site for site in sites if site[0] == number]
            items = self._items[number]
            made = _made(items, len(items), functions)
            yield {
                "alive": True,
                "length": entries,
                "grew": grew,
                "shrank": shrank,
                "rises": rises,
                "inserted_at": _changed([site for site in changes if site[1] > 0], grew) if grew else _read(made),
                "removed_at": _changed([site for site in changes if site[1] < 0], shrank),
                **made,
            }


def _length(item: Any) -> int:
    """Entries of a container; for a slot, which object is in it."""
    return id(content(item)) if type(item) is tuple else int(extension().figure(item))


def _grown(item: Any, before: int) -> int:
    now = _length(item)
    return _ITEMS * (now != before) if type(item) is tuple else max(0, now - before)


def _changed(sites: list[tuple[Any, ...]], total: int) -> list[dict[str, Any]]:
    """Rows by the user's line. A change that may be one of two threads' is given to the line that is surely a maker."""
    sure = {stack[0] for _, _, _, _, stack, other in sites if other is None or other == stack[0]}
    counts: dict[Place, int] = Counter()
    stacks: dict[Place, Counter[tuple[Place, ...]]] = defaultdict(Counter)
    homes = {stack[0]: own(stack) for _, _, _, _, stack, _ in sites}
    for _, _, _, entries, stack, other in sites:
        mistaken = stack[0] not in sure and other in sure
        place = homes[other] if mistaken else own(stack)
        counts[place] += entries
        if not mistaken:
            stacks[place][tuple(stack)] += entries
    return _rows(counts, stacks, total)


def _made(items: list[Item], total: int, functions: Functions) -> dict[str, Any]:
    counts: dict[Place, int] = Counter()
    stacks: dict[Place, Counter[tuple[Place, ...]]] = defaultdict(Counter)
    coroutines: Counter[tuple[Place, Place | None]] = Counter()
    for item in items:
        stack = tuple(functions.place(*at) for at in item.stack)
        if stack:
            counts[own(stack)] += 1
            stacks[own(stack)][stack] += 1
        if item.coroutine is not None:
            coroutines[item.coroutine, own(stack) if stack else None] += 1
    return {
        "allocated_at": _rows(counts, stacks, total),
        "items": [
            {"type": name, "count": count}
            for name, count in Counter(item.type for item in items).most_common(_MAX_SITES)
        ],
        "coroutines": [
            {
                "name": name,
                "file": file,
                "line": line,
                "created_at": None if created is None else to_json(created),
                "count": count,
            }
            for ((file, name, line), created), count in coroutines.most_common(_MAX_SITES)
        ],
    }


def _rows(
    counts: dict[Place, int], stacks: dict[Place, Counter[tuple[Place, ...]]], total: int
) -> list[dict[str, Any]]:
    return [
        {
            **to_json(place),
            "count": count,
            "share": min(1.0, count / total) if total else 0.0,
            "stack": [to_json(step) for stack, _ in stacks[place].most_common(1) for step in stack],
        }
        for place, count in Counter(counts).most_common(_MAX_SITES)
    ]
