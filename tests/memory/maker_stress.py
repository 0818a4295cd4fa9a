"""A program that is watched again and again while threads churn, containers die, code comes and goes, and it forks.

``python -m tests.memory.maker_stress WINDOWS`` exits with 0 when all windows told of growth and it is still alive.
"""

import asyncio
import faulthandler
import os
import random
import sys
import threading
import time
import zlib
from collections.abc import Iterator
from typing import Any

from flatwater.memory.target import Here

pool: list[list[Any]] = [[] for _ in range(20)]
tables: dict[int, Any] = {}
stop = threading.Event()


class Thing:
    """In a cycle, with a finalizer that changes a container: the collector runs it at any allocation."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.me = self

    def __del__(self) -> None:
        tables.pop(self.number % 97, None)


def numbers(count: int) -> Iterator[int]:
    yield from range(count)


def churn(seed: int) -> None:
    chance = random.Random(seed)
    number = 0
    while not stop.is_set():
        number += 1
        box = pool[chance.randrange(20)]
        box.append(Thing(number))
        box.extend(numbers(5))
        if len(box) > 500:
            pool[chance.randrange(20)] = []
        tables[chance.randrange(1000)] = {number: [number]}
        try:
            if number % 7 == 0:
                raise ValueError(number)
        except ValueError:
            pass
        if number % 10 == 0:
            exec(compile("def made(x):\n    return [x]\nbox.append(made(1))", "<made>", "exec"), {"box": box})
        if number % 50 == 0:
            threading.Thread(target=lambda box=box: box.append(zlib.compress(os.urandom(5000)))).start()


async def tasks() -> None:
    async def one(number: int) -> None:
        await asyncio.sleep(0.001)
        pool[number % 20].append(number)

    while not stop.is_set():
        await asyncio.gather(*(one(number) for number in range(20)))


def fork() -> None:
    """While a window may be open: the child must not go on tracing."""
    while not stop.wait(0.5):
        pid = os.fork()
        if pid == 0:
            for _ in range(1000):
                sum(numbers(3))
            os._exit(0 if not __import__("tracemalloc").is_tracing() else 7)
        _, status = os.waitpid(pid, 0)
        if status:
            os._exit(9)


def main(windows: int) -> int:
    faulthandler.enable()
    workers = [threading.Thread(target=churn, args=(seed,)) for seed in range(3)]
    workers += [threading.Thread(target=lambda: asyncio.run(tasks())), threading.Thread(target=fork)]
    for worker in workers:
        worker.start()
    grew = lines = 0
    begun = time.monotonic()
    with Here() as here:
        for number in range(windows):
            addresses = [id(box) for box in random.sample(pool, 8)] + [id(tables)]
            told = here.ask("watch", addresses=addresses, seconds=0.05, max_events=20)
            grew += sum(row.get("grew", 0) for row in told["containers"])
            lines += any(row.get("inserted_at") for row in told["containers"])
            if number % 20 == 10:
                here.ask("types_made", seconds=0.02, types=["__main__.Thing"])
    stop.set()
    for worker in workers:
        worker.join()
    print(f"{windows} windows in {time.monotonic() - begun:.1f} s, {grew} insertions, {lines} with lines")
    return 0 if grew and lines > windows // 2 else 1


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1])))
