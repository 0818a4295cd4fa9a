"""What the examined process has done so far, where its framework counts: tasks, requests. Standard library only.

Runs in the foreign process. Nothing is imported and no counter is made: what frameworks keep anyway is read.
"""

from __future__ import annotations

import gc
import random
import sys
from typing import Any

from flatwater.memory.heap_fallback import type_name
from flatwater.memory.maker import take

RUNNING = "running celery task"

_kind = type  # an argument of the command is called so


def work_done(session: Any) -> dict[str, dict[str, int]]:
    """A command: ``{"celery task": {"demo.task": 12}, "request": {"uvicorn": 345}}``, empty where nobody counts.

    ``RUNNING`` counts what runs at this moment instead.
    """
    found: dict[str, dict[str, int]] = {}
    for unit, name, count in (*_celery(), *_billiard(), *_running(), *_servers(), *_flatwater()):
        row = found.setdefault(unit, {})
        row[name] = row.get(name, 0) + count
    return found


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


def _billiard() -> list[tuple[str, str, int]]:
    """A pool child's loop counts in a local variable: ``completed`` of ``Worker.workloop``."""
    if "billiard.pool" not in sys.modules:
        return []
    for frame in tuple(sys._current_frames().values()):
        at = frame
        while at is not None:
            if at.f_code.co_name == "workloop" and at.f_code.co_filename.endswith("billiard/pool.py"):
                count = at.f_locals.get("completed")
                return [("celery task", "", int(count))] if isinstance(count, int) else []
            at = at.f_back  # type: ignore[assignment]
    return []


def _running() -> list[tuple[str, str, int]]:
    """Tasks under way: Celery's tracer has the task's name in a variable of its closure."""
    if "celery.app.trace" not in sys.modules:
        return []
    rows = []
    for frame in tuple(sys._current_frames().values()):
        at = frame
        while at is not None:
            if at.f_code.co_name == "trace_task" and at.f_code.co_filename.endswith("celery/app/trace.py"):
                name = at.f_locals.get("name") or getattr(at.f_locals.get("task"), "name", "")
                if isinstance(name, str) and name:
                    rows.append((RUNNING, name, 1))
            at = at.f_back  # type: ignore[assignment]
    return rows


_SERVERS = (
    ("uvicorn.server", "ServerState", "total_requests", "uvicorn"),
    ("aiohttp.web_server", "Server", "requests_count", "aiohttp"),
    ("gunicorn.workers.base", "Worker", "nr", "gunicorn"),
)


def _servers() -> list[tuple[str, str, int]]:
    wanted = []
    for module, kind, attribute, name in _SERVERS:
        found = getattr(sys.modules.get(module), kind, None)
        if isinstance(found, _kind):
            wanted.append((found, attribute, name))
    if not wanted:
        return []
    rows = []
    classes = tuple(kind for kind, _, _ in wanted)
    for item in gc.get_objects():
        if issubclass(_kind(item), classes):
            for owner, attribute, name in wanted:
                count = getattr(item, attribute, None) if issubclass(_kind(item), owner) else None
                if isinstance(count, int):
                    rows.append(("request", name, count))
    return rows


def _flatwater() -> list[tuple[str, str, int]]:
    """Our own engine counts the runs that ended; it is found by its class, as the servers are."""
    module = sys.modules.get("flatwater.engine.engine")
    kind = getattr(module, "Engine", None)
    if not isinstance(kind, _kind):
        return []
    rows = []
    for item in gc.get_objects():
        if _kind(item) is kind:
            ended = getattr(item, "_ended", None)  # statistics() would be called from a foreign thread
            rows += [("run", state, count) for state, count in tuple((ended or {}).items())]
    return rows
