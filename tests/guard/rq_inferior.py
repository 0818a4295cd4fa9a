"""RQ's jobs that grow, and guarded workers for them; told by environment variables."""

from __future__ import annotations

import os
import time

from redis import Redis
from rq import Queue

import flatwater.guard.rq

queue = Queue("inferior", connection=Redis.from_url(os.environ["INFERIOR_STORAGE"]))
KEPT: list[bytearray] = []


class Simple(flatwater.guard.rq.SimpleWorker):
    soft = 70 << 20


class Forking(flatwater.guard.rq.Worker):
    hard = 150 << 20


def note(*words: object) -> None:
    with open(os.environ["INFERIOR_DONE"], "a") as file:  # noqa: PTH123
        file.write(" ".join(map(str, words)) + "\n")


def grow(number: int) -> None:
    KEPT.append(bytearray(b"x" * (1 << 20)))
    time.sleep(0.01)
    note(number, os.getpid())


def nothing(number: int) -> None:
    note(number, os.getpid())


def eat(mib: int) -> None:
    kept = [bytearray(b"x" * (1 << 20)) for _ in range(mib)]
    time.sleep(60 if mib else 0)
    kept.clear()
