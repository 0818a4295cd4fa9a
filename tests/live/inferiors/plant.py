"""A process with an engine that may be killed at any moment: ``plant URL FOLDER COUNT [option=value …]``.

It submits ``COUNT`` runs, each under a key of its own, and writes down which were acknowledged; rings the bell that
runs wait for; cancels those that are to be canceled; pauses and resumes some; and decides, by asking the outside, on
calls of which nobody knows what came. It ends by itself when all that it wants has ended. Started again, it goes on.
"""

from __future__ import annotations

import asyncio
import random
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from flatwater.engine.engine import Engine
from flatwater.engine.option import EngineOptions
from flatwater.errors import ConflictError, FlatwaterError
from flatwater.store import Store, StoreOptions
from flatwater.store import run as runs
from flatwater.store import site as sites
from flatwater.store import step as steps
from flatwater.store.run import RunFilter
from flatwater.store.site import SiteSpec
from flatwater.store.state import ENDED, State
from tests.live.inferiors.flows import FLOWS, RETRY, SITES, wanted
from tests.live.inferiors.kinds import kinds
from tests.live.inferiors.outside import Log, Outside, lines

AT_ONCE = 20
MAX_OPEN = 320
"""Submitting waits while more are under way."""
OPEN = tuple(state for state in State if state not in ENDED and state != "SKIPPED")


class Plant:
    """What one process does beside running runs."""

    def __init__(self, engine: Engine, folder: Path, outside: Outside, count: int, seed: int) -> None:
        self.engine = engine
        self.outside = outside
        self.wanted = wanted(count)
        self.accepted = Log(folder / "accepted")
        self.known = {words[0] for words in lines(folder / "accepted")}
        self.random = random.Random(seed)

    async def prepare(self) -> None:
        for make, _, _ in FLOWS.values():
            await self.engine.save(make())
        if await self.engine.store.read(sites.page):
            return  # an earlier process has saved them, all at once
        groups = {"A": SITES, "B": SITES, "C": len(self.wanted)}
        specs = [SiteSpec(id=f"{name}-{i}", group_name=name) for name, size in groups.items() for i in range(size)]
        await self.engine.store.writer.call(sites.save, specs, time.time())

    async def submit(self) -> None:
        """Submit what is not known to be accepted; the key makes twice once."""
        missing = [(name, n) for name, n in self.wanted if f"{name}-{n}" not in self.known]
        for start in range(0, len(missing), AT_ONCE):
            while len(await self._in(OPEN)) > MAX_OPEN:
                await asyncio.sleep(0.05)
            await asyncio.gather(*(self._submit(name, n) for name, n in missing[start : start + AT_ONCE]))

    async def _submit(self, name: str, number: int) -> None:
        key = f"{name}-{number}"
        run_id = await self.engine.submit(name, {"n": number}, idempotency_key=key, retry=RETRY, priority=number % 3)
        self.accepted.add(key, run_id)

    async def ring(self) -> None:
        while True:
            await asyncio.sleep(0.4)
            await self.engine.publish("bell", {"at": time.time()})

    async def decide(self) -> None:
        """An operator who asks the outside: what has arrived did happen."""
        while True:
            await asyncio.sleep(0.1)
            for summary in await self._in((State.NEEDS_OPERATOR,)):
                doubt = [
                    step.order_id
                    for step in (await self.engine.store.read(steps.load, [summary.id]))[summary.id]
                    if step.state == State.RUNNING and step.order_id is not None and step.type == "Press"
                ]
                happened = [order for order in doubt if self.outside.sent_at(order) is not None]
                with suppress(ConflictError):
                    await (self.engine.resume if happened == doubt else self.engine.retry)(summary.id)

    async def disturb(self) -> None:
        """Cancel what is to be canceled, pause anything, resume what is paused."""
        while True:
            await asyncio.sleep(self.random.uniform(0.02, 0.2))
            for summary in await self._in((State.PAUSED,)):
                with suppress(ConflictError):
                    await self.engine.resume(summary.id)
            found = await self._in(OPEN)
            if not found:
                continue
            for summary in self.random.sample(found, min(2, len(found))):
                with suppress(ConflictError):
                    if summary.label == "halt":
                        await self.engine.cancel(summary.id)
                    elif self.random.random() < 0.2:
                        with suppress(TimeoutError):  # it goes on with the pause, as its client's time is up
                            await asyncio.wait_for(asyncio.shield(self.engine.pause(summary.id)), 1)

    async def ended(self) -> None:
        """Return when everything has ended."""
        while True:
            await asyncio.sleep(0.1)
            if not await self._in(OPEN) and len(self.known) == len(self.wanted):
                return

    async def _in(self, states: tuple[Any, ...]) -> list[Any]:
        found = await self.engine.store.read(runs.page, RunFilter(states=states), None, 1_000)
        return list(found.items)


async def main(url: str, folder: Path, count: int, options: dict[str, float]) -> None:
    log, outside = Log(folder / "did"), Outside(folder)
    store_options = StoreOptions(lease_s=options.pop("lease_s", 30.0), renew_s=options.pop("renew_s", 1.0))
    seed, disturb = int(options.pop("seed", 0)), options.pop("disturb", 1)
    async with Store.open(url, store_options) as store:
        engine_options = EngineOptions(**{name: type_of(name)(value) for name, value in options.items()})
        async with Engine(store, registry=kinds(log, outside), options=engine_options) as engine:
            log.add("ready", store.worker, time.time())
            print("ready", flush=True)
            plant = Plant(engine, folder, outside, count, seed)
            await plant.prepare()
            print("prepared", flush=True)
            helpers = [plant.ring(), plant.decide(), *([plant.disturb()] if disturb else [])]
            tasks = [asyncio.ensure_future(helper) for helper in helpers]
            try:
                await plant.submit()
                print("submitted", flush=True)
                plant.known = {f"{name}-{n}" for name, n in plant.wanted}
                ending = asyncio.ensure_future(plant.ended())
                done, _ = await asyncio.wait([*tasks, ending], return_when=asyncio.FIRST_COMPLETED)
                for task in done:
                    task.result()
                print("ended", engine.statistics().contexts.live, flush=True)
            finally:
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)


def type_of(name: str) -> type:
    return int if name.startswith("max_") else float


if __name__ == "__main__":
    given = dict(word.split("=") for word in sys.argv[4:])
    try:
        asyncio.run(main(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]), {k: float(v) for k, v in given.items()}))
    except FlatwaterError as error:
        sys.exit(f"plant: {error}")
