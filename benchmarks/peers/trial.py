"""What the peers with a broker share: the worker is a process of its own, and each job writes the time at which it
began into a pipe to the process that submits."""

from __future__ import annotations

import asyncio
import os
import statistics
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Self

import psutil

CONCURRENCY = 100
"""Jobs that a worker may have under way at once."""
PRODUCERS = 200
"""Submissions under way at once, each awaiting its own acknowledgement."""
BULK = 1_000
"""Jobs of one call, where the peer has a call for many."""
WARM_UP = 200
PAUSE_S = 0.05
LIMIT_S = 300.0
_PIPE = "FLATWATER_BENCH_PIPE"
_STAMP = struct.Struct("d")


def began() -> None:
    """The whole job: tell the process that submits, in one write, which a pipe keeps in one piece."""
    os.write(int(os.environ[_PIPE]), _STAMP.pack(time.perf_counter()))


class Worker:
    """A worker process, and what its jobs told: how many began (``count``) and when the latest did (``last``)."""

    def __init__(self, *command: str, folder: str) -> None:
        self.count, self.last = 0, 0.0
        self._log = Path(folder, "worker.log")
        self._reading, writing = os.pipe()
        environment = {**os.environ, _PIPE: str(writing)}
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(command, pass_fds=[writing], env=environment, stdout=log, stderr=log)
        os.close(writing)
        threading.Thread(target=self._read, daemon=True).start()

    @classmethod
    def of(cls, script: str, folder: str, *arguments: str) -> Self:
        """The peer's own script, called with ``worker``."""
        return cls(sys.executable, script, "worker", *arguments, folder=folder)

    def _read(self) -> None:
        rest = b""
        while chunk := os.read(self._reading, 65_536):
            rest += chunk
            whole = len(rest) // _STAMP.size
            if whole:
                (self.last,) = _STAMP.unpack_from(rest, (whole - 1) * _STAMP.size)
                rest = rest[whole * _STAMP.size :]
                self.count += whole

    async def reach(self, count: int) -> None:
        """Return when so many jobs have begun. Raises SystemExit when the worker dies or takes too long."""
        until = time.monotonic() + LIMIT_S
        while self.count < count:
            if self._process.poll() is not None or time.monotonic() > until:
                raise SystemExit(f"{self.count} of {count} jobs began; the worker said:\n{self._said()}")
            await asyncio.sleep(0.002)

    def _said(self) -> str:
        return self._log.read_text(errors="replace")[-4_000:]

    def memory_mb(self) -> dict[str, float]:
        """RSS of the largest process of the worker, and PSS of all of them."""
        tree = psutil.Process(self._process.pid)
        each = [process.memory_full_info() for process in (tree, *tree.children(recursive=True))]
        return {"rss_mb": max(one.rss for one in each) / 1e6, "pss_mb": sum(one.pss for one in each) / 1e6}

    def stop(self) -> None:
        """End it and what it started, at once: its database is dropped anyway."""
        tree = psutil.Process(self._process.pid)
        for process in (*tree.children(recursive=True), tree):
            process.kill()
        self._process.wait()


Submit = Callable[[], Awaitable[object]]
SubmitMany = Callable[[int], Awaitable[object]]


async def measure(
    what: str, count: int, worker: Worker, submit: Submit, many: SubmitMany | None = None
) -> dict[str, float]:
    """``jobs``: submitted one by one; ``bulk``: by the call for many; ``latency``: from submission to beginning."""
    try:
        await produce(WARM_UP, submit)
        await worker.reach(WARM_UP)
        if what == "latency":
            return await latency(count, worker, submit)
        begin = time.perf_counter()
        if what == "bulk":
            assert many is not None, "this peer has no call for many"
            for _ in range(count // BULK):
                await many(BULK)
        else:
            await produce(count, submit)
        await worker.reach(WARM_UP + count)
        return {"rate": count / (worker.last - begin), **worker.memory_mb()}
    finally:
        worker.stop()


async def produce(count: int, submit: Submit, producers: int = PRODUCERS) -> None:
    left = iter(range(count))

    async def one() -> None:
        for _ in left:
            await submit()

    await asyncio.gather(*(one() for _ in range(producers)))


async def latency(count: int, worker: Worker, submit: Submit) -> dict[str, float]:
    waits = []
    for _ in range(count):
        await asyncio.sleep(PAUSE_S)
        seen, begin = worker.count, time.perf_counter()
        await submit()
        await worker.reach(seen + 1)
        waits.append((worker.last - begin) * 1000)
    return {"p50_ms": statistics.median(waits), "p99_ms": statistics.quantiles(waits, n=100)[98]}
