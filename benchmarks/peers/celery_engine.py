"""Celery's part of `benchmarks/engine.py`: Redis, prefork with a child per core, no results, prefetch 100."""

from __future__ import annotations

import asyncio
import json
import sys

from celery import Celery
from trial import CONCURRENCY, Worker, began, measure

what, count, folder, url = sys.argv[1], int(sys.argv[2]), sys.argv[3], sys.argv[4]
CHILDREN = 2
app = Celery("bench", broker=url)
app.conf.update(
    task_ignore_result=True,
    worker_prefetch_multiplier=CONCURRENCY // CHILDREN,
    worker_send_task_events=False,
    broker_connection_retry_on_startup=True,
)


@app.task(name="job")
def job() -> None:
    began()


async def submit() -> None:
    job.delay()


async def main() -> dict[str, float]:
    return await measure(what, count, Worker.of(__file__, folder, "0", folder, url), submit)


if __name__ == "__main__":
    if what == "worker":
        options = ["--loglevel=ERROR", "--without-gossip", "--without-mingle", "--without-heartbeat"]
        app.worker_main(["worker", "--pool=prefork", f"--concurrency={CHILDREN}", *options])
    print(json.dumps(asyncio.run(main())))
