"""Flatwater's part of `benchmarks/engine.py`: measures one thing and prints it as JSON."""

from __future__ import annotations

import asyncio
import json
import statistics
import sys
import time
from typing import Any

import uvloop

from flatwater.engine import Engine, EngineOptions, block
from flatwater.store import Store

PRODUCERS = 200
started: list[float] = []


@block("Nothing", family="bench")
async def nothing() -> None:
    """The empty task."""


@block("Stamp", family="bench")
async def stamp() -> None:
    started.append(time.perf_counter())


def definition(blocks: int) -> dict[str, Any]:
    body = [
        {"id": i, "name": f"b{i}", "blockType": "Nothing", "children": {}, "inputParams": {}}
        for i in range(1, blocks + 1)
    ]
    root = {"id": -1, "name": "root", "blockType": "RootBp", "children": {"default": body}, "inputParams": {}}
    return {"label": f"bench{blocks}", "version": 1, "inputParams": [], "outputParams": [], "rootBlock": root}


async def end_to_end(engine: Engine, definition_id: str, count: int) -> float:
    """Runs per second from the first submission until the last run has ended."""
    before = engine.statistics().ended["SUCCEEDED"]
    left = iter(range(count))

    async def produce() -> None:
        for _ in left:
            await engine.submit(definition_id)

    begin = time.perf_counter()
    await asyncio.gather(*(produce() for _ in range(PRODUCERS)))
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


async def measure(what: str, count: int, folder: str) -> dict[str, float]:
    async with Store.open(f"sqlite:///{folder}/bench.db") as store, Engine(store, options=EngineOptions()) as engine:
        engine.registry.register(nothing)
        engine.registry.register(stamp)
        if what in ("runs", "flows"):
            saved = await engine.save(definition(1 if what == "runs" else 10))
            await end_to_end(engine, saved.id, 200)
            return {"rate": await end_to_end(engine, saved.id, count)}
        return await {"latency": latency, "delay": delay, "growth": growth}[what](engine, count)


if __name__ == "__main__":
    sys.setswitchinterval(0.001)  # as the server does
    print(json.dumps(uvloop.run(measure(sys.argv[1], int(sys.argv[2]), sys.argv[3]))))
