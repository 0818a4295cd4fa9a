"""A Huey instance with tasks that grow, for a consumer in a process of its own; told by environment variables."""

from __future__ import annotations

import os
import time

from huey import RedisHuey, SqliteHuey
from huey.api import Task
from inferior import DONE, grow_when_told, limit, note  # noqa: F401 - the tests ask for DONE

from flatwater.guard.huey import install
from flatwater.memory import procfs

MIB = 1 << 20
place = os.environ["INFERIOR_STORAGE"]
kind = {"results": "INFERIOR_NO_RESULTS" not in os.environ}
huey = (
    RedisHuey("inferior", url=place, **kind)
    if place.startswith("redis")
    else SqliteHuey("inferior", filename=place, **kind)
)

if "INFERIOR_BARE" not in os.environ:
    guard = install(huey, soft=limit("INFERIOR_SOFT"), hard=limit("INFERIOR_HARD"))
KEPT: list[object] = []


@huey.task()
def grow(number: int, kib: int, pause_s: float = 0.0) -> None:
    KEPT.append(bytearray(b"x" * (kib * 1024)))
    if pause_s:
        time.sleep(pause_s)
    note(number, os.getpid(), os.times().elapsed, procfs.memory(shares=False).rss >> 20)


@huey.task()
def grow_late() -> None:
    grow_when_told(KEPT)


@huey.task()
def nothing(number: int) -> None:
    note(number, os.getpid())


@huey.task()
def gather(*results: object) -> None:
    note("gathered", len(results))


@huey.task(context=True)
def keep(task: Task | None = None) -> None:
    KEPT.append(task)


@huey.periodic_task(lambda _: False)
def periodic() -> None:
    pass


@huey.task()
def one_ms() -> None:
    began = time.perf_counter()
    while time.perf_counter() - began < 0.001:
        pass


@huey.task()
def level() -> tuple[int, int]:
    from flatwater.memory.trim import holders

    return procfs.memory(shares=False).rss, holders().arenas


@huey.task()
def hog(mib: int) -> int:
    rows = []
    while procfs.memory(shares=False).rss < mib * MIB:
        rows += [{"row": number, "text": f"text {number}" * 4, "more": [number] * 8} for number in range(5000)]
    rows.append(rows)  # type: ignore[arg-type]  # a cycle: only a collection frees it
    return len(rows)


@huey.task()
def eat(mib: int) -> None:
    kept = [bytearray(b"x" * MIB) for _ in range(mib)]
    time.sleep(60)
    kept.clear()
