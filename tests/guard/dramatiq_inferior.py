"""Dramatiq's actors that grow, for a worker in processes of its own; told by environment variables."""

from __future__ import annotations

import os
import time

import dramatiq
from dramatiq.brokers.redis import RedisBroker
from dramatiq.middleware import CurrentMessage
from dramatiq.results import Results
from dramatiq.results.backends.redis import RedisBackend

from flatwater.guard.dramatiq import install

url = os.environ["INFERIOR_STORAGE"]
broker = RedisBroker(url=url)
# redis-py 8 gives up after 5 s otherwise, also on the answer that is waited for
broker.add_middleware(Results(backend=RedisBackend(url=f"{url}?socket_timeout=90")))
dramatiq.set_broker(broker)


def limit(name: str) -> int | None:
    return int(os.environ[name]) << 20 if name in os.environ else None


broker.add_middleware(CurrentMessage())
guard = install(broker, soft=limit("INFERIOR_SOFT"), hard=limit("INFERIOR_HARD"))
KEPT: list[object] = []
DONE = os.environ["INFERIOR_DONE"]


def note(*words: object) -> None:
    with open(DONE, "a") as file:  # noqa: PTH123
        file.write(" ".join(map(str, words)) + "\n")


@dramatiq.actor
def grow(number: int, kib: int, pause_s: float) -> None:
    KEPT.append(bytearray(b"x" * (kib * 1024)))
    time.sleep(pause_s)
    note(number, os.getpid())


@dramatiq.actor
def grow_late() -> None:
    """Grows when it is told to, and then works on for longer than the guard needs to see it."""
    note("begun")
    while not os.path.exists(DONE + ".go"):  # noqa: PTH110
        time.sleep(0.01)
    KEPT.append(bytearray(b"x" * (100 << 20)))
    time.sleep(0.5)
    note("ended")


@dramatiq.actor
def keep() -> None:
    KEPT.append(CurrentMessage.get_current_message())


@dramatiq.actor
def nothing(number: int) -> None:
    note(number, os.getpid())


@dramatiq.actor(store_results=True, max_retries=0)
def eat(mib: int) -> int:
    kept = [bytearray(b"x" * (1 << 20)) for _ in range(mib)]
    time.sleep(60 if mib else 0)
    return len(kept)
