"""The Flow family: how each block type walks its children.

Nothing here records a decision. Which branch was taken, and which iteration a loop is in, follows
from the records of the children (`Activation.seen`): a child with a record implies the decision
that led to it, and without one the decision may be taken afresh, because nothing came of it.
Source of the semantics: ``docs/states.md`` and the block catalogue in ``docs/reference/blocks.md``.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, Any

from flatwater.engine.signal import (
    BlockFailed,
    BranchStopped,
    LoopBroken,
    Parked,
    RunReturned,
)
from flatwater.errors import RunError

if TYPE_CHECKING:
    from flatwater.engine.activation import Activation
    from flatwater.engine.definition import Node

Outputs = dict[str, Any] | None
Walk = Callable[["Activation", "Node", str], Awaitable[Outputs]]
WALKS: dict[str, Walk] = {}


def walks(*types: str) -> Callable[[Walk], Walk]:
    """Register how the block types ``types`` walk their children."""

    def register(function: Walk) -> Walk:
        WALKS.update(dict.fromkeys(types, function))
        return function

    return register


def branch(node: Node, name: str) -> tuple[Node, ...]:
    return node.branches.get(name, ())


@walks("RootBp", "SerialFlowBp")
async def serial(run: Activation, node: Node, path: str) -> Outputs:
    await run.serial(branch(node, "default"), path)
    return None


async def choose(
    run: Activation, node: Node, path: str, names: Sequence[str], decide: Callable[[], str | None]
) -> Outputs:
    """Walk the branch that has begun already, else the one that ``decide`` names."""
    begun = next((name for name in names if run.seen(branch(node, name), path)), None)
    chosen = begun or decide()
    if chosen is not None:
        await run.serial(branch(node, chosen), path)
    return {"branch": chosen}


@walks("IfBp")
async def if_(run: Activation, node: Node, path: str) -> Outputs:
    def decide() -> str | None:
        return "default" if run.evaluate(node, path)["condition"] else None

    return await choose(run, node, path, ("default",), decide)


@walks("IfElseBp")
async def if_else(run: Activation, node: Node, path: str) -> Outputs:
    def decide() -> str:
        return "if" if run.evaluate(node, path)["conditionIf"] else "else"

    return await choose(run, node, path, ("if", "else"), decide)


@walks("IfElseIfBp")
async def if_else_if(run: Activation, node: Node, path: str) -> Outputs:
    def decide() -> str:
        params = run.evaluate(node, path)
        if params["conditionIf"]:
            return "if"
        return "else_if" if params["conditionElseIf"] else "else"

    return await choose(run, node, path, ("if", "else_if", "else"), decide)


async def loop(run: Activation, node: Node, path: str, more: Callable[[int], Outputs]) -> dict[str, Any]:
    """Walk the body for ``more(0), more(1) …`` until it gives ``None`` or a body breaks.

    The loop's outputs of the current iteration are visible to its body. Returns them, as of the
    last iteration begun, with the ``index`` that it had.
    """
    body = branch(node, "default")
    index = run.iteration(path)
    last: dict[str, Any] = {}
    while (outputs := more(index)) is not None:
        last = outputs
        run.publish_outputs(node, path, outputs)
        try:
            await run.serial(body, f"{path}[{index}]")
        except LoopBroken:
            return last
        run.forget_iteration(path, index)
        index += 1
        await asyncio.sleep(0)
    return last


@walks("RepeatNumBp")
async def repeat_num(run: Activation, node: Node, path: str) -> Outputs:
    count = (await run.settled(node, path))["num"]
    return await loop(run, node, path, lambda i: {"index": i} if i < count else None)


@walks("IterateListBp")
async def iterate_list(run: Activation, node: Node, path: str) -> Outputs:
    items = (await run.settled(node, path))["list"]

    def more(index: int) -> Outputs:
        if index >= len(items):
            return None
        return {"index": index, "size": len(items), "item": items[index]}

    outputs = await loop(run, node, path, more)
    return {key: outputs[key] for key in ("index", "size") if key in outputs}


@walks("WhileBp")
async def while_(run: Activation, node: Node, path: str) -> Outputs:
    """Walk the body while the condition holds; between iterations wait ``retryPeriod``."""
    index = run.iteration(path)
    begun = run.began(f"{path}[{index}]")
    while True:
        if not begun and not run.evaluate(node, path)["loopCondition"]:
            return {"index": index}
        begun = False
        try:
            await run.serial(branch(node, "default"), f"{path}[{index}]")
        except LoopBroken:
            return {"index": index}
        params = run.evaluate(node, path)
        if params.get("runOnce"):
            return {"index": index}
        await run.waits.sleep(f"{path}[{index}]#", params["retryPeriod"] / 1000, "the next look at a condition")
        run.forget_iteration(path, index)
        index += 1


@walks("ParallelFlowBp")
async def parallel(run: Activation, node: Node, path: str) -> Outputs:
    await run.branches.walk([((child,), path) for child in branch(node, "default")], node, path)
    return None


@walks("ParallelRepeatNBp")
async def parallel_repeat(run: Activation, node: Node, path: str) -> Outputs:
    count = (await run.settled(node, path))["num"]
    body = branch(node, "default")
    bases = [f"{path}[{index}]" for index in range(count)]
    run.open_copies(node, path, bases)
    try:
        await run.branches.walk([(body, base) for base in bases], node, path)
    finally:
        run.join_copies(path, bases)
    return {"num": count}


@walks("TryCatchBp")
async def try_catch(run: Activation, node: Node, path: str) -> Outputs:
    """Walk ``try``; when it fails walk ``catch``, then fail on unless ``swallowError``."""
    params = run.evaluate(node, path)
    caught = run.progress(path)
    if caught is None:
        if not params["ignoreAbort"]:
            run.begun_at(node, path)  # on record: a cancel that is carried out after a crash must clean up here
        try:
            await run.serial(branch(node, "try"), path)
            return {"caught": False}
        except BlockFailed as failure:
            caught = {"path": failure.path, "name": failure.name, "error": failure.message, "kind": failure.kind}
        except asyncio.CancelledError:
            if run.canceled and not params["ignoreAbort"]:
                await clean_up(run, branch(node, "catch"), path)
            raise
        run.note(node, path, caught)
    run.publish_outputs(node, path, {"caught": True, **caught})
    await run.serial(branch(node, "catch"), path)
    if not params["swallowError"]:
        raise BlockFailed(caught["path"], caught["name"], caught["error"], caught["kind"])
    return {"caught": True, "error": caught["error"]}


async def clean_up(run: Activation, nodes: Sequence[Node], base: str) -> None:
    """Walk a ``catch`` branch of a canceled run, for as long as ``cleanup_s`` allows."""
    task = asyncio.current_task()
    while task is not None and task.uncancel():  # else time-outs in it would look like that cancel
        pass
    run.cleanups.add(base)
    try:
        async with asyncio.timeout(run.services.options.cleanup_s):
            await run.serial(nodes, base)
    except (BlockFailed, TimeoutError) as error:
        run.journal.log(base, "error", f"the clean-up after the cancel failed: {error}")
    finally:
        run.cleanups.discard(base)


@walks("BreakBp")
async def break_(run: Activation, node: Node, path: str) -> Outputs:
    raise LoopBroken


@walks("ReturnBp")
async def return_(run: Activation, node: Node, path: str) -> Outputs:
    raise RunReturned


@walks("ThrowExceptionBp")
async def throw(run: Activation, node: Node, path: str) -> Outputs:
    raise RunError(str(run.evaluate(node, path).get("message") or "ThrowExceptionBp without a message"))


@walks("StopOtherBranch")
async def stop_others(run: Activation, node: Node, path: str) -> Outputs:
    return {"stopped": await run.branches.stop_siblings(path)}


@walks("DelayBp")
async def delay(run: Activation, node: Node, path: str) -> Outputs:
    seconds = run.evaluate(node, path)["timeMillis"] / 1000
    await run.waits.sleep(path, seconds, f"a delay of {seconds:g} s")
    return None


__all__ = ["WALKS", "BranchStopped", "Parked", "walks"]
