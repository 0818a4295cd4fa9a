"""Sources of users' packages: what listens outside, and starts a run for each thing that it is told."""

from __future__ import annotations

import asyncio
import hashlib
import logging
from collections.abc import Mapping
from contextlib import aclosing
from time import monotonic, time
from typing import TYPE_CHECKING, Any

import msgspec

from flatwater.engine.submission import MAX_KEY
from flatwater.engine.trigger_kind import Occurrence, TriggerKind
from flatwater.errors import DefinitionError, InputError, LimitError, NotFoundError, StoreError
from flatwater.store import trigger as triggers

if TYPE_CHECKING:
    from flatwater.engine.engine import Engine
    from flatwater.store.trigger import Told, Trigger

log = logging.getLogger(__name__)
LOOK_S = 1.0
"""How often room for another run, or a store that failed, is looked for."""
FIRST_RETRY_S = 1.0
MAX_RETRY_S = 60.0
"""A source that fails or ends begins again after `FIRST_RETRY_S`, twice as long each time, at most after this."""
MAX_KEY_CHARS = 100


class Sources:
    """Listens to the source of each enabled trigger that has one; a saved, changed or deleted one is heeded.

    Every server that knows the kind listens: sources whose events all of them see give them keys.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._listening: dict[str, tuple[Trigger, asyncio.Task[None]]] = {}
        self._full = False

    async def refresh(self) -> None:
        """Begin and end listening as the store says now. Costs nothing while no package has brought a source."""
        kinds = {name: kind for name, kind in self._engine.registry.triggers.added.items() if kind.source is not None}
        if not kinds:
            return
        most = self._engine.options.max_trigger_sources
        found = await self._engine.store.read(triggers.of_kinds, list(kinds), most + 1)
        if len(found) > most and not self._full:
            log.warning("more than max_trigger_sources (%d) triggers have sources: the others rest", most)
        self._full = len(found) > most
        wanted = {trigger.id: _settings(trigger) for trigger in found[:most]}
        for id, (trigger, task) in list(self._listening.items()):
            if wanted.get(id) != trigger or task.done():
                task.cancel()
                del self._listening[id]
        for id, trigger in wanted.items():
            if id not in self._listening:
                task = self._engine.listen(self._listen(trigger, kinds[trigger.kind]), f"source of trigger {id}")
                self._listening[id] = (trigger, task)

    async def _listen(self, trigger: Trigger, kind: TriggerKind) -> None:
        """Until it is canceled."""
        assert kind.source is not None
        retry_s = FIRST_RETRY_S
        while True:
            began = monotonic()
            try:
                async with aclosing(kind.source(trigger.spec)) as told:
                    async for each in told:
                        await self._start(trigger, each)
                log.info("the source of trigger %s (%s) has ended; it begins again", trigger.id, kind.origin)
            except Exception:
                log.exception("the source of trigger %s (%s) failed", trigger.id, kind.origin)
            if monotonic() - began > MAX_RETRY_S:
                retry_s = FIRST_RETRY_S
            await asyncio.sleep(retry_s)
            retry_s = min(2 * retry_s, MAX_RETRY_S)

    async def _start(self, trigger: Trigger, told: Any) -> None:
        """Start one run; waits for room and for the store, and passes over what can never become a run."""
        while True:
            try:
                answer = await self._try(trigger, told)
            except (StoreError, LimitError) as error:
                log.warning("trigger %s waits to start a run: %s", trigger.id, error)
            except (InputError, NotFoundError, DefinitionError) as error:
                log.warning(
                    "trigger %s was told what %s cannot start with: %s", trigger.id, trigger.definition_id, error
                )
                return
            else:
                if answer in ("started", "known"):
                    return  # else there may be room soon, or this is about to be canceled
            await asyncio.sleep(LOOK_S)

    async def _try(self, trigger: Trigger, told: Any) -> Told:
        engine, given = self._engine, _occurrence(told)
        inputs = {**(msgspec.json.decode(trigger.inputs) if trigger.inputs else {}), **given.inputs}
        key = None if given.key is None else _key(trigger.id, given.key)
        new, _ = await engine.compose(
            trigger.definition_id, inputs, priority=trigger.priority, trigger_id=trigger.id, idempotency_key=key
        )
        await engine.store.writer.room()
        answer = await engine.store.writer.call(triggers.tell, trigger, new, time())
        if answer == "started":
            engine.submitted(new)
        return answer


def _settings(trigger: Trigger) -> Trigger:
    """The trigger as it was saved, without what firing changes."""
    return msgspec.structs.replace(trigger, last_run_id=None, last_at=None)


def _key(trigger_id: str, key: str) -> str:
    whole = f"{trigger_id}:{key}"
    return whole if len(whole) <= MAX_KEY else hashlib.blake2s(whole.encode()).hexdigest()


def _occurrence(told: Any) -> Occurrence:
    """What was told. Raises `InputError` when no run can start with it."""
    given = Occurrence(inputs=told) if isinstance(told, Mapping) else told
    if not isinstance(given, Occurrence) or not isinstance(given.inputs, Mapping):
        raise InputError(f"a source yields an Occurrence or a dict of inputs, not {type(told).__name__}")
    if given.key is not None and not (isinstance(given.key, str) and 1 <= len(given.key) <= MAX_KEY_CHARS):
        raise InputError(f"an Occurrence's key has 1 to {MAX_KEY_CHARS} characters, not {given.key!r}")
    return given
