"""Flatwater's part of `benchmarks/engine.py`: measures one thing and prints it as JSON."""

from __future__ import annotations

import asyncio
import json
import statistics
import sys
import time
from typing import Any

import psutil
import uvloop
from trial import BULK, PRODUCERS, Worker, began, produce
from trial import latency as latency_apart

from flatwater.engine import Engine, EngineOptions, block
from flatwater.store import Store

started: list[float] = []


@block("Nothing", family="bench")
async def nothing() -> None:
    """The empty task."""


@block("Stamp", family="bench")
async def stamp() -> None:
    started.append(time.perf_counter())


@block("Job", family="bench")
async def job() -> None:
    began()


def definition(blocks: int, kind: str = "Nothing") -> dict[str, Any]:
    body = [
        {"id": i, "name": f"b{i}", "blockType": kind, "children": {}, "inputParams": {}} for i in range(1, blocks + 1)
    ]
    root = {"id": -1, "name": "root", "blockType": "RootBp", "children": {"default": body}, "inputParams": {}}
    return {"label": f"bench{blocks}", "version": 1, "inputParams": [], "outputParams": [], "rootBlock": root}


async def end_to_end(engine: Engine, definition_id: str, count: int, producers: int = PRODUCERS) -> float:
    """Runs per second from the first submission until the last run has ended."""
    before = engine.statistics().ended["SUCCEEDED"]
    begin = time.perf_counter()
    await produce(count, lambda: engine.submit(definition_id), producers)
    while engine.statistics().ended["SUCCEEDED"] - before < count:
        await asyncio.sleep(0.002)
    return count / (time.perf_counter() - begin)


async def latency(engine: Engine, count: int) -> dict[str, float]:
    waits = []
    for _ in range(count):
        await asyncio.sleep(0.01)
        begin = time.perf_counter()
        await engine.result(await engine.submit_call(stamp))
        waits.append((started.pop() - begin) * 1000)
    cuts = statistics.quantiles(waits, n=100)
    return {"p50_ms": statistics.median(waits), "p99_ms": cuts[98]}


async def delay(engine: Engine, count: int) -> dict[str, float]:
    begin = time.perf_counter()
    runs = [await engine.submit_call(stamp, delay_s=2.0) for _ in range(count)]
    for run in runs:
        await engine.result(run)
    return {"seconds": statistics.median(started) - begin}


async def growth(engine: Engine, count: int) -> dict[str, float]:
    """Microseconds per run with a thousand stored runs, and with ``count``."""
    saved = await engine.save(definition(1))
    await end_to_end(engine, saved.id, 1_000)
    small = [await end_to_end(engine, saved.id, 4_000) for _ in range(3)]
    stored = 13_000
    while stored < count:
        await end_to_end(engine, saved.id, 50_000)
        stored += 50_000
    large = [await end_to_end(engine, saved.id, 4_000) for _ in range(3)]
    return {"small_us": 1e6 / statistics.median(small), "large_us": 1e6 / statistics.median(large)}


async def apart(engine: Engine, what: str, count: int, worker: Worker) -> dict[str, float]:
    """As the peers work: this process only submits, ``worker`` has the engine that runs."""
    engine.stop_claiming()
    saved = await engine.save(definition(1, "Job"))
    try:
        await produce(PRODUCERS, lambda: engine.submit(saved.id))
        await worker.reach(PRODUCERS)
        if what == "latency":
            return await latency_apart(count, worker, lambda: engine.submit(saved.id))
        begin = time.perf_counter()
        await produce(count, lambda: engine.submit(saved.id))
        await worker.reach(PRODUCERS + count)
        return {"rate": count / (worker.last - begin), **worker.memory_mb()}
    finally:
        worker.stop()


async def measure(what: str, count: int, folder: str, url: str) -> dict[str, float]:
    async with Store.open(url) as store, Engine(store, options=EngineOptions()) as engine:
        for each in (nothing, stamp, job):
            engine.registry.register(each)
        if what == "worker":
            await asyncio.Event().wait()
        if what.startswith("apart-"):
            worker = Worker.of(__file__, folder, "0", folder, url)
            return await apart(engine, what.removeprefix("apart-"), count, worker)
        if what in ("runs", "flows", "jobs", "bulk"):
            saved = await engine.save(definition(10 if what == "flows" else 1))
            await end_to_end(engine, saved.id, 200)
            memory = psutil.Process().memory_full_info
            rate = await end_to_end(engine, saved.id, count, BULK if what == "bulk" else PRODUCERS)
            return {"rate": rate, "rss_mb": memory().rss / 1e6, "pss_mb": memory().pss / 1e6}
        return await {"latency": latency, "delay": delay, "growth": growth}[what](engine, count)


if __name__ == "__main__":
    sys.setswitchinterval(0.001)  # as the server does
    what, count, folder = sys.argv[1], int(sys.argv[2]), sys.argv[3]
    url = sys.argv[4] if len(sys.argv) > 4 else f"sqlite:///{folder}/bench.db"
    print(json.dumps(uvloop.run(measure(what, count, folder, url))))
