"""Dramatiq's actors that grow, for a worker in processes of its own; told by environment variables."""

from __future__ import annotations

import os
import time

import dramatiq
from dramatiq.brokers.redis import RedisBroker
from dramatiq.middleware import CurrentMessage
from dramatiq.results import Results
from dramatiq.results.backends.redis import RedisBackend
from inferior import grow_when_told, limit, note

from flatwater.guard.dramatiq import install

url = os.environ["INFERIOR_STORAGE"]
broker = RedisBroker(url=url)
# redis-py 8 gives up after 5 s otherwise, also on the answer that is waited for
broker.add_middleware(Results(backend=RedisBackend(url=f"{url}?socket_timeout=90")))
dramatiq.set_broker(broker)
broker.add_middleware(CurrentMessage())
guard = install(broker, soft=limit("INFERIOR_SOFT"), hard=limit("INFERIOR_HARD"))
KEPT: list[object] = []


@dramatiq.actor
def grow(number: int, kib: int, pause_s: float) -> None:
    KEPT.append(bytearray(b"x" * (kib * 1024)))
    time.sleep(pause_s)
    note(number, os.getpid())


@dramatiq.actor
def grow_late() -> None:
    grow_when_told(KEPT)


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
