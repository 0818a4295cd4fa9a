"""The engine inside an asyncio program of your own, with 100 runs at once: ``python examples/embed.py``.

Kill it in the middle and start it again: it goes on where it was, and each order is processed once.
"""

import asyncio
from collections import Counter

from flatwater.engine import Engine
from flatwater.engine.block import BlockCall, block
from flatwater.engine.option import EngineOptions
from flatwater.store import Store

ORDERS = 100


@block("Process", recovery="rerun")
async def process(order: int, *, call: BlockCall) -> dict[str, int]:
    """Takes a little time, without holding up anybody: a longer wait would leave memory altogether."""
    await call.sleep(0.2, f"works on order {order}")
    call.log(f"order {order} is done")
    return {"square": order * order}


async def main() -> None:
    options = EngineOptions(max_active=20)  # the others wait in the database
    async with Store.open("sqlite:///embed.db") as store, Engine(store, options=options) as engine:
        keys = {f"order {number}": {"order": number} for number in range(ORDERS)}
        runs = [await engine.submit_call(process, inputs, idempotency_key=key) for key, inputs in keys.items()]
        ended = await asyncio.gather(*(engine.result(run) for run in runs))
        print(dict(Counter(str(outcome.state) for outcome in ended)))
        print("sum of squares:", sum(outcome.outputs["square"] for outcome in ended))


if __name__ == "__main__":
    asyncio.run(main())
