"""A Celery task that starts many sub-tasks, with ``trail`` as it is by default (Celery, S4).

While a task with ``trail=True`` runs, its request notes every result of the sub-tasks that it started in
``Context._children``. Here the parent starts sub-tasks as long as it runs. Repaired: ``@app.task(trail=False)``.

Starts a real worker (prefork, two processes) on the Redis of ``REDIS_URL`` (redis://127.0.0.1:6379/0), with keys of
a prefix of its own, and removes what it wrote. ``ready PID`` names the pool process in which the parent runs.
"""

import os
import signal
import subprocess
import sys
import uuid
from types import FrameType

import celery
import redis
from stage import Stage

URL = os.environ.get("REDIS_URL", "redis://127.0.0.1:6379/0")
PREFIX = os.environ.setdefault("CELERY_TRAIL_PREFIX", f"celery-trail-{uuid.uuid4().hex[:8]}-")

app = celery.Celery("celery_trail", broker=URL, backend=URL)
app.conf.update(
    broker_transport_options={"global_keyprefix": PREFIX},
    result_backend_transport_options={"global_keyprefix": PREFIX},
    result_expires=60,
    worker_redirect_stdouts=False,
    worker_prefetch_multiplier=1,
    broker_connection_retry_on_startup=True,
)


@app.task(ignore_result=True)
def subtask() -> None:
    pass


def start_subtasks() -> None:
    for _ in Stage(__doc__, rate=250).orders():
        subtask.delay()  # allocated here, inserted here


@app.task
def parent() -> None:
    start_subtasks()


@app.task(trail=False)
def repaired_parent() -> None:
    start_subtasks()


def start_worker() -> subprocess.Popen[bytes]:
    words = "worker --concurrency 2 --loglevel ERROR --without-gossip --without-mingle --without-heartbeat"
    environment = {**os.environ, "CELERY_TRAIL_WORKER": words}
    command = [sys.executable, *sys.argv]
    return subprocess.Popen(command, env=environment, start_new_session=True)  # noqa: S603 - ourselves


def stop(number: int, frame: FrameType | None) -> None:
    raise SystemExit


def remove_keys() -> None:
    with redis.Redis.from_url(URL) as client:
        for key in client.scan_iter(f"{PREFIX}*"):
            client.delete(key)


def main() -> None:
    stage = Stage(__doc__, rate=250)
    words = os.environ.get("CELERY_TRAIL_WORKER")
    if words:
        app.worker_main(words.split())
        return
    signal.signal(signal.SIGTERM, stop)
    worker = start_worker()
    try:
        (repaired_parent if stage.repaired else parent).delay().get()
    finally:
        os.killpg(worker.pid, signal.SIGKILL)
        worker.wait()
        remove_keys()


if __name__ == "__main__":
    main()
