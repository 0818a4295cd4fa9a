"""The guard's price, and recycling under load.

    python benchmarks/guard.py overhead [--tasks 3000] [--repeat 5]
    python benchmarks/guard.py recycle [--host huey|prefork|threads] [--tasks 20000] [--recycles 200]

``overhead`` runs Huey's own execution of 1 ms tasks (Redis storage) bare and guarded in turns, in one process, and
shows the throughput lost per second of processor time (the machine may be shared). ``recycle`` starts a real consumer
under ``flatwater guard``, with tasks that grow so that it is recycled about so often, and counts how often each task
ended. Redis at 127.0.0.1:6379, database 12, is emptied.
"""

from __future__ import annotations

import argparse
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

REDIS = "redis://127.0.0.1:6379/12"
INFERIORS = Path(__file__).parents[1] / "tests" / "guard"
BASE_MIB, ROOM_MIB = 60, 40


def overhead(tasks: int, repeat: int) -> None:
    import logging

    from huey import RedisHuey

    from flatwater.guard.huey import install

    logging.disable(logging.INFO)
    work = 10_000
    began = time.thread_time()
    for _ in range(100):
        sum(range(work))
    work = int(work * 0.1 / (time.thread_time() - began))  # so much that a task takes 1 ms of a processor
    bare, guarded = (RedisHuey(name, url=REDIS) for name in ("bare", "guarded"))
    worker = install(guarded, soft=1 << 40)

    def one_ms() -> None:
        sum(range(work))

    calls = {id(huey): huey.task()(one_ms) for huey in (bare, guarded)}

    def seconds(huey: RedisHuey) -> float:
        huey.flush()
        for _ in range(tasks):
            calls[id(huey)]()
        began = time.process_time()
        while (task := huey.dequeue()) is not None:
            huey.execute(task)
            if not huey.pending_count():
                break
        return time.process_time() - began

    def added(count: int = 20_000) -> float:
        """Microseconds of the guard's own work per task, nothing else."""
        worker.begin("x", "x")
        worker.end()
        began = time.perf_counter()
        for _ in range(count):
            worker.begin("x", "x")
            worker.end()
        return (time.perf_counter() - began) / count * 1e6

    losses = []
    for turn in range(repeat):
        pair = (bare, guarded) if turn % 2 else (guarded, bare)
        times = {id(huey): seconds(huey) for huey in pair}
        losses.append(1 - times[id(bare)] / times[id(guarded)])
        print(
            f"bare {tasks / times[id(bare)]:7.1f}/s   guarded {tasks / times[id(guarded)]:7.1f}/s   {losses[-1]:+.2%}"
        )
    print(f"median loss {statistics.median(losses):.2%}; begin and end take {added():.1f} µs")
    worker.close()


def recycle(host: str, tasks: int, recycles: int) -> None:
    folder = Path(tempfile.mkdtemp(prefix="flatwater-bench-"))
    kib = max(ROOM_MIB * 1024 * recycles // tasks, 4)
    environment = {
        **os.environ, "INFERIOR_STORAGE": REDIS, "INFERIOR_BROKER": REDIS, "INFERIOR_BACKEND": REDIS,
        "INFERIOR_DONE": str(folder / "done"), "PYTHONPATH": str(INFERIORS),
        "INFERIOR_SOFT": str(BASE_MIB + ROOM_MIB if host != "prefork" else 20 + ROOM_MIB),
    }  # fmt: skip
    subprocess.run(["redis-cli", "-n", "12", "flushdb"], check=True, stdout=subprocess.DEVNULL)
    module, call = ("huey_inferior", "grow") if host == "huey" else ("celery_inferior", "grow.delay")
    program = f"import {module} as m\nfor n in range({tasks}): m.{call}(n, {kib}, 0.002)"
    subprocess.run([sys.executable, "-c", program], env=environment, check=True)
    if host == "huey":
        words = ["-m", "huey.bin.huey_consumer", "huey_inferior.huey", "-w", "2", "-d", "0.01", "-q"]
    else:
        words = ["-m", "celery", "-A", "celery_inferior", "worker", "-P", host, "-c", "2", "-l", "WARNING"]
    guard = [sys.executable, "-m", "flatwater.cli", "guard", "--record", str(folder / "guard.db"), "--overlap", "--"]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen([*guard, sys.executable, *words], env=environment, stdout=log, stderr=log)
        began = time.perf_counter()
        done = folder / "done"
        while not done.exists() or done.read_bytes().count(b"\n") < tasks:
            time.sleep(0.5)
            if process.poll() is not None or time.perf_counter() - began > 1800:
                sys.exit(f"not finished: {folder / 'log'}")
        took = time.perf_counter() - began
        process.send_signal(signal.SIGTERM)
        process.wait()
    counts = Counter(int(line.split()[0]) for line in done.read_text().splitlines())
    twice = sum(count > 1 for count in counts.values())
    left = (folder / "log").read_text("utf-8", "replace").count("above the soft limit")
    print(f"{host}: {len(counts):,} of {tasks:,} tasks ended, {twice} of them twice; {left} recycles in {took:.1f} s")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["overhead", "recycle"])
    parser.add_argument("--host", choices=["huey", "prefork", "threads"], default="huey")
    parser.add_argument("--tasks", type=int)
    parser.add_argument("--recycles", type=int, default=200)
    parser.add_argument("--repeat", type=int, default=5)
    given = parser.parse_args()
    if given.what == "overhead":
        overhead(given.tasks or 3000, given.repeat)
    else:
        recycle(given.host, given.tasks or 20_000, given.recycles)


if __name__ == "__main__":
    main()
