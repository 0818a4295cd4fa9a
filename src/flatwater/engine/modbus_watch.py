"""Looks at what runs wait for on Modbus devices: each register once a period, however many wait for it.

Who waits is in the store (waiter rows of kind `WAIT`, whose key is the condition), so runs leave memory meanwhile. In
memory is each different condition once, of at most ``max_conditions``; and every ``recheck_s`` seconds the store is
asked which of them somebody still waits for, and which others other processes have added.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Self

import msgspec

from flatwater.bounded.ledger import Usage, check_bound
from flatwater.bounded.task import TaskGroup
from flatwater.engine.modbus import ModbusError
from flatwater.engine.modbus_value import Condition, Place, condition, holds
from flatwater.errors import ClosedError, InputError, LimitError
from flatwater.store import waiter as waiters

if TYPE_CHECKING:
    from flatwater.bounded.ledger import Ledger
    from flatwater.engine.service import Services

log = logging.getLogger(__name__)
WAIT: Final = "modbus"
MAX_GRANTS: Final = 1_000
"""Runs that one transaction wakes."""


class WatchStatistics(Usage, frozen=True, kw_only=True):
    """``size`` different conditions are waited for; the rest counts since the start."""

    reads: int
    granted: int
    failed: int


class ModbusWatch:
    """Serves those who wait. Used as ``async with``; one task a device."""

    kind = "modbus watch"

    def __init__(
        self,
        services: Services,
        *,
        poll_s: float,
        max_conditions: int,
        read_timeout_s: float = 3.0,
        recheck_s: float = 5.0,
        ledger: Ledger,
    ) -> None:
        self.name = "modbus conditions"
        check_bound("max_modbus_conditions", max_conditions, where=self.name)
        check_bound("modbus_poll_s", poll_s, where=self.name)
        self._services = services
        self._poll_s = poll_s
        self._read_timeout_s = read_timeout_s
        self._recheck_s = recheck_s
        self._max_conditions = max_conditions
        self._wanted: dict[str, dict[str, Condition]] = {device: {} for device in services.modbus.devices}
        self._nudges = {device: asyncio.Event() for device in self._wanted}
        self._troubles: dict[str, str] = {}
        self._strangers: set[str] = set()
        self._tasks = TaskGroup("modbus watch", max_tasks=len(self._wanted) + 1, ledger=ledger)
        self._reads = self._granted = self._failed = 0
        ledger.register(self)

    async def __aenter__(self) -> Self:
        await self._tasks.__aenter__()
        for device in self._wanted:
            self._tasks.start(self._forever(partial(self._round, device)), name=f"modbus watch {device}")
        self._tasks.start(self._forever(self._rechecks), name="modbus watch recheck")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop looking. Who waits goes on waiting."""
        await self._tasks.stop()

    def statistics(self) -> WatchStatistics:
        return WatchStatistics(
            size=self._size, bound=self._max_conditions, reads=self._reads, granted=self._granted, failed=self._failed
        )

    @property
    def _size(self) -> int:
        return sum(map(len, self._wanted.values()))

    def add(self, wanted: Condition) -> None:
        """Somebody waits for this, and its row is on the way to the store. Raises `LimitError`."""
        device, key = wanted.place.device, wanted.key
        if key not in self._wanted[device] and self._size >= self._max_conditions:
            raise LimitError(
                f"runs wait for max_modbus_conditions ({self._max_conditions:,}) different conditions already",
                where=str(wanted.place),
                hint="let them wait for the same value, or raise the setting",
            )
        self._wanted[device][key] = wanted  # the latest object, by which a recheck knows that somebody came meanwhile
        self._nudges[device].set()

    # ---- loops ----------------------------------------------------------------------------------

    async def _forever(self, step: Callable[[], Awaitable[None]]) -> None:
        while True:
            try:
                await step()
            except ClosedError as error:
                log.info("Modbus devices are not watched any more: %s", error)
                return
            except Exception:
                self._failed += 1
                log.exception("could not look at what runs wait for; trying again in %g s", self._recheck_s)
                await asyncio.sleep(self._recheck_s)

    async def _round(self, device: str) -> None:
        """Wait until somebody waits, look at each register once, and rest."""
        wanted, nudge = self._wanted[device], self._nudges[device]
        if not wanted:
            nudge.clear()
            await nudge.wait()
        by_place: dict[Place, list[Condition]] = {}
        for each in wanted.values():
            by_place.setdefault(each.place, []).append(each)
        for place, conditions in by_place.items():
            if not await self._look(place, conditions):
                break  # the device does not answer: the others would wait for that, too
        await asyncio.sleep(self._poll_s)

    async def _look(self, place: Place, conditions: list[Condition]) -> bool:
        """Read, and grant what has come. False when the device cannot be asked at all now."""
        self._reads += 1
        try:
            [value] = await self._services.modbus.read(place, self._read_timeout_s)
        except (ModbusError, InputError) as error:
            if isinstance(error, ModbusError) and error.transient:
                self._tell(place.device, str(error))
                return error.exception != 0
            for each in conditions:
                await self._grant(each, {"error": str(error)})
            return True
        self._tell(place.device, "")
        for each in conditions:
            if holds(each, value):
                await self._grant(each, {"value": value})
        return True

    def _tell(self, device: str, trouble: str) -> None:
        """The log says once that a device cannot be asked, and once that it can again."""
        before = self._troubles.pop(device, "")
        if trouble:
            self._troubles[device] = trouble
            if not before:
                log.warning("runs wait for a Modbus device that cannot be asked: %s", trouble)
        elif before:
            log.info("the Modbus device %s answers again", device)

    async def _grant(self, met: Condition, what: dict[str, Any]) -> None:
        """Tell all who wait for it, parked or not. Who comes meanwhile adds it anew."""
        wanted, text = self._wanted[met.place.device], msgspec.json.encode(what).decode()
        wanted.pop(met.key, None)
        call = self._services.store.writer.call
        try:
            while True:
                grants = await call(waiters.grant, WAIT, met.key, text, MAX_GRANTS)
                self._granted += len(grants)
                self._services.granted(grants)
                if len(grants) < MAX_GRANTS:
                    return
        except BaseException:
            wanted.setdefault(met.key, met)
            raise

    # ---- what the store says --------------------------------------------------------------------

    async def _rechecks(self) -> None:
        await self.recheck()
        await asyncio.sleep(self._recheck_s)

    async def recheck(self) -> None:
        """Forget what nobody waits for any more; take up what is stored and not known here."""
        before = {key: each for wanted in self._wanted.values() for key, each in wanted.items()}
        await self._services.store.writer.flush()  # what runs have put before they called is to be seen
        stored = set(await self._services.store.read(waiters.keys, WAIT, self._max_conditions))
        if len(stored) < self._max_conditions:  # else some may not have been read
            for wanted in self._wanted.values():
                for key in before.keys() - stored:
                    if wanted.get(key) is before[key]:
                        del wanted[key]
        strangers = set()
        for key in stored - before.keys():
            found = condition(key)
            if found.place.device not in self._wanted:
                strangers.add(found.place.device)
            elif self._size < self._max_conditions:
                self.add(found)
        if new := strangers - self._strangers:
            log.warning("runs wait for Modbus devices that are not configured here: %s", ", ".join(sorted(new)))
        self._strangers = strangers
