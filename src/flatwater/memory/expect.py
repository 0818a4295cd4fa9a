"""Objects that should be dead by now, and who keeps them: ``expect_dead`` in the way of LeakCanary. Linux, CPython."""

from __future__ import annotations

import gc
import logging
import threading
import time
import weakref
from collections import OrderedDict, deque
from collections.abc import Callable
from typing import Any

import msgspec

from flatwater.bounded.ledger import Usage, check_bound
from flatwater.errors import FlatwaterError
from flatwater.memory import control_group, heap
from flatwater.memory.heap_model import HeapError, Node
from flatwater.quantity import size

log = logging.getLogger(__name__)

_MIN_GRAPH, _MAX_GRAPH = 4 << 20, 2 << 30  # bytes


class NotWatchable(FlatwaterError, code="expect"):
    """The object cannot be watched."""


class Retained(msgspec.Struct, frozen=True, kw_only=True):
    """An object that should be dead: what was expected, its type, its age in seconds, and who holds it.

    ``path`` is the retaining path as a sentence, "" when it could not be told (``why`` says so); ``advice`` the remedy
    where the pattern is known; ``alike`` how many more of the same name were alive at that moment.
    """

    name: str
    type: str
    age_s: float
    path: str
    owner: str
    why: str = ""
    advice: str = ""
    alike: int = 0


class ExpectStatistics(Usage, frozen=True, kw_only=True):
    """``size`` watches are pending of ``bound``; ``died`` as expected, ``retained`` were reported; ``collections``."""

    watched: int
    died: int
    retained: int
    refused: int
    collections: int


# Owner type and attribute of a known pattern, and what to do about it.
ADVICE = {
    ("celery.app.task.Context", "_children"): (
        "the parent task keeps the result of every sub-task in its request: declare it @app.task(trail=False)"
    ),
}


