"""A run that waits for a person: ``python examples/approval.py`` starts it, looks at it and approves.

The wait is a row in the database, so it may last for weeks and over restarts. In a server somebody would call
``POST /api/events`` with ``{"name": "approved:17", "data": {"by": "Ann"}}`` instead.
"""

import asyncio
import json
from pathlib import Path

from flatwater.engine import Engine
from flatwater.store import Store
from flatwater.store import run as runs


async def main() -> None:
    definition = Path(__file__).with_name("approval.json").read_bytes()
    async with Store.open("sqlite:///approval.db") as store, Engine(store) as engine:
        await engine.save(definition)
        run = await engine.submit("approval", {"order": "17"})
        while not (row := await store.read(runs.get, run)).wait:  # it leaves memory after a second of waiting
            await asyncio.sleep(0.1)
        print(f"{row.state}: {json.loads(row.wait)[0]['reason']}")
        await engine.publish("approved:17", {"by": "Ann"})
        outcome = await engine.result(run)
        print(outcome.state, outcome.outputs)


if __name__ == "__main__":
    asyncio.run(main())
