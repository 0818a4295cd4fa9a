"""A context that outlives its run is told of once, with who holds it."""

from __future__ import annotations

import asyncio
import weakref
from collections.abc import Sequence

import pytest

from flatwater.engine.context import Context, ContextWatch

OVERDUE = 10.0


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


async def told(watch: ContextWatch, caplog: pytest.LogCaptureFixture, count: int = 1) -> list[str]:
    """What the watch has said, once it has said so much."""
    async with asyncio.timeout(90):
        while len(caplog.messages) < count:
            await asyncio.sleep(0.005)
    return caplog.messages


def test_a_context_is_late_once_and_counted_until_it_dies() -> None:
    clock = Clock()
    watch = ContextWatch(OVERDUE, clock=clock)
    context = Context({}, {})
    reference = watch.born("r1", context)
    assert watch.check() == []
    watch.ended(reference)
    assert watch.check() == [], "its run has just ended"
    clock.now += OVERDUE + 1
    assert watch.check() == [("r1", reference)]
    assert watch.check() == [], "it is told of once"
    assert (watch.statistics().live, watch.statistics().overdue, watch.statistics().reported) == (1, 1, 1)
    del context
    assert (watch.statistics().live, watch.statistics().overdue, watch.statistics().reported) == (0, 0, 1)


@pytest.mark.parametrize("fails", [False, True])
async def test_whoever_knows_is_asked_who_holds_it(caplog: pytest.LogCaptureFixture, fails: bool) -> None:
    async def ask(references: Sequence[weakref.ref[Context]]) -> list[str]:
        if fails:
            raise ValueError("no graph")
        return ["module shop → kept" for _ in references]

    watch = ContextWatch(0.01, ask)
    kept = [Context({}, {})]
    watch.ended(watch.born("r1", kept[0]))
    task = asyncio.ensure_future(watch.run())
    try:
        messages = await told(watch, caplog, 1 + fails)
    finally:
        task.cancel()
    holder = "list" if fails else "module shop → kept"
    assert messages[-1] == f"the context of run r1 outlives it; held by: {holder}"
