"""kill -9 while writing: all that was acknowledged is there afterwards, puts are whole, and the file is sound."""

from __future__ import annotations

import random
import subprocess
import sys
import time

import pytest

from flatwater.bounded import Ledger
from flatwater.store import Store, run, step, variable

ROUNDS = 6
WRITING = """
import asyncio, sys, time
from flatwater.store import Store, run, step, variable
from tests.store.conftest import new_run, started

async def producer(store):
    while True:
        new = await started(store)
        done = step.put(new.id, "-1/1", 1, "b", "T", "SUCCEEDED", 1, 1.0, 2.0)
        await store.writer.put(done, variable.put(new.id, "v", "1"))
        print("step", new.id)
        await store.writer.put(run.end(new.id, 1, "SUCCEEDED", time.time()))
        print("end", new.id, flush=True)

async def main():
    async with Store.open(sys.argv[1]) as store:
        await store.join()
        print("ready", flush=True)
        await asyncio.gather(*(producer(store) for _ in range(50)))

asyncio.run(main())
"""


def write_and_kill(url: str, seconds: float) -> list[list[str]]:
    """What a process said was durable before it was killed; a last line cut short does not count."""
    process = subprocess.Popen([sys.executable, "-c", WRITING, url], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    with process.stdout as said:
        assert said.readline() == "ready\n"
        time.sleep(seconds)
        process.kill()
        lines = said.read().split("\n")[:-1]
    process.wait()
    return [line.split() for line in lines]


@pytest.mark.timeout(180)
async def test_what_was_acknowledged_survives(sqlite_url: str, ledger: Ledger) -> None:
    chance = random.Random(20261121)
    stepped: set[str] = set()
    ended: set[str] = set()
    for _ in range(ROUNDS):
        for what, run_id in write_and_kill(sqlite_url, chance.uniform(0.05, 0.4)):
            (stepped if what == "step" else ended).add(run_id)
        async with Store.open(sqlite_url, ledger=ledger) as store:
            own = await store.join()
            await store.take_over(time.time())
            states = await store.read(run.states, sorted(stepped))
            assert set(states) == stepped, "no acknowledged run is missing"
            assert {run_id for run_id in ended if states[run_id] != "SUCCEEDED"} == set()
            steps = await store.read(step.load, sorted(states))
            values = await store.read(variable.load, sorted(states))
            assert all(len(steps[run_id]) == len(values[run_id]) == 1 for run_id in states), "a put is whole"
            unfinished = await store.writer.call(run.claim, 10_000, own, time.time())
            for one in unfinished:
                store.writer.put(run.end(one.id, one.epoch, "SUCCEEDED", time.time()))
            await store.writer.flush()
            assert set(await store.read(run.count)) == {"SUCCEEDED"}
            assert await store.check() == []
    assert len(ended) > 100
