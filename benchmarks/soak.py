"""Proofs of flat memory: each scenario in a process of its own, on SQLite with fsync.

    python benchmarks/soak.py [short|pending|delayed|waiting|document ...] [--scale 1.0]

short     300,000 runs: slope of the RSS after the first 20,000, with its 95 % interval; contexts back to zero
pending   1,000,000 runs accepted and not started: growth of the RSS
delayed   100,000 runs due in a day: growth of the RSS
waiting   100,000 runs that wait for a site: growth; then sites come free and all end
document  1,000 runs of 200 blocks with 1 KB outputs each, all read at the end: peak

Exit status 1 when a target is missed.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import uvloop

from flatwater.engine import Engine, EngineOptions, block
from flatwater.memory.slope import slope
from flatwater.store import Store
from flatwater.store import run as runs
from flatwater.store import site as sites
from flatwater.store.site import Change, SiteSpec

MB = 1e6
PRODUCERS = 200
KILOBYTE = "x" * 1000


@block("Nothing", family="bench")
async def nothing() -> None:
    """The empty task."""


@block("Kilobyte", family="bench")
async def kilobyte() -> dict[str, str]:
    return {"text": KILOBYTE}


def rss() -> float:
    """Resident bytes of this process."""
    return int(Path("/proc/self/statm").read_text("ascii").split()[1]) * os.sysconf("SC_PAGE_SIZE")


def plan(label: str, *blocks: dict[str, Any], outputs: Any = ()) -> dict[str, Any]:
    root = {"id": -1, "name": "root", "blockType": "RootBp", "children": {"default": list(blocks)}, "inputParams": {}}
    return {"label": label, "version": 1, "inputParams": [], "outputParams": list(outputs), "rootBlock": root}


def call(id: int, kind: str, **params: str) -> dict[str, Any]:
    given = {name: {"type": "Simple", "value": value} for name, value in params.items()}
    return {"id": id, "name": f"b{id}", "blockType": kind, "children": {}, "inputParams": given}


async def produce(engine: Engine, definition: str, count: int, **wish: Any) -> None:
    left = iter(range(count))

    async def one() -> None:
        for _ in left:
            await engine.submit(definition, **wish)

    await asyncio.gather(*(one() for _ in range(PRODUCERS)))


def ended(engine: Engine) -> int:
    return engine.statistics().ended["SUCCEEDED"]


async def short(engine: Engine, scale: float) -> dict[str, Any]:
    saved = await engine.save(plan("short", call(1, "Nothing")))
    points: list[tuple[float, float]] = []
    total, step = int(300_000 * scale), int(5_000 * scale)
    for done in range(0, total, step):
        await produce(engine, saved.id, step)
        while ended(engine) < done + step:
            await asyncio.sleep(0.01)
        if done + step > 20_000 * scale:
            points.append((done + step, rss()))
    found = slope(points)
    assert found is not None
    per = 100_000 / MB
    figures = {"mb_per_100k": found.per_s * per, "low": found.low * per, "high": found.high * per, "rss_mb": rss() / MB}
    await asyncio.sleep(0.2)
    gc.collect()
    figures["contexts"] = engine.statistics().contexts.live
    figures["ok"] = (
        figures["contexts"] == 0
        and figures["low"] <= 0.5
        and figures["high"] >= -0.5
        and abs(figures["mb_per_100k"]) <= 0.5
    )
    return figures


async def pending(engine: Engine, scale: float) -> dict[str, Any]:
    """Runs that are due, behind as many active ones as may be in memory."""
    gate = await engine.save(plan("gate", call(1, "DelayBp", timeMillis="900")))
    saved = await engine.save(plan("pending", call(1, "Nothing")))
    await produce(engine, saved.id, 2_000)
    engine.stop_claiming()
    del gate
    before = rss()
    await produce(engine, saved.id, int(1_000_000 * scale))
    return {"growth_mb": (rss() - before) / MB, "pending": await ready(engine), "ok": (rss() - before) / MB < 20}


async def ready(engine: Engine) -> int:
    return await engine.store.read(runs.ready_count, 2_000_000)


async def delayed(engine: Engine, scale: float) -> dict[str, Any]:
    saved = await engine.save(plan("delayed", call(1, "Nothing")))
    await produce(engine, saved.id, 2_000)
    before = rss()
    await produce(engine, saved.id, int(100_000 * scale), delay_s=86_400)
    return {"growth_mb": (rss() - before) / MB, "ok": (rss() - before) / MB < 5}


async def waiting(engine: Engine, scale: float) -> dict[str, Any]:
    count = int(100_000 * scale)
    await engine.store.writer.call(
        sites.save, [SiteSpec(id=f"S-{i}", group_name="S", enabled=False) for i in range(100)], time.time()
    )
    get = call(1, "GetIdleSiteBp", groupName="S", lock="true", retryPeriod="1000")
    saved = await engine.save(plan("waiting", get, call(2, "Nothing")))
    warm = await engine.save(plan("warm", call(1, "Nothing")))
    await produce(engine, warm.id, 2_000)
    base = ended(engine)
    before = rss()
    await produce(engine, saved.id, count)
    while (await engine.store.read(runs.count)).get("WAITING", 0) < count:
        await asyncio.sleep(0.5)
    growth = (rss() - before) / MB
    began = time.perf_counter()
    ids = [f"S-{i}" for i in range(100)]
    grants = await engine.store.writer.call(sites.set_many, ids, Change(enabled=True), time.time())
    engine.scheduler.granted(grants)
    while ended(engine) - base < count:
        await asyncio.sleep(0.1)
    return {
        "growth_mb": growth,
        "after_mb": (rss() - before) / MB,
        "all_ended_s": time.perf_counter() - began,
        "ok": growth < 20,
    }


async def document(engine: Engine, scale: float) -> dict[str, Any]:
    count = int(1_000 * scale)
    blocks = [call(i, "Kilobyte") for i in range(1, 201)]
    outputs = [
        {"name": "n", "type": "Long", "value": "=" + " + ".join(f"size(blocks.b{i}.text)" for i in range(1, 201, 40))}
    ]
    saved = await engine.save(plan("document", *blocks, outputs=outputs))
    await produce(engine, saved.id, count)
    while ended(engine) < count:
        await asyncio.sleep(0.05)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / MB
    return {"peak_mb": peak, "ok": peak < 120}


SCENARIOS: dict[str, Callable[[Engine, float], Awaitable[dict[str, Any]]]] = {
    "short": short, "pending": pending, "delayed": delayed, "waiting": waiting, "document": document,
}  # fmt: skip


async def measure(name: str, scale: float) -> dict[str, Any]:
    with tempfile.TemporaryDirectory(prefix="flatwater-memory-") as folder:
        async with (
            Store.open(f"sqlite:///{folder}/memory.db") as store,
            Engine(store, options=EngineOptions()) as engine,
        ):
            engine.registry.register(nothing)
            engine.registry.register(kilobyte)
            began = time.perf_counter()
            figures = await SCENARIOS[name](engine, scale)
            return {**figures, "seconds": time.perf_counter() - began}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("scenarios", nargs="*", default=list(SCENARIOS))
    parser.add_argument("--scale", type=float, default=1.0)
    parser.add_argument("--inside", action="store_true", help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.inside:
        sys.setswitchinterval(0.001)  # as the server does
        print(json.dumps(uvloop.run(measure(chosen.scenarios[0], chosen.scale))))
        return
    missed = False
    for name in chosen.scenarios:
        command = [sys.executable, __file__, name, "--scale", str(chosen.scale), "--inside"]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
        figures = json.loads(done.stdout.splitlines()[-1])
        missed = missed or not figures["ok"]
        print(
            name,
            "  ".join(
                f"{key} {value:.2f}" if isinstance(value, float) else f"{key} {value}" for key, value in figures.items()
            ),
            flush=True,
        )
    sys.exit(missed)


if __name__ == "__main__":
    main()
