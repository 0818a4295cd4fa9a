"""A Celery app with tasks that grow, for a worker in a process of its own; told by environment variables."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

from celery import Celery
from inferior import limit, note

from flatwater.guard import celery_pool
from flatwater.guard.celery import install
from flatwater.memory import procfs

MIB = 1 << 20
app = Celery("inferior", broker=os.environ["INFERIOR_BROKER"], backend=os.environ["INFERIOR_BACKEND"])
app.conf.update(
    worker_prefetch_multiplier=4,
    broker_connection_retry_on_startup=True,
    task_default_queue=os.environ.get("INFERIOR_QUEUE", "celery"),
    task_acks_late="INFERIOR_LATE" in os.environ,
    task_reject_on_worker_lost="INFERIOR_REJECT" in os.environ,
    worker_lost_wait=float(os.environ.get("INFERIOR_LOST_WAIT", "10")),
    worker_max_memory_per_child=int(os.environ.get("INFERIOR_OWN", "0")) * 1024 or None,
    worker_hijack_root_logger=False,
)
KEPT: list[bytearray] = [bytearray(b"x" * MIB) for _ in range(int(os.environ.get("INFERIOR_BORN", "0")))]

if "INFERIOR_BARE" not in os.environ:
    guard = install(app, soft=limit("INFERIOR_SOFT"), hard=limit("INFERIOR_HARD"))
    if "INFERIOR_ALONE" in os.environ:  # as if Celery's event loop were unknown
        celery_pool.Succession.attend = lambda *_: None  # type: ignore[method-assign,assignment]
    if "INFERIOR_EXPECT" in os.environ:  # faster than in production, where a collection each 30 s is plenty
        reset = guard._reset

        def faster() -> None:
            reset()
            guard.expectation._min_collect_s = guard.expectation._min_graph_s = 0.5

        guard._reset = faster  # type: ignore[method-assign]


@app.task(ignore_result=True)
def grow(number: int, kib: int, pause_s: float = 0.0) -> None:
    KEPT.append(bytearray(b"x" * (kib * 1024)))
    if pause_s:
        time.sleep(pause_s)
    note(number, os.getpid(), procfs.memory(shares=False).rss >> 20)


@app.task(ignore_result=True)
def spike(number: int, mib: int) -> None:
    bytearray(b"x" * (mib * MIB))
    note(number, os.getpid())


@app.task(ignore_result=True)
def one_ms(number: int = 0) -> None:
    began = time.perf_counter()
    while time.perf_counter() - began < 0.001:
        pass


@app.task
def child() -> None:
    pass


@app.task
def parent(count: int) -> int:
    for _ in range(count):
        child.apply_async()
    time.sleep(5)
    return count


@app.task
def told(request: Any, error: Exception, _: object) -> None:
    note("told", request.id, type(error).__name__)


@app.task
def eat_once(mib: int) -> str:
    """Too much at the first time; a second time says so."""
    before = Path(os.environ["INFERIOR_DONE"])
    if before.exists() and "eaten" in before.read_text():
        return "again"
    note("eaten")
    eat(mib)
    return "never"


@app.task
def eat(mib: int) -> None:
    kept = [bytearray(b"x" * MIB) for _ in range(mib)]
    time.sleep(60)
    kept.clear()
