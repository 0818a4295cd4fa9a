"""Triggers: runs that start by a clock (interval, cron, users' own), by an external event, or by a user's source."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping, Sequence
from time import time
from typing import TYPE_CHECKING, Any

import msgspec

from flatwater.engine.trigger_source import Sources
from flatwater.errors import DefinitionError, FlatwaterError, InputError, LimitError, NotFoundError, StoreError
from flatwater.store import trigger as triggers

if TYPE_CHECKING:
    from flatwater.engine.engine import Engine
    from flatwater.store.run import NewRun
    from flatwater.store.trigger import Trigger

log = logging.getLogger(__name__)
LOOK_S = 1.0
"""Longest time until a trigger that another process saved is seen."""
BATCH = 100


class Triggers:
    """Fires triggers when they are due; at most ``max_pending`` runs of each are open at a time."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._changed = asyncio.Event()
        self._sources = Sources(engine)

    async def save(
        self,
        id: str,
        definition_id: str,
        kind: str,
        spec: str,
        *,
        inputs: Mapping[str, Any] | None = None,
        priority: int = 0,
        enabled: bool = True,
        max_pending: int = 1,
    ) -> Trigger:
        """Store a trigger. Raises ``InputError`` (kind, spec), ``NotFoundError`` (definition)."""
        if not id or len(id) > 200:
            raise InputError(f"{id!r} cannot be a trigger's id", where="id", hint="1 to 200 characters")
        if not 1 <= max_pending <= 1_000:
            raise InputError(f"max_pending is {max_pending}, not within 1 … 1000", where="max_pending")
        await self._engine.library.current(definition_id)
        next_at = self._next_time(kind, spec, time())
        trigger = triggers.Trigger(
            id=id, definition_id=definition_id, kind=kind, spec=spec,
            inputs=msgspec.json.encode(inputs or {}).decode(), priority=priority, enabled=enabled,
            next_at=next_at, max_pending=max_pending,
        )  # fmt: skip
        await self._engine.store.writer.call(triggers.save, trigger)
        self._changed.set()
        return trigger

    def _next_time(self, kind: str, spec: str, after: float) -> float | None:
        kinds = self._engine.registry.triggers
        if kind not in kinds.items:
            raise InputError(f"there is no trigger of kind {kind[:100]!r}", where="kind", hint=kinds.suggest(kind))
        found = kinds.items[kind]
        found.checked(spec)
        return found.next_time(spec, after)

    async def run(self) -> None:
        """Fire what is due for as long as the engine runs."""
        while True:
            self._changed.clear()
            try:
                wait_s = await self._fire_due()
                await self._sources.refresh()
            except Exception:
                log.exception("could not look at the triggers")
                wait_s = LOOK_S
            try:
                async with asyncio.timeout(wait_s):
                    await self._changed.wait()
            except TimeoutError:
                pass

    async def _fire_due(self) -> float:
        """Returns after how many seconds to look again."""
        store, now, failed = self._engine.store, time(), False
        for trigger in await store.read(triggers.due, now, BATCH):
            try:
                next_at = self._next_time(trigger.kind, trigger.spec, max(now, trigger.next_at or now))
                await self.fire(trigger, {}, next_at)
            except FlatwaterError as error:  # it stays due; the others need not wait for it
                log.warning("trigger %s cannot fire now: %s", trigger.id, error)
                failed = True
        upcoming = await store.read(triggers.next_at)
        return LOOK_S if failed or upcoming is None else min(LOOK_S, max(0.0, upcoming - time()))

    async def fire(self, trigger: Trigger, extra: Mapping[str, Any], next_at: float | None = None) -> str | None:
        """Start a trigger's run and set when it fires next, both or neither; returns the run's id.

        None: another process fired it first, ``max_pending`` of its runs are open, or its definition takes no such
        run. Raises ``StoreError``, ``LimitError``: nothing has changed.
        """
        engine = self._engine
        new: NewRun | None = None
        inputs = {**(msgspec.json.decode(trigger.inputs) if trigger.inputs else {}), **extra}
        try:
            new, _ = await engine.compose(
                trigger.definition_id, inputs, priority=trigger.priority, trigger_id=trigger.id
            )
        except (InputError, NotFoundError, DefinitionError) as error:
            log.warning("trigger %s could not start %s: %s", trigger.id, trigger.definition_id, error)
        await engine.store.writer.room()
        if not await engine.store.writer.call(triggers.fire, trigger, new, time(), next_at) or new is None:
            return None
        engine.submitted(new)
        return new.id

    async def fire_all(self, found: Sequence[Trigger], extra: Mapping[str, Any]) -> list[str]:
        """Fire the triggers of an event that has come; returns the runs that they started."""
        started = []
        for trigger in found:
            try:
                run_id = await self.fire(trigger, extra)
            except (StoreError, LimitError) as error:
                log.warning("trigger %s could not fire: %s", trigger.id, error)
            else:
                started += [run_id] if run_id is not None else []
        return started


__all__ = ["Triggers"]
