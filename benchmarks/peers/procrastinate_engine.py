"""Procrastinate's part of `benchmarks/engine.py`: psycopg pools, LISTEN/NOTIFY, jobs deleted when they succeeded."""

from __future__ import annotations

import json
import sys

import procrastinate
import uvloop
from trial import CONCURRENCY, Worker, began, measure

what, count, folder, url = sys.argv[1], int(sys.argv[2]), sys.argv[3], sys.argv[4]
app = procrastinate.App(connector=procrastinate.PsycopgConnector(conninfo=url, min_size=10, max_size=20))


@app.task
async def job() -> None:
    began()


async def work() -> None:
    async with app.open_async():
        await app.run_worker_async(concurrency=CONCURRENCY, delete_jobs="successful", install_signal_handlers=False)


async def many(number: int) -> None:
    await job.batch_defer_async(*({} for _ in range(number)))


async def main() -> dict[str, float]:
    async with app.open_async():
        await app.schema_manager.apply_schema_async()
        worker = Worker.of(__file__, folder, "0", folder, url)
        return await measure(what, count, worker, job.defer_async, many)


if __name__ == "__main__":
    if what == "worker":
        uvloop.run(work())
    print(json.dumps(uvloop.run(main())))
