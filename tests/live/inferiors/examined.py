"""A program that is attached to: ``python -m tests.live.inferiors.examined KIND``. It knows nothing of Flatwater.

It says ``ready``, then one line ``gap SECONDS`` a second: the longest that its loop stood still since the last one.
"""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import threading
import time
import zlib
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any


def say(*words: object) -> None:
    print(*words, flush=True)


def idle() -> None:
    say("ready")
    time.sleep(3600)


def spin() -> None:
    say("ready")
    while True:
        pass


def join() -> None:
    """The main thread waits for another, as many servers' do."""
    thread = threading.Thread(target=time.sleep, args=(3600,), daemon=True)
    thread.start()
    say("ready")
    thread.join()


def stuck() -> None:
    """Holds the interpreter in C code for longer than anybody waits."""
    say("ready")
    sum(range(10**11))


def leaving() -> None:
    """Ends when told to, through interpreter shutdown, with whatever an agent has made of it."""
    say("ready")
    sys.stdin.readline()
    say("left", *sorted(name for name in sys.modules if "flatwater" in name))


def forking() -> None:
    """Forks a child for each line of input; the child says which sockets it holds, and lives until the next."""
    say("ready")
    for _ in sys.stdin:
        if not (child := os.fork()):
            say("child", *(link for link in _links() if link.startswith("socket:")), ".")
            os._exit(0)
        os.waitpid(child, 0)


def _links() -> list[str]:
    found = []
    for path in Path("/proc/self/fd").iterdir():
        try:
            found.append(str(path.readlink()))
        except OSError:
            continue
    return found


def another() -> None:
    """Has a package of its own that is called flatwater."""
    import types

    module = sys.modules["flatwater"] = types.ModuleType("flatwater")
    module.mine = True  # type: ignore[attr-defined]
    say("ready")
    sys.stdin.readline()
    say("kept", sys.modules["flatwater"] is module, *sorted(name for name in sys.modules if "flatwater" in name))


def busy() -> None:
    """Allocates in Python and in C, in threads and in asyncio, with a timer's signals and child processes."""
    signal.signal(signal.SIGALRM, lambda *_: None)
    signal.setitimer(signal.ITIMER_REAL, 0.003, 0.003)
    for work in (_python_memory, _c_memory, _numbers):
        threading.Thread(target=_forever, args=(work,), daemon=True).start()
    asyncio.run(_loop(_small, _children))


def served() -> None:
    """An echo server on uvloop with a client of its own."""
    import uvloop

    uvloop.run(_loop(_echo))


def green() -> None:
    """gevent with everything patched."""
    from gevent import monkey

    monkey.patch_all()
    import gevent

    def work() -> None:
        while True:
            time.sleep(0.01)

    gevent.spawn(work)
    time.sleep(0.001)  # makes the hub
    say("ready")
    last, longest, told = time.monotonic(), 0.0, time.monotonic()
    while True:
        time.sleep(0.005)
        now = time.monotonic()
        longest, last = max(longest, now - last - 0.005), now
        if now - told > 1:
            say("gap", round(longest, 5))
            longest, told = 0.0, now


def _forever(work: Callable[[int], object]) -> None:
    round_ = 0
    while True:
        work(round_)
        round_ += 1
        time.sleep(0.001)


def _python_memory(round_: int) -> object:
    return [{"a": [n], "b": (n, str(n))} for n in range(200)]


def _c_memory(round_: int) -> object:
    data = zlib.compress(os.urandom(20_000 + round_ % 7 * 10_000), 1)
    return [bytearray(size) for size in (600, 5_000, 40_000, 300_000)], zlib.decompress(data)


def _numbers(round_: int) -> object:
    """Floating point that a lost vector register would spoil."""
    total = sum(n * 0.5 for n in range(1_000))
    assert total == 249_750.0, total
    return total


async def _loop(*works: Callable[[], Awaitable[Any]]) -> None:
    say("ready")
    async with asyncio.TaskGroup() as group:
        for work in works:
            group.create_task(work())  # type: ignore[arg-type]
        group.create_task(_gaps())


async def _gaps() -> None:
    longest, told = 0.0, time.monotonic()
    while True:
        before = time.monotonic()
        await asyncio.sleep(0.002)
        now = time.monotonic()
        longest = max(longest, now - before - 0.002)
        if now - told > 1:
            say("gap", round(longest, 5))
            longest, told = 0.0, now


async def _small() -> None:
    while True:
        await asyncio.gather(*(asyncio.sleep(0) for _ in range(100)))
        await asyncio.sleep(0.001)


async def _children() -> None:
    while True:
        await asyncio.to_thread(subprocess.run, ["/bin/true"], check=True)
        await asyncio.sleep(0.2)


async def _echo() -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(1000):
            writer.write(data)
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname()[:2])
    while True:
        writer.write(b"x" * 100)
        await reader.readexactly(100)
        await asyncio.sleep(0.001)


KINDS = {work.__name__: work for work in (idle, spin, join, stuck, leaving, forking, another, busy, served, green)}

if __name__ == "__main__":
    KINDS[sys.argv[1]]()
