"""What the examined process has done so far, where its framework counts: tasks, requests. Standard library only.

Runs in the foreign process. Nothing is imported and no counter is made: what frameworks keep anyway is read, and what
the guard counts where the program has one.
"""

from __future__ import annotations

import gc
import random
import sys
import weakref
from collections.abc import Callable, Iterable, Mapping
from types import FrameType
from typing import Any

from flatwater.memory import heap
from flatwater.memory.heap_fallback import type_name
from flatwater.memory.maker import take

RUNNING = "running celery task"
_RUNNING_HUEY = "running huey task"
_MAX_COUNTERS = 200  # objects that count, of one process
_MAX_NAMES = 500  # of one answer

_kind = type  # an argument of the command is called so
_Row = tuple[str, str, int]
_Read = Callable[[Any], Iterable[_Row]]
_counters: weakref.WeakKeyDictionary[Any, list[weakref.ref[Any]]] = weakref.WeakKeyDictionary()  # by session


def work_done(session: Any, *, search: bool = True) -> dict[str, dict[str, int]]:
    """A command: ``{"celery task": {"demo.task": 12}, "request": {"uvicorn": 345}}``, empty where nobody counts.

    A name may be "": the unit is counted, its names are not. Units that ``is_running`` count what runs at this moment
    instead. ``search=False`` asks the counters that the session's last search found, which costs no walk of the heap.
    """
    items = _found(session, search)
    guarded = _count(items, _GUARDS)
    rows = [*guarded, *_running()]
    units = {unit for unit, _, _ in guarded}  # the guard tells names where a framework counts alone
    rows += [row for row in (*_celery(), *_billiard(), *_count(items, _FRAMEWORKS)) if row[0] not in units]
    found: dict[str, dict[str, int]] = {}
    for unit, name, count in rows[:_MAX_NAMES]:
        row = found.setdefault(unit, {})
        row[name] = row.get(name, 0) + count
    return found


def is_running(unit: str) -> bool:
    """Whether a unit of :func:`work_done` counts what runs at this moment."""
    return unit in (RUNNING, _RUNNING_HUEY)


