"""The guard's price, and recycling under load.

    python benchmarks/guard.py overhead [--host huey prefork threads asgi] [--tasks 200] [--pairs 40]
    python benchmarks/guard.py recycle [--host huey prefork threads] [--tasks 20000] [--recycles 200]

``overhead`` runs tasks and requests of 1 ms through real workers (Huey's consumer, Celery's worker, uvicorn) on a real
broker under ``flatwater guard``, and turns the integration off and on in blocks, in one process. It shows the processor
time per task without it, what it adds (the median of the pairs, with quartiles), and the throughput lost per second of
a processor, which other work on the machine disturbs least.

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
    parser.add_argument("--tasks", type=int, help="overhead: of a block (200); recycle: in all (20,000)")
    parser.add_argument("--pairs", type=int, default=40, help="of blocks")
    parser.add_argument("--recycles", type=int, default=200)
    parser.add_argument("--workers", type=int, default=4)
    parser.add_argument("--task-s", type=float, default=0.1, help="how long a task of recycle takes")
    given = parser.parse_args()
    if given.what == "overhead":
        overhead(given.redis, given.host, given.tasks or 200, given.pairs)
        return
    for host in given.host:
        if host != "asgi":
            recycle(given.redis, given.beside, host, given.tasks or 20_000, given.recycles, given.workers, given.task_s)


if __name__ == "__main__":
    main()
