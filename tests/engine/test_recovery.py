"""Crashes between any two writes: the run ends as it would have, and nothing that was done is done again."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from time import time
from typing import Any

import pytest

from flatwater.engine.engine import Engine
from flatwater.errors import ConflictError
from flatwater.store import run as runs
from flatwater.store import site as sites
from flatwater.store.site import Change
from flatwater.store.state import State
from tests.engine.plan import b, plan
from tests.engine.replay import Meanwhile, Story, tell_story


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    """Dying is logged, and a log record of a failed block would keep its frames."""
    logger = logging.getLogger("flatwater")
    before = logger.level
    logger.setLevel(logging.CRITICAL)
    yield
    logger.setLevel(before)


async def publish(engine: Engine, run_id: str) -> None:
    """Somebody says "go" again and again."""
    await engine.publish("go", 1)


async def steer(engine: Engine, run_id: str) -> None:
    """An operator says that what is in doubt did not happen."""
    await engine.publish("go", 1)
    if (await engine.store.read(runs.get, run_id)).state == State.NEEDS_OPERATOR:
        await engine.retry(run_id)


ID = 26
"""Characters of an order id."""


async def take(engine: Engine, run_id: str) -> None:
    """Somebody else takes the site as soon as it is empty and free, and fills it."""
    with suppress(ConflictError):
        if (await engine.store.read(sites.get, "S")).filled:
            return
        await engine.store.writer.call(sites.lock, "S", OTHER, None, None, time())
        await engine.store.writer.call(sites.set, "S", Change(filled=True), time(), OTHER)


OTHER = "somebody-else"
AGAIN = {"maxAttempts": 3, "delayMs": 1, "factor": 1, "jitter": 0}


def note(id: int, value: Any = None, **extra: Any) -> Any:
    return b(id, "Note", {"value": id if value is None else value}, **extra)


FLOWS: dict[str, tuple[list[Any], dict[str, str], Meanwhile | None]] = {
    "a break out of an if in a loop": (
        [
            b(
                1, "RepeatNumBp", {"num": 5},
                default=[
                    note(2, "=blocks.b1.index"),
                    b(3, "IfBp", {"condition": "=blocks.b1.index == 1"}, default=[note(4), b(5, "BreakBp")]),
                    note(6),
                ],
            ),
            note(7),
        ],
        {"index": "blocks.b1.index"},
        None,
    ),
    "a break out of a parallel block in a loop": (
        [
            b(
                1, "RepeatNumBp", {"num": 3},
                default=[
                    b(2, "ParallelFlowBp", default=[b(3, "Await", {"event": "no"}), b(4, "BreakBp")]),
                    note(5),
                ],
            ),
            note(6),
        ],
        {"index": "blocks.b1.index"},
        None,
    ),
    "a return from within": (
        [
            b(1, "ParallelFlowBp", default=[
                b(2, "DelayBp", {"timeMillis": 60_000}),
                b(3, "SerialFlowBp", default=[
                    note(4), b(5, "IfBp", {"condition": "=true"}, default=[b(6, "ReturnBp")]),
                ]),
            ]),
            note(7),
        ],
        {"seen": "blocks.b4.value", "not": "blocks.b7.value"},
        None,
    ),
    "a failure that is caught, beside a branch that waits": (
        [
            b(
                1, "TryCatchBp", {"swallowError": True},
                try_=[b(2, "ParallelFlowBp", default=[
                    b(3, "Await", {"event": "no"}),
                    b(4, "SerialFlowBp", default=[note(5), b(6, "Fail")]),
                    b(7, "DelayBp", {"timeMillis": 60_000}),
                ])],
                catch=[note(8, "=blocks.b1.kind"), b(9, "Await", {"event": "go"}), note(10)],
            ),
            note(11),
        ],
        {"kind": "blocks.b8.value", "error": "blocks.b1.error"},
        publish,
    ),
    "one branch that stops the others and goes on": (
        [
            b(1, "ParallelRepeatNBp", {"num": "=1 + 2"}, default=[
                note(2, "=task.variables.stopped"),
                b(3, "IfElseBp", {"conditionIf": "=task.variables.stopped != true"},
                  if_=[b(4, "Var", {"name": "stopped", "value": "=true"}), b(5, "StopOtherBranch"),
                       b(6, "Await", {"event": "go"}), note(7)],
                  else_=[b(8, "Await", {"event": "no"})]),
            ]),
            note(9, "=blocks.b1.num"),
        ],
        {"num": "blocks.b1.num"},
        publish,
    ),
    "attempts of blocks and of a box of blocks": (
        [
            b(1, "Fail", {"times": 2}, retry=AGAIN),
            b(2, "Box", {"fails": 1}, retry=AGAIN, default=[
                note(3, "=blocks.b2.attempt"), note(4, "=blocks.b2.attempt"),
            ]),
            b(5, "TryCatchBp", {"swallowError": True}, try_=[b(6, "Fail", retry=AGAIN)], catch=[note(7)]),
        ],
        {"a": "blocks.b1.attempt", "b": "blocks.b4.value", "c": "blocks.b5.error"},
        None,
    ),
    "attempts of a flow block, with a time-out and waits in it": (
        [
            b(1, "ParallelFlowBp", retry=AGAIN, timeoutMs=60_000, default=[
                b(2, "SerialFlowBp", default=[
                    b(3, "Var", {"name": "n", "value": "=has(task.variables.n) ? task.variables.n + 1 : 1"}),
                    b(4, "IfBp", {"condition": "=task.variables.n == 1"}, default=[b(5, "ThrowExceptionBp")]),
                    note(6, "=task.variables.n"),
                ]),
                b(7, "SerialFlowBp", default=[b(8, "DelayBp", {"timeMillis": 30}), note(9, "=task.variables.n")]),
            ]),
            b(10, "TryCatchBp", {"swallowError": True},
              try_=[b(11, "SerialFlowBp", retry=AGAIN, default=[b(12, "ThrowExceptionBp", {"message": "no"})])],
              catch=[note(13, "=blocks.b10.path")]),
        ],
        {"n": "task.variables.n", "path": "blocks.b13.value"},
        None,
    ),
    "waits one after another, with outputs that live on": (
        [
            b(1, "IterateListBp", {"list": "=[10, 20]"}, default=[
                b(2, "Twice", {"first": "go", "second": "go"}),
                note(3, "=blocks.b1.item + blocks.b2.data[0]"),
            ]),
            b(4, "DelayBp", {"timeMillis": 30}),
            b(5, "WhileBp", {"loopCondition": "=task.variables.n != 2", "retryPeriod": 5}, default=[
                b(6, "Var", {"name": "n", "value": "=has(task.variables.n) ? task.variables.n + 1 : 1"}),
            ]),
        ],
        {"sum": "blocks.b3.value", "n": "task.variables.n"},
        publish,
    ),
    "variables of blocks that fail do not count": (
        [
            b(1, "TryCatchBp", {"swallowError": True},
              try_=[b(2, "Var", {"name": "x", "value": "=1"}), b(3, "Fail")],
              catch=[b(4, "Var", {"name": "y", "value": "=task.variables.x + 1"})]),
        ],
        {"y": "task.variables.y"},
        None,
    ),
    "a site given back that somebody else takes at once": (
        [
            b(1, "GetIdleSiteBp", {"siteId": "S", "lock": True}),
            b(2, "SetSiteEmptyBp", {"siteId": "S"}),
            b(3, "SetSiteUnlockedBp", {"siteId": "S"}),
            note(4),
        ],
        {"site": "blocks.b1.siteId"},
        take,
    ),
    "calls of the outside beside other work": (
        [
            b(1, "Book", timeoutMs=60_000),
            b(2, "ParallelFlowBp", default=[
                b(3, "Send", timeoutMs=60_000),
                b(4, "SerialFlowBp", default=[note(5), b(6, "Await", {"event": "go"}), note(7)]),
            ]),
            note(8),
        ],
        {"seen": "blocks.b7.value"},
        steer,
    ),
}  # fmt: skip


async def _compare(folder: Path, name: str) -> tuple[Story, list[str]]:
    blocks, outputs, meanwhile = FLOWS[name]
    definition = plan("story", *blocks, outputs=outputs)
    plain = await tell_story(folder / "plain", definition, (), meanwhile)
    wrong = []
    for batch in range(1, plain.batches + 1):
        story = await tell_story(folder / str(batch), definition, (batch,), meanwhile)
        found = {
            "end": story.end != plain.end and (story.end, plain.end),
            "effects": _values(story) != _values(plain) and (_values(story), _values(plain)),
            "again": story.repeated(),
            "sent twice": len(set(story.sent)) < len(story.sent) and story.sent,
        }
        wrong += [
            f"batch {batch} of {plain.batches}: {key}: {value}\n  {story.lives}"
            for key, value in found.items()
            if value
        ]
    return plain, wrong


def _values(story: Story) -> dict[str, Any]:
    """What the blocks did, but for ids that differ between attempts of a run."""
    return {
        path: None if isinstance(value, str) and len(value) == 26 else value for path, value in story.effects.items()
    }


@pytest.mark.parametrize("name", FLOWS)
async def test_a_crash_between_any_two_writes_changes_nothing(tmp_path: Path, name: str) -> None:
    plain, wrong = await _compare(tmp_path, name)
    assert plain.state == State.SUCCEEDED
    assert not wrong, "\n".join(wrong)
