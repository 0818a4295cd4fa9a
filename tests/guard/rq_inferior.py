"""RQ's jobs that grow, and guarded workers for them; told by environment variables."""

from __future__ import annotations

import os
import signal
import time
from typing import Any

from inferior import grow_when_told, note
from redis import Redis
from rq import Queue, get_current_job

import flatwater.guard.rq

queue = Queue("inferior", connection=Redis.from_url(os.environ["INFERIOR_STORAGE"]))
KEPT: list[object] = []


class Simple(flatwater.guard.rq.SimpleWorker):
    soft = 70 << 20


class Popping(Queue):
    """The signal comes at the worst moment: a job is popped, and its worker does not know it yet."""

    @classmethod
    def lmove(cls, *arguments: Any, **named: Any) -> Any:
        found = super().lmove(*arguments, **named)
        os.kill(os.getpid(), signal.SIGTERM)
        return found


class Forking(flatwater.guard.rq.Worker):
    hard = 150 << 20


def grow(number: int) -> None:
    KEPT.append(bytearray(b"x" * (1 << 20)))
    time.sleep(0.01)
    note(number, os.getpid())


def grow_late() -> None:
    grow_when_told(KEPT)


def keep() -> None:
    KEPT.append(get_current_job())


def nothing(number: int) -> None:
    note(number, os.getpid())


def eat(mib: int) -> None:
    kept = [bytearray(b"x" * (1 << 20)) for _ in range(mib)]
    time.sleep(60 if mib else 0)
    kept.clear()
