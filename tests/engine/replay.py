"""Run a definition once without and once with crashes, and hold the two against each other."""

from __future__ import annotations

import asyncio
import json
import sqlite3
from collections.abc import Callable, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass, field
from pathlib import Path
from time import time
from typing import Any

import msgspec

from flatwater.engine.block import Registry, block
from flatwater.engine.blocks import builtin
from flatwater.engine.engine import Engine
from flatwater.errors import ConflictError, FencedError
from flatwater.store import run as runs
from flatwater.store import site as sites
from flatwater.store import waiter as waiters
from flatwater.store.site import SiteSpec
from flatwater.store.state import ENDED
from tests.engine.crash import Crash, mortal

OPTIONS = {"park_after_s": 0.02, "poll_s": 0.05}


@dataclass
class Story:
    """What became of a run: how it ended, and what its blocks did in each life of the engine, in order."""

    state: str = ""
    outputs: Any = None
    error: str | None = None
    error_path: str | None = None
    error_kind: str | None = None
    lives: list[list[tuple[str, Any]]] = field(default_factory=list)
    done_before: list[list[tuple[str, Any]]] = field(default_factory=list)
    """For each life what the records said had SUCCEEDED when it began."""
    sent: list[str] = field(default_factory=list)
    """What the outside has got, in all lives: order ids."""
    batches: int = 0

    @property
    def end(self) -> tuple[Any, ...]:
        return self.state, self.outputs, self.error, self.error_path, self.error_kind

    @property
    def effects(self) -> dict[str, Any]:
        """What each block did when it did it last."""
        return {path: value for life in self.lives for path, value in life}

    def repeated(self) -> list[tuple[str, Any]]:
        """What was done again although the record of that block, with those outputs, said SUCCEEDED."""
        lives = zip(self.lives, self.done_before, strict=True)
        return [act for life, done in lives for act in life if act in done]


class Teller:
    """The blocks of one life; what they do goes to ``life`` unless they are ghosts."""

    def __init__(self, crash: Crash, life: list[tuple[str, Any]], sent: list[str]) -> None:
        self._crash = crash
        self._life = life
        self._sent = sent

    def tell(self, call: Any, value: Any) -> None:
        if not self._crash.dead:
            self._life.append((call.path, value))

    async def note(self, value: Any, call: Any) -> Any:
        self.tell(call, value)
        return {"value": value}

    async def fail(self, times: int, message: str, call: Any) -> Any:
        self.tell(call, call.attempt)
        if call.attempt <= times:
            raise ValueError(message)
        return {"attempt": call.attempt}

    async def var(self, name: str, value: Any, call: Any) -> Any:
        self.tell(call, value)
        call.set_variable(name, value)
        return {"value": value}

    async def send(self, call: Any) -> Any:
        self.tell(call, call.order_id)
        if not self._crash.dead:
            self._sent.append(call.order_id)
        await asyncio.sleep(0)
        return {"order": call.order_id}

    async def book(self, call: Any) -> Any:
        """As a robot's order: looked up, and sent unless it has arrived."""
        return {"order": call.order_id} if call.order_id in self._sent else await self.send(call)

    async def box(self, fails: int, call: Any) -> Any:
        self.tell(call, call.attempt)
        await call.children(outputs={"attempt": call.attempt})
        if call.attempt <= fails:
            raise ValueError("the box is not closed")
        return {"attempt": call.attempt}


