"""SAQ's part of `benchmarks/engine.py`: its queue on Redis, or on PostgreSQL."""

from __future__ import annotations

import json
import sys

import uvloop
from saq import Queue
from saq import Worker as SaqWorker
from trial import CONCURRENCY, Worker, began, measure

what, count, folder, url = sys.argv[1], int(sys.argv[2]), sys.argv[3], sys.argv[4]


async def job(_: object) -> None:
    began()


def queue() -> Queue:
    own = {"max_concurrent_ops": CONCURRENCY} if url.startswith("redis") else {"max_size": 20}
    return Queue.from_url(url, **own)


async def work() -> None:
    own = queue()
    await own.connect()
    await SaqWorker(own, [job], concurrency=CONCURRENCY).start()


async def main() -> dict[str, float]:
    own = queue()
    await own.connect()
    try:
        worker = Worker.of(__file__, folder, "0", folder, url)
        return await measure(what, count, worker, lambda: own.enqueue("job", ttl=-1))
    finally:
        await own.disconnect()


if __name__ == "__main__":
    if what == "worker":
        uvloop.run(work())
    print(json.dumps(uvloop.run(main())))
