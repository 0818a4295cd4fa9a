"""Runs that start by the clock and by an event: ``python examples/trigger.py`` (stop it with Ctrl-C)."""

import asyncio
import sys

from flatwater.engine import Engine
from flatwater.engine.block import block
from flatwater.store import Store

TICK = {
    "label": "tick",
    "rootBlock": {"id": -1, "name": "root", "blockType": "RootBp", "children": {"default": [
        {"id": 1, "name": "tell", "blockType": "Tell", "inputParams": {
            "why": {"type": "Expression", "value": "taskInputs.why"},
            "door": {"type": "Expression", "value": "taskInputs.event.data.door"}}},
    ]}},
}  # fmt: skip


@block("Tell")
async def tell(why: str = "", door: str = "") -> None:
    """Prints why it was started."""
    print(f"{why} {door}".strip(), flush=True)


async def main(seconds: float) -> None:
    async with Store.open("sqlite:///trigger.db") as store, Engine(store) as engine:
        engine.registry.register(tell)
        await engine.save(TICK)
        # six fields: the first are seconds; five fields mean whole minutes. UTC unless a time zone follows.
        await engine.triggers.save("by the clock", "tick", "cron", "* * * * * *", inputs={"why": "a second has passed"})
        await engine.triggers.save("by a door", "tick", "event", "door-opened", inputs={"why": "somebody opened"})
        await engine.publish("door-opened", {"door": "north"})
        await asyncio.sleep(seconds)


if __name__ == "__main__":
    asyncio.run(main(float(sys.argv[1]) if len(sys.argv) > 1 else 3600))
