"""Dramatiq's part of `benchmarks/engine.py`: Redis, one process with eight threads, acknowledged after the job."""

from __future__ import annotations

import asyncio
import json
import sys
import time

import dramatiq
from dramatiq.brokers.redis import RedisBroker
from trial import Worker, began, measure

what, count, folder, url = sys.argv[1], int(sys.argv[2]), sys.argv[3], sys.argv[4]
THREADS = 8
broker = RedisBroker(url=url)
dramatiq.set_broker(broker)


@dramatiq.actor(actor_name="job")
def job() -> None:
    began()


async def submit() -> None:
    job.send()


async def main() -> dict[str, float]:
    return await measure(what, count, Worker.of(__file__, folder, "0", folder, url), submit)


if __name__ == "__main__":
    if what == "worker":
        dramatiq.Worker(broker, worker_threads=THREADS).start()
        while True:
            time.sleep(60)
    print(json.dumps(asyncio.run(main())))