class Expectation:
    """Watches objects by weak references; what is still alive ``after_s`` later, after a full collection, is reported.

    At most ``max_pending`` watches (the oldest is dropped and counted), at most one collection each
    ``min_collect_s`` and one heap graph each ``min_graph_s``; of many objects of one name one path is looked for.
    With ``collect=False`` it never collects, but waits for a full collection of Python's own: then the oldest watches
    are kept, and further ones refused. A graph takes at most half of the room that is left: in the control group, and
    of the bytes that ``room()`` gives (None: no limit); without room none is taken, and the report says so.
    ``on_retained`` gets each :class:`Retained`; the last ``max_reports`` are kept in ``reports``.
    Nothing runs by itself: :meth:`check` is called from time to time, from any thread.
    """

    kind = "expectation"

    def __init__(
        self,
        name: str = "expect",
        *,
        max_pending: int = 1000,
        max_reports: int = 100,
        min_collect_s: float = 10.0,
        min_graph_s: float = 60.0,
        on_retained: Callable[[Retained], object] | None = None,
        collect: bool = True,
        room: Callable[[], int | None] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        check_bound("max_pending", max_pending, where=name)
        check_bound("max_reports", max_reports, where=name)
        self.name = name
        self._max_pending = max_pending
        self._min_collect_s, self._min_graph_s = min_collect_s, min_graph_s
        self._on_retained = on_retained
        self._collect, self._room = collect, room
        self._outlived: dict[int, int] = {}  # watches that are due, and Python's full collections when they were met
        self._clock = clock
        self._pending: OrderedDict[int, tuple[weakref.ref[Any], str, float, float]] = OrderedDict()
        self._number = 0
        self._lock = threading.RLock()
        self._next_collect = self._next_graph = -float("inf")
        self.reports: deque[Retained] = deque(maxlen=max_reports)
        self._watched = self._died = self._retained = self._refused = self._collections = 0

    def expect_dead(self, item: object, name: str, *, after_s: float = 5.0) -> None:
        """From ``after_s`` on ``item`` should be dead. Raises NotWatchable for a type without weak references."""
        with self._lock:
            if not self._collect and len(self._pending) >= self._max_pending:
                self._refused += 1
                return
            self._number += 1
            number = self._number
            try:
                reference = weakref.ref(item, lambda _: self._die(number))
            except TypeError:
                kind = type(item)
                raise NotWatchable(
                    f"{kind.__module__}.{kind.__qualname__} has no weak references",
                    where=name,
                    hint="watch the object that holds it, or give the class __slots__ with '__weakref__'",
                ) from None
            now = self._clock()
            self._pending[number] = (reference, name, now, now + after_s)
            self._watched += 1
            if len(self._pending) > self._max_pending:
                self._pending.popitem(last=False)
                self._refused += 1

    @property
    def due(self) -> bool:
        """Whether ``check`` has something to do that may take long; cheap."""
        now = self._clock()
        return now >= self._next_collect and bool(self._due(now))

    def check(self) -> tuple[Retained, ...]:
        """Look at what is due. Cheap when nothing is; else a collection, and perhaps a graph, within their rates."""
        now = self._clock()
        if now < self._next_collect or not (due := self._due(now)):
            return ()
        if self._collect:
            self._next_collect = now + self._min_collect_s
            self._collections += 1
            gc.collect()
            due = self._due(now)
        else:
            due = self._collected(due)
        return self._report(due, now) if due else ()

    def statistics(self) -> ExpectStatistics:
        return ExpectStatistics(
            size=len(self._pending),
            bound=self._max_pending,
            evictions=self._refused,
            watched=self._watched,
            died=self._died,
            retained=self._retained,
            refused=self._refused,
            collections=self._collections,
        )

    def clear(self) -> None:
        """Forget all watches."""
        with self._lock:
            self._pending.clear()

    def _die(self, number: int) -> None:
        if self._pending.pop(number, None) is not None:  # one step under the interpreter's lock: runs in any thread
            self._died += 1

    def _due(self, now: float) -> list[int]:
        with self._lock:
            return [number for number, row in self._pending.copy().items() if now >= row[3]]

    def _collected(self, due: list[int]) -> list[int]:
        """Those of the due that have lived through a full collection since."""
        full = gc.get_stats()[-1]["collections"]
        self._outlived = {number: self._outlived.get(number, full) for number in due}
        return [number for number, met in self._outlived.items() if full > met]

    def _report(self, due: list[int], now: float) -> tuple[Retained, ...]:
        by_name: dict[str, list[tuple[Any, float]]] = {}
        for number in due:
            row = self._pending.pop(number, None)
            item = row[0]() if row is not None else None
            if row is None or item is None:
                continue
            by_name.setdefault(row[1], []).append((item, now - row[2]))
        self._retained += sum(map(len, by_name.values()))
        found = self._paths([(name, *items[0], len(items) - 1) for name, items in by_name.items()], now)
        for one in found:
            self.reports.append(one)
            told = (one.path or one.why) + (f": {one.advice}" if one.advice else "")
            log.warning("%s is still alive %.0f s after it was expected: %s", one.name, one.age_s, told)
            if self._on_retained is not None:
                self._on_retained(one)
        return found

    def _paths(self, rows: list[tuple[str, Any, float, int]], now: float) -> tuple[Retained, ...]:
        if not rows:
            return ()
        graph, why = None, "a graph was taken less than min_graph_s ago"
        holder = [row[1] for row in rows]
        # The report's own references must not be the path: only addresses are left when the graph is taken.
        addresses = [(name, id(item), type(item), age, alike) for name, item, age, alike in rows]
        kept = [weakref.ref(item) for item in holder]
        rows.clear()
        holder.clear()
        if now >= self._next_graph:
            self._next_graph = now + self._min_graph_s
            room = self._graph_bytes()
            try:
                if room >= _MIN_GRAPH:
                    graph = heap.graph(max_bytes=room)
                else:
                    why = f"no graph is taken: {size(2 * room)} are left below the limit"
            except HeapError as error:
                why = str(error)
        try:
            return tuple(
                _retained(graph, reference, why, name, kind, age, alike)
                for reference, (name, _, kind, age, alike) in zip(kept, addresses, strict=True)
            )
        finally:
            if graph is not None:
                graph.close()

    def _graph_bytes(self) -> int:
        """What a graph may take: the other half of the room is for pages that are written to meanwhile, and copied."""
        used, limit = control_group.own_use()
        rooms = [limit - used, 2 * _MAX_GRAPH]
        if self._room is not None and (room := self._room()) is not None:
            rooms.append(room)
        return max(min(rooms), 0) // 2


def _retained(
    graph: heap.Graph | None, item: weakref.ref[Any], why: str, name: str, kind: type, age_s: float, alike: int
) -> Retained:
    path, owner, advice = "", "", ""
    alive = item()
    if graph is not None and alive is not None:
        try:
            found = graph.path_to(alive)
            path, why = str(found), ""
            owner, advice = advise(found)
        except HeapError as error:
            why = str(error)
    return Retained(
        name=name, type=f"{kind.__module__}.{kind.__qualname__}", age_s=age_s, path=path, owner=owner, why=why,
        advice=advice, alike=alike,
    )  # fmt: skip


def advise(path: heap.Path) -> tuple[str, str]:
    """``Owner.attribute`` of the container nearest to the object, and the remedy when the pattern is known."""
    owner = ""
    holder: Node | None = None
    for step in path.steps:
        if (
            holder is not None
            and step.edge.kind in ("attribute", "namespace")
            and step.edge.name not in ("", "__dict__")
        ):
            owner = f"{holder.type}.{step.edge.name}"
            if advice := ADVICE.get((holder.type, step.edge.name)):
                return owner, advice
        if isinstance(step.node, Node) and step.edge.name != "__dict__":
            holder = step.node
    return owner, ""
