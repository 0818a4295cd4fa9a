"""Small Hall at work: installs itself, then keeps the world turning and the robots busy, for ever, in flat memory."""

from __future__ import annotations

import asyncio
import logging
from importlib.resources import files
from random import Random
from time import time
from types import TracebackType
from typing import TYPE_CHECKING, Any, Protocol, Self

import msgspec

from flatwater.bounded import TaskGroup, Usage
from flatwater.demo import hall, load, world
from flatwater.engine.fleet import Fleet
from flatwater.errors import ClosedError, FencedError, SettingError
from flatwater.store import site as sites
from flatwater.store import trigger as triggers
from flatwater.store.trigger import Trigger

if TYPE_CHECKING:
    from flatwater.engine import Engine
    from flatwater.store.store import Store
    from flatwater.store.tx import Tx
    from flatwater.store.waiter import Grant

log = logging.getLogger(__name__)


class Clock(Protocol):
    """What of the settings concerns the plant."""

    @property
    def speed(self) -> float: ...
    @property
    def seed(self) -> int: ...


class DemoOptions(msgspec.Struct, frozen=True, kw_only=True):
    """``least_pause_s`` is the shortest pause between two looks at the plant, ``retry_s`` the one after a failure."""

    least_pause_s: float = 0.05
    retry_s: float = 1.0


class DemoStatistics(Usage, frozen=True, kw_only=True):
    """``size`` runs of the demo were open when it last looked, of ``bound``; the rest counts since the start."""

    submitted: int
    arrived: int
    left: int
    steps: int
    failures: int


class Demo:
    """The plant's people, trucks and planners. Used as ``async with Demo(engine, store, speed=…, seed=…):``.

    The engine must have the plant's robots as its driver (`hall.fleet`), with the same ``speed``: how many times
    faster than life everything goes, 1 to 100. What is installed already stays as it is, so a restart goes on.
    """

    name = "demo"
    kind = "plant"

    def __init__(
        self, engine: Engine, store: Store, *, speed: float = 10.0, seed: int = 1, options: DemoOptions | None = None
    ) -> None:
        if not 1 <= speed <= 100:
            raise SettingError(f"speed is {speed}", where="demo", hint="choose 1 to 100")
        driver = engine.services.driver
        if driver is None:
            raise SettingError("the engine has no robots", where="demo", hint="pass driver=demo.fleet(store) to it")
        self._engine = engine
        self._store = store
        self._speed = speed
        self._options = options or DemoOptions()
        self._chance = Random(seed)  # noqa: S311 - a simulation
        self._tasks = TaskGroup("demo loops", max_tasks=1, ledger=engine.ledger)
        self._open = 0
        self._counts = dict.fromkeys(("submitted", "arrived", "left", "steps", "failures"), 0)
        engine.ledger.register(self)
        if isinstance(driver, Fleet):
            engine.ledger.register(driver)

    # ---- lifetime -------------------------------------------------------------------------------

    async def __aenter__(self) -> Self:
        await self.install()
        await self._tasks.__aenter__()
        self._tasks.start(self._run(), name="demo")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._tasks.stop()

    async def install(self) -> None:
        """Set up sites, definitions and triggers, those that are not there yet."""
        granted = await self._store.writer.call(install_sites, time())
        self._engine.services.granted(granted)
        for name, body in definitions().items():
            await self._engine.save(body, name)
        await self._store.writer.call(install_triggers, time(), self._speed)

    # ---- the plant at work ------------------------------------------------------------------------

    async def _run(self) -> None:
        pause_s = max(self._options.least_pause_s, world.STEP_S / self._speed)
        while True:
            try:
                await self._step()
                await asyncio.sleep(pause_s)
            except (ClosedError, FencedError) as error:
                log.info("the demo plant rests: %s", error)
                return
            except Exception:
                self._counts["failures"] += 1
                log.exception("a step of the demo plant failed; trying again in %g s", self._options.retry_s)
                await asyncio.sleep(self._options.retry_s)

    async def _step(self) -> None:
        done = await self._store.writer.call(world.step, self._chance.getrandbits(32), time())
        self._engine.services.granted(done.grants)
        self._counts["arrived"] += done.arrived
        self._counts["left"] += done.left
        self._counts["steps"] += 1
        now = await self._store.read(load.stock)
        self._open = sum(now.open.values())
        for kind, inputs in load.missing(now, self._chance, self._counts["submitted"]):
            await self._engine.submit(kind.definition, {**inputs, "speed": self._speed}, priority=kind.priority)
            self._counts["submitted"] += 1

    def statistics(self) -> DemoStatistics:
        bound = sum(kind.most for kind in load.KINDS) + len(hall.ROBOTS)
        return DemoStatistics(size=self._open, bound=bound, **self._counts)


def attach(clock: Clock) -> dict[str, Any]:
    """What a server needs to have the plant in it: the maker of its ``driver``, and its ``attachments``."""

    def driver(store: Store) -> Fleet:
        return hall.fleet(store, speed=clock.speed, seed=clock.seed)

    def plant(service: Any) -> Demo:
        return Demo(service.engine, service.store, speed=clock.speed, seed=clock.seed)

    return {"driver": driver, "attachments": (plant,)}


def definitions() -> dict[str, bytes]:
    """The plant's definitions by id, each after the sub-tasks that it starts."""
    folder = files("flatwater.demo") / "definitions"
    bodies = {f"{load.PREFIX}{entry.name.removesuffix('.json')}": entry.read_bytes() for entry in folder.iterdir()}
    return dict(sorted(bodies.items(), key=lambda item: (b'"SubTask::' in item[1], item[0])))


def install_sites(tx: Tx, now: float) -> list[Grant]:
    """Set up the sites that are not there yet."""
    known = {site.id for site in sites.page(tx, limit=10_000)}
    return sites.save(tx, [spec for spec in hall.sites() if spec.id not in known], now)


def install_triggers(tx: Tx, now: float, speed: float) -> None:
    """Have each robot's battery looked at now and then, one after the other."""
    period_s = load.CHARGE_EVERY_S / speed
    for number, robot in enumerate(hall.ROBOTS):
        trigger = Trigger(
            id=f"{load.CHARGE_CHECK}-{robot.id}",
            definition_id=load.CHARGE_CHECK,
            kind="interval",
            spec=f"{period_s:g}",
            inputs=msgspec.json.encode({"robot": robot.id, "speed": speed}).decode(),
            priority=load.CHARGE_PRIORITY,
            next_at=now + period_s * (number + 1) / len(hall.ROBOTS),
        )
        triggers.save(tx, trigger)