def kinds(story: Story) -> Callable[[Crash], Registry]:
    """Blocks that tell in ``story.lives`` what they do."""

    def make(crash: Crash) -> Registry:
        story.lives.append([])
        teller = Teller(crash, story.lives[-1], story.sent)

        @block("Note", family="test")
        async def note(value: Any = None, *, call: Any) -> Any:
            return await teller.note(value, call)

        @block("Fail", family="test")
        async def fail(times: int = 1_000_000, message: str = "broken", *, call: Any) -> Any:
            return await teller.fail(times, message, call)

        @block("Var", family="test")
        async def var(name: str, value: Any = None, *, call: Any) -> Any:
            return await teller.var(name, value, call)

        @block("Send", family="test", recovery="operator")
        async def send(*, call: Any) -> Any:
            return await teller.send(call)

        @block("Book", family="test", recovery="reattach")
        async def book(*, call: Any) -> Any:
            return await teller.book(call)

        @block("Await", family="test")
        async def await_(event: str, timeout_s: float | None = None, *, call: Any) -> Any:
            return {"data": await call.wait("event", event, reason=event, timeout_s=timeout_s)}

        @block("Twice", family="test")
        async def twice(first: str, second: str, *, call: Any) -> Any:
            return {"data": [await call.wait("event", event, reason=event) for event in (first, second)]}

        @block("Box", family="test", branches=("default",))
        async def box(fails: int = 0, *, call: Any) -> Any:
            return await teller.box(fails, call)

        registry = builtin()
        for function in (note, fail, var, send, book, await_, twice, box):
            registry.register(function)
        return registry

    return make


Meanwhile = Callable[[Engine, str], Any]
"""What happens from outside while a run is under way; called again after each restart until the run has ended."""


async def tell_story(
    folder: Path,
    definition: dict[str, Any],
    crashes: Sequence[int] = (),
    meanwhile: Meanwhile | None = None,
    one_by_one: bool = True,
    timeout_s: float = 90.0,
    **wish: Any,
) -> Story:
    """Run ``definition`` to its end; the n-th engine dies at the ``crashes[n]``-th batch after the submission.

    ``one_by_one``: each write is a batch of its own, so that a crash can come between any two.
    """
    await asyncio.to_thread(folder.mkdir, parents=True)
    story, run_id = Story(), ""
    for life in range(len(crashes) + 1):
        story.done_before.append(done(folder, run_id) if run_id else [])
        async with mortal(folder, kinds(story), **OPTIONS) as (engine, crash):
            if one_by_one:
                engine.store.writer._options = msgspec.structs.replace(engine.store.options, max_batch_rows=1)
            if not run_id:
                saved = await engine.save(definition)
                await engine.store.writer.call(sites.save, [SiteSpec(id="S", filled=True)], time())
                run_id = await engine.submit(saved.id, {}, **wish)
            before = crash.batches
            if life < len(crashes):
                crash.at(crashes[life])
            await _end(engine, crash, run_id, meanwhile, timeout_s)
            story.batches = crash.batches - before
            if not crash.dead:
                await check_rest(engine, run_id)
                _note_end(story, await engine.store.read(runs.get, run_id))
                return story
    raise AssertionError("the last engine cannot die")


async def _end(engine: Engine, crash: Crash, run_id: str, meanwhile: Meanwhile | None, timeout_s: float) -> None:
    """Return when the run has ended or the engine is dead."""
    async with asyncio.timeout(timeout_s):
        while not crash.dead and (await engine.store.read(runs.states, [run_id]))[run_id] not in ENDED:
            if meanwhile is not None:
                with suppress(FencedError, ConflictError):
                    await meanwhile(engine, run_id)
            await asyncio.sleep(0.003)


def done(folder: Path, run_id: str) -> list[tuple[str, Any]]:
    """What has SUCCEEDED by the records: path and outcome, read while no engine runs."""
    with closing(sqlite3.connect(folder / "flatwater.db")) as file:
        rows = file.execute("SELECT path, outputs FROM step WHERE run_id = ? AND state = 'SUCCEEDED'", (run_id,))
        return [(path, value) for path, text in rows for value in json.loads(text or "{}").values()]


async def check_rest(engine: Engine, run_id: str) -> None:
    """Nothing of the run is left in memory or waiting."""
    async with asyncio.timeout(60):
        while engine.scheduler.active or engine.statistics().contexts.live:
            await asyncio.sleep(0.002)
    assert (await engine.store.read(waiters.load, [run_id]))[run_id] == []
    row = await engine.store.read(runs.get, run_id)
    assert (row.worker, row.queue, row.request, row.wait, row.due_at) == (None, None, None, None, None)


def _note_end(story: Story, row: runs.RunRow) -> None:
    story.state, story.outputs = row.state, row.outputs
    story.error, story.error_path, story.error_kind = row.error, row.error_path, row.error_kind
