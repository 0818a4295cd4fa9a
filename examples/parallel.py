"""Two branches side by side, one of which fails twice before it succeeds: ``python examples/parallel.py``.

The pauses between its attempts are durable, and what had succeeded before is not done again.
"""

import asyncio

from flatwater.engine import Engine
from flatwater.engine.block import BlockCall, block
from flatwater.engine.blocks import load
from flatwater.errors import RunError
from flatwater.store import Store

PARALLEL = {
    "label": "parallel",
    "outputParams": [
        {"name": "attempts", "type": "Long", "value": "=blocks.weigh.attempts"},
        {"name": "printed", "type": "String", "value": "=blocks.label.text"},
    ],
    "rootBlock": {"id": -1, "name": "root", "blockType": "RootBp", "children": {"default": [
        {"id": 1, "name": "both", "blockType": "ParallelFlowBp", "children": {"default": [
            {"id": 2, "name": "weigh", "blockType": "BusyScale",
             "retry": {"maxAttempts": 5, "delayMs": 200, "factor": 2, "maxDelayMs": 60000, "jitter": 0.1}},
            {"id": 3, "name": "label", "blockType": "PrintLabel", "timeoutMs": 5000},
        ]}},
    ]}},
}  # fmt: skip


@block("BusyScale")
async def busy_scale(*, call: BlockCall) -> dict[str, int]:
    """A scale that is busy at first."""
    if call.attempt < 3:
        raise RunError("the scale is busy")
    return {"attempts": call.attempt}


@block("PrintLabel")
def print_label() -> dict[str, str]:
    """A plain function: it is called in a thread."""
    return {"text": "bolts, 812.5 kg"}


async def main() -> None:
    registry = load()
    for each in (busy_scale, print_label):
        registry.register(each)
    async with Store.open("sqlite:///parallel.db") as store, Engine(store, registry=registry) as engine:
        await engine.save(PARALLEL)
        outcome = await engine.result(await engine.submit("parallel"))
        print(outcome.state, outcome.outputs)


if __name__ == "__main__":
    asyncio.run(main())
