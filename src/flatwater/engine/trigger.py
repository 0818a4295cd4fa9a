"""Triggers: runs that start by the clock (interval, cron) or by an external event."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from datetime import UTC, datetime, tzinfo
from time import time
from typing import TYPE_CHECKING, Any
from zoneinfo import ZoneInfo

import msgspec

from flatwater.errors import FlatwaterError, InputError
from flatwater.store import trigger as triggers

if TYPE_CHECKING:
    from flatwater.engine.engine import Engine
    from flatwater.store.trigger import Trigger

log = logging.getLogger(__name__)
LOOK_S = 1.0
"""Longest time until a trigger that another process saved is seen."""
BATCH = 100
MIN_INTERVAL_S = 0.1
MAX_INTERVAL_S = 366 * 86_400.0


def next_time(kind: str, spec: str, after: float) -> float | None:
    """The first time after ``after`` (seconds since the epoch) at which a trigger fires.

    ``spec``: seconds for ``interval``; a five- or six-field cron line, optionally followed by a
    time zone (``0 6 * * 1-5 Europe/Berlin``, UTC without), for ``cron``; an event's name for
    ``event``, which has no time. Raises ``InputError``.
    """
    if kind == "event":
        if not spec:
            raise InputError("an event trigger needs the event's name", where="spec")
        return None
    if kind == "interval":
        return after + _interval(spec)
    if kind == "cron":
        return _cron(spec, after)
    raise InputError(f"there is no trigger of kind {kind!r}", where="kind", hint="interval, cron or event")


def _interval(spec: str) -> float:
    try:
        seconds = float(spec)
    except ValueError:
        seconds = float("nan")
    if not MIN_INTERVAL_S <= seconds <= MAX_INTERVAL_S:
        raise InputError(
            f"{spec!r} is no interval", where="spec", hint=f"seconds from {MIN_INTERVAL_S} to {MAX_INTERVAL_S:g}"
        )
    return seconds


def _cron(spec: str, after: float) -> float:
    from cronsim import CronSim, CronSimError

    fields = spec.split()
    zone: tzinfo = UTC
    if fields and fields[-1][:1].isalpha() and ("/" in fields[-1] or fields[-1] == "UTC"):
        try:
            zone = ZoneInfo(fields.pop())
        except (KeyError, ValueError, OSError):
            raise InputError(f"{spec!r} names no known time zone", where="spec") from None
    try:
        return next(CronSim(" ".join(fields), datetime.fromtimestamp(after, zone))).timestamp()
    except (CronSimError, StopIteration) as error:
        raise InputError(
            f"{spec!r} is no cron line: {error}", where="spec", hint="minute hour day month weekday"
        ) from None


class Triggers:
    """Fires triggers when they are due; at most ``max_pending`` runs of each are open at a time."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._changed = asyncio.Event()

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
        """Store a trigger. Raises ``InputError``, ``NotFoundError`` (definition)."""
        if not id or len(id) > 200:
            raise InputError(f"{id!r} cannot be a trigger's id", where="id", hint="1 to 200 characters")
        if not 1 <= max_pending <= 1_000:
            raise InputError(f"max_pending is {max_pending}, not within 1 … 1000", where="max_pending")
        await self._engine.library.current(definition_id)
        next_at = next_time(kind, spec, time())
        trigger = triggers.Trigger(
            id=id, definition_id=definition_id, kind=kind, spec=spec,
            inputs=msgspec.json.encode(inputs or {}).decode(), priority=priority, enabled=enabled,
            next_at=next_at, max_pending=max_pending,
        )  # fmt: skip
        await self._engine.store.writer.call(triggers.save, trigger)
        self._changed.set()
        return trigger

    async def run(self) -> None:
        """Fire what is due for as long as the engine runs."""
        while True:
            self._changed.clear()
            try:
                wait_s = await self._fire_due()
            except Exception:
                log.exception("could not look at the triggers")
                wait_s = LOOK_S
            try:
                async with asyncio.timeout(wait_s):
                    await self._changed.wait()
            except TimeoutError:
                pass

    async def _fire_due(self) -> float:
        store, now = self._engine.store, time()
        due = await store.read(triggers.due, now, BATCH)
        for trigger in due:
            following = next_time(trigger.kind, trigger.spec, max(now, trigger.next_at or now))
            await self.fire(trigger, {}, next_at=following)
        upcoming = await store.read(triggers.next_at)
        return LOOK_S if upcoming is None else min(LOOK_S, max(0.0, upcoming - time()))

    async def fire(self, trigger: Trigger, extra: Mapping[str, Any], next_at: float | None = None) -> str | None:
        """Start a trigger's run unless ``max_pending`` of its runs are still open; returns its id."""
        store, now, run_id = self._engine.store, time(), None
        if await store.read(triggers.pending, trigger.id, trigger.max_pending) < trigger.max_pending:
            inputs = {**(msgspec.json.decode(trigger.inputs) if trigger.inputs else {}), **extra}
            try:
                run_id = await self._engine.submit(
                    trigger.definition_id, inputs, priority=trigger.priority, trigger_id=trigger.id
                )
            except FlatwaterError as error:
                log.warning("trigger %s could not start %s: %s", trigger.id, trigger.definition_id, error)
        await store.writer.call(triggers.fired, trigger.id, run_id, now, next_at)
        return run_id


__all__ = ["Triggers", "next_time"]
