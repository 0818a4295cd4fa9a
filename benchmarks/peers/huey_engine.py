"""Huey's part of `benchmarks/engine.py`: SqliteHuey with 8 worker threads, WAL and fsync."""

from __future__ import annotations

import json
import statistics
import sys
import threading
import time

from huey import SqliteHuey

WORKERS = 8
what, count, folder = sys.argv[1], int(sys.argv[2]), sys.argv[3]
huey = SqliteHuey("bench", filename=f"{folder}/huey.db", fsync=True, results=True)
started: list[float] = []
ended = threading.Semaphore(0)


@huey.task()
def nothing() -> None:
    ended.release()


@huey.task()
def stamp() -> None:
    started.append(time.perf_counter())
    ended.release()


def consumer() -> None:
    huey_consumer = huey.create_consumer(workers=WORKERS, worker_type="thread", initial_delay=0.001, max_delay=0.01)
    huey_consumer.start()


def runs() -> dict[str, float]:
    consumer()
    begin = time.perf_counter()
    for _ in range(count):
        nothing()
    for _ in range(count):
        ended.acquire()
    while huey.pending_count():
        time.sleep(0.001)
    return {"rate": count / (time.perf_counter() - begin)}


def latency() -> dict[str, float]:
    consumer()
    time.sleep(0.5)
    waits = []
    for _ in range(count):
        time.sleep(0.05)
        begin = time.perf_counter()
        stamp()
        ended.acquire()
        waits.append((started.pop() - begin) * 1000)
    return {"p50_ms": statistics.median(waits), "p99_ms": statistics.quantiles(waits, n=100)[98]}


def delay() -> dict[str, float]:
    consumer()
    begin = time.perf_counter()
    for _ in range(count):
        stamp.schedule(delay=2)
    for _ in range(count):
        ended.acquire()
    return {"seconds": statistics.median(started) - begin}


if __name__ == "__main__":
    print(json.dumps({"runs": runs, "latency": latency, "delay": delay}[what]()), flush=True)
    import os

    os._exit(0)
