"""The guard's price, and recycling under load.

    python benchmarks/guard.py overhead [--host huey prefork threads asgi] [--tasks 16000]
    python benchmarks/guard.py recycle [--host huey prefork threads] [--tasks 20000] [--recycles 200]

``overhead`` runs tasks and requests of 1 ms through real workers (Huey's consumer, Celery's worker, uvicorn) on a real
broker under ``flatwater guard``, with blocks of tasks bare and guarded in turn, in one process. It shows what a task
takes of the processor in its thread besides its 1 ms, from the end of one to the end of the next, and what the guard
adds to its execution: that is the throughput lost, whatever else the machine does. Not in it: the watching thread's ten
looks a second.

``recycle`` starts real workers with tasks that grow, so that they are recycled about so often, counts how often each
task ended, looks how many workers are ready for tasks, and compares the throughput with that of as many workers
without the guard and without growth, which run at the same time. Prefork is one pool of ``--workers``; of the others
``flatwater guard -n 2 --overlap`` runs two, with half of the threads each. The Redis databases are emptied.
"""

from __future__ import annotations

import argparse

from guard_overhead import HOSTS, overhead
from guard_recycle import recycle

REDIS, BESIDE = "redis://127.0.0.1:6379/12", "redis://127.0.0.1:6379/11"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["overhead", "recycle"])
    parser.add_argument("--host", choices=HOSTS, nargs="+", default=HOSTS)
    parser.add_argument("--redis", default=REDIS)
    parser.add_argument("--beside", default=BESIDE, help="the bare workers' Redis")
    parser.add_argument("--tasks", type=int, help="in all: overhead 16,000, recycle 20,000")
    parser.add_argument("--recycles", type=int, default=200)
    parser.add_argument("--workers", type=int, default=4)
    parser.add_argument("--task-s", type=float, default=0.1, help="how long a task of recycle takes")
    given = parser.parse_args()
    if given.what == "overhead":
        overhead(given.redis, given.host, given.tasks or 16_000)
        return
    for host in given.host:
        if host != "asgi":
            recycle(given.redis, given.beside, host, given.tasks or 20_000, given.recycles, given.workers, given.task_s)


if __name__ == "__main__":
    main()
