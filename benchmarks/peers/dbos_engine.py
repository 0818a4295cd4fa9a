"""DBOS's part of `benchmarks/engine.py`: SQLite or PostgreSQL, its queue polled every 10 ms."""

from __future__ import annotations

import json
import os
import sys
import time

from dbos import DBOS, DBOSConfig

what, count, folder = sys.argv[1], int(sys.argv[2]), sys.argv[3]
url = sys.argv[4] if len(sys.argv) > 4 else f"sqlite:///{folder}/dbos.sqlite"
config: DBOSConfig = {
    "name": "bench",
    "system_database_url": url,
    "log_level": "ERROR",
    "run_admin_server": False,
}
DBOS(config=config)


@DBOS.step()
def nothing() -> None:
    """The empty step."""


@DBOS.workflow()
def single() -> None:
    nothing()


@DBOS.workflow()
def ten() -> None:
    for _ in range(10):
        nothing()


def main() -> dict[str, float]:
    DBOS.launch()
    queue = DBOS.register_queue("bench", worker_concurrency=64, polling_interval_sec=0.01)
    workflow = single if what == "runs" else ten
    queue.enqueue(workflow).get_result()
    begin = time.perf_counter()
    handles = [queue.enqueue(workflow) for _ in range(count)]
    for handle in handles:
        handle.get_result()
    return {"rate": count / (time.perf_counter() - begin)}


if __name__ == "__main__":
    print(json.dumps(main()), flush=True)
    os._exit(0)
