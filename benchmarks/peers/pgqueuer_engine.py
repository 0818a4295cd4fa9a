"""PgQueuer's part of `benchmarks/engine.py`: asyncpg, batches of 100 jobs, durable tables."""

from __future__ import annotations

import json
import sys

import asyncpg
import uvloop
from pgqueuer import AsyncpgDriver, AsyncpgPoolDriver, Job, PgQueuer, Queries
from trial import CONCURRENCY, Worker, began, measure

what, count, folder, url = sys.argv[1], int(sys.argv[2]), sys.argv[3], sys.argv[4]


async def work() -> None:
    queue = PgQueuer(AsyncpgDriver(await asyncpg.connect(url)))

    @queue.entrypoint("job")
    async def job(_: Job) -> None:
        began()

    await queue.run(batch_size=CONCURRENCY)


async def main() -> dict[str, float]:
    async with asyncpg.create_pool(url, min_size=10, max_size=20) as pool:
        queries = Queries(AsyncpgPoolDriver(pool))
        await queries.install()
        worker = Worker.of(__file__, folder, "0", folder, url)

        async def many(number: int) -> None:
            await queries.enqueue(["job"] * number, [None] * number, [0] * number)

        return await measure(what, count, worker, lambda: queries.enqueue("job", None), many)


if __name__ == "__main__":
    if what == "worker":
        uvloop.run(work())
    print(json.dumps(uvloop.run(main())))
