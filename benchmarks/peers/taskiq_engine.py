"""Taskiq's part of `benchmarks/engine.py`: a Redis stream, acknowledged after the job, without results."""

from __future__ import annotations

import json
import sys

import uvloop
from taskiq.api import run_receiver_task
from taskiq_redis import RedisStreamBroker
from trial import CONCURRENCY, Worker, began, measure

what, count, folder, url = sys.argv[1], int(sys.argv[2]), sys.argv[3], sys.argv[4]
broker = RedisStreamBroker(url, xread_count=CONCURRENCY)


@broker.task(task_name="job")
async def job() -> None:
    began()


async def work() -> None:
    await run_receiver_task(broker, max_async_tasks=CONCURRENCY, run_startup=True)


async def main() -> dict[str, float]:
    await broker.startup()
    try:
        worker = Worker.of(__file__, folder, "0", folder, url)
        return await measure(what, count, worker, job.kiq)
    finally:
        await broker.shutdown()


if __name__ == "__main__":
    if what == "worker":
        uvloop.run(work())
    print(json.dumps(uvloop.run(main())))
