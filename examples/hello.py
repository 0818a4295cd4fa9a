"""A block of your own, as a run by itself and inside a definition: ``python examples/hello.py``."""

import asyncio
import json

from flatwater.engine import Engine
from flatwater.engine.block import block
from flatwater.store import Store


@block("Weigh")
async def weigh(scale: str, tare: float = 0.0) -> dict[str, float]:
    """Weighs what stands on a scale."""
    return {"kilograms": 812.5 - tare}


DEFINITION = {
    "label": "weigh-and-say",
    "inputParams": [{"name": "scale", "type": "String", "required": True}],
    "outputParams": [{"name": "kilograms", "type": "Double", "value": "=blocks.weigh.kilograms"}],
    "rootBlock": {"id": -1, "name": "root", "blockType": "RootBp", "children": {"default": [
        {"id": 1, "name": "weigh", "blockType": "Weigh", "inputParams": {
            "scale": {"type": "Expression", "value": "taskInputs.scale"},
            "tare": {"type": "Simple", "value": "25"}}},
        {"id": 2, "name": "say", "blockType": "PrintBp", "inputParams": {
            "message": {"type": "Expression", "value": "blocks.weigh.kilograms + ' kg'"}}},
    ]}},
}  # fmt: skip


async def main() -> None:
    async with Store.open("sqlite:///hello.db") as store, Engine(store) as engine:
        alone = await engine.submit_call(weigh, {"scale": "S1"})  # on the disk when this returns
        print(json.dumps((await engine.result(alone)).outputs))
        await engine.save(DEFINITION)  # `submit_call` has registered the block; else: engine.registry.register(weigh)
        run = await engine.submit("weigh-and-say", {"scale": "S1"}, idempotency_key="order 17")
        print(json.dumps((await engine.result(run)).outputs))


if __name__ == "__main__":
    asyncio.run(main())