def instances(session: Any, *, type: str, limit: int = 20) -> list[int]:
    """A command: addresses of at most ``limit`` tracked objects of a type, by its full name, from among the youngest.

    The collector lists objects by generation, and within one as they came: those that became more are in the young
    generations and at the end of the old one.
    """
    name = type.rpartition(".")[2]
    young = [item for generation in (0, 1) for item in gc.get_objects(generation=generation)]
    found = {id(item) for item in young if (kind := _kind(item)).__name__ == name and type_name(kind) == type}
    _, listed = take([], [type], limit)
    last = {id(item) for item in listed[min(limit, len(listed) // 2) :]}
    return [address for part in (found, last) for address in random.sample(sorted(part), min(limit // 2, len(part)))]


def _celery() -> list[tuple[str, str, int]]:
    state = sys.modules.get("celery.worker.state")
    counts = getattr(state, "total_count", None)
    if not isinstance(counts, dict):
        return []
    return [("celery task", str(name), int(count)) for name, count in tuple(counts.items())]


def _billiard() -> list[_Row]:
    """A pool child's loop counts in a local variable: ``completed`` of ``Worker.workloop``."""
    if "billiard.pool" not in sys.modules:
        return []
    found = _locals("workloop", "billiard/pool.py", "completed")
    return [("celery task", "", count) for (count,) in found if isinstance(count, int)][:1]


def _running() -> list[_Row]:
    """Tasks under way: Celery's tracer has the task's name in a variable of its closure."""
    if "celery.app.trace" not in sys.modules:
        return []
    found = [
        name or getattr(task, "name", "") for name, task in _locals("trace_task", "celery/app/trace.py", "name", "task")
    ]
    return [(RUNNING, name, 1) for name in found if isinstance(name, str) and name]


def _locals(function: str, file: str, *names: str) -> list[tuple[Any, ...]]:
    """The values of these local variables in every running call of a function, None where one has no value."""
    found = []
    frames = list(sys._current_frames().values())
    at: FrameType | None = None
    while frames:
        at = frames.pop()
        while at is not None:
            if at.f_code.co_name == function and at.f_code.co_filename.endswith(file):
                values = at.f_locals
                found.append(tuple(values.get(name) for name in names))
                del values
            at = at.f_back  # ends as None: a frame that refers to itself would keep alive what it has found
    return found


def _attribute(unit: str, name: str, attribute: str) -> _Read:
    def read(item: Any) -> Iterable[_Row]:
        count = getattr(item, attribute, None)
        return [(unit, name, count)] if isinstance(count, int) else []

    return read


def _huey(item: Any) -> Iterable[_Row]:
    """A consumer's worker counts what it has taken; what it executes is in a set of its Huey instance."""
    count = getattr(item, "task_count", None)
    return [("huey task", "", count)] if isinstance(count, int) else []


def _hueys(item: Any) -> Iterable[_Row]:
    running = getattr(item, "_tasks_in_flight", None)
    return [(_RUNNING_HUEY, str(task.name), 1) for task in tuple(running)] if isinstance(running, set) else []


def _runs(item: Any) -> Iterable[_Row]:
    """Our own engine counts the runs that ended, by definition and state."""
    ended = getattr(getattr(item, "figures", None), "by_definition", None)
    if not isinstance(ended, dict):
        return []
    return [("run", str(name), sum(tuple(counts.values()))) for name, counts in tuple(ended.items())]


_UNITS = {"asgi": "request", "rq": "rq job"}


def _guarded(item: Any) -> Iterable[_Row]:
    """The guard has a row for each task or route: see flatwater.guard.table, which this layer must not import."""
    host = str(getattr(item, "name", "")).partition(":")[0]
    sums = getattr(getattr(item, "_table", None), "sums", None)
    if not isinstance(sums, dict):
        return []
    unit = _UNITS.get(host, f"{host} task")
    return [(unit, str(name), row.count) for name, row in tuple(sums.items())]


_GUARDS = {("flatwater.guard.worker", "Worker"): _guarded}
_FRAMEWORKS = {
    ("uvicorn.server", "ServerState"): _attribute("request", "uvicorn", "total_requests"),
    ("aiohttp.web_server", "Server"): _attribute("request", "aiohttp", "requests_count"),
    ("gunicorn.workers.base", "Worker"): _attribute("request", "gunicorn", "nr"),
    ("huey.consumer", "Worker"): _huey,
    ("huey.api", "Huey"): _hueys,
    ("flatwater.engine.engine", "Engine"): _runs,
}


def _count(items: Iterable[Any], readers: Mapping[tuple[str, str], _Read]) -> list[_Row]:
    loaded = [(getattr(sys.modules.get(module), name, None), read) for (module, name), read in readers.items()]
    known = [(kind, read) for kind, read in loaded if isinstance(kind, _kind)]
    return [row for item in items for kind, read in known if issubclass(_kind(item), kind) for row in read(item)]


def _found(session: Any, search: bool) -> list[Any]:
    """The objects that count here. They are not held: one that the program drops is gone."""
    if not search and session in _counters:
        return [item for reference in _counters[session] if (item := reference()) is not None]
    wanted = (getattr(sys.modules.get(module), name, None) for module, name in (*_GUARDS, *_FRAMEWORKS))
    kinds = [kind for found in wanted if isinstance(found, _kind) for kind in _with_subclasses(found)]
    items = living(kinds, _MAX_COUNTERS) if kinds else []
    if session is not None:
        _counters[session] = [weakref.ref(item) for item in items if _kind(item).__weakrefoffset__]
    return items


def _with_subclasses(kind: type) -> list[type]:
    children: list[type] = _kind.__subclasses__(kind)
    return [kind, *(one for child in children for one in _with_subclasses(child))]


def living(kinds: list[type], limit: int) -> list[Any]:
    """At most ``2 * limit`` objects of these classes (not of their subclasses), frozen ones included.

    No reference count of any other object is changed.
    """
    if heap._heap is None:  # whoever has a class refers to it; what is frozen is not found
        found = [item for item in gc.get_referrers(*kinds) if _kind(item) in kinds]
        return list({id(item): item for item in found}.values())[: 2 * limit]
    _, found = take([], sorted({type_name(kind) for kind in kinds}), limit)
    return [item for item in found if _kind(item) in kinds]
