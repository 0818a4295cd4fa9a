"""The price of the guard per task, in real workers under ``flatwater guard``: see ``guard.py``."""

from __future__ import annotations

import json
import math
import os
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType

import redis

HOSTS = ["huey", "prefork", "threads", "asgi"]
PORT = 18_231
CONNECTIONS = 2


def overhead(url: str, hosts: list[str], tasks: int) -> None:
    """Per host what a task takes of its thread besides its 1 ms, and what the guard adds: medians and quartiles."""
    work = one_ms()
    print(f"microseconds of a processor per task of 1 ms, in its thread, besides that; {tasks:,} tasks")
    print(f"{'host':8} {'bare':>7} {'the guard adds':>24} {'± (95 %)':>9} {'loss':>7}")
    for host in hosts:
        added, bare = zip(*((on - off, whole) for off, on, whole in measured(host, url, work, tasks)), strict=True)
        low, middle, high = statistics.quantiles(added, n=4)
        error = 1.96 * 1.2533 * (high - low) / 1.349 / math.sqrt(len(added))  # of a median, from the quartiles
        loss = middle / (1000 + statistics.median(bare) + middle)
        print(f"{host:8} {statistics.median(bare):7.1f} {f'{middle:.1f} ({low:.1f} … {high:.1f})':>24}", end=" ")
        print(f"{error:9.1f} {loss:7.2%}", flush=True)


def one_ms() -> int:
    """So many steps that a task takes 1 ms of a processor."""

    def took(count: int) -> float:
        began = time.thread_time()
        for _ in range(100):
            sum(range(count))
        return (time.thread_time() - began) / 100

    return int(10_000 * 0.001 / statistics.median(took(10_000) for _ in range(9)))


def measured(host: str, url: str, work: int, tasks: int) -> list[tuple[float, ...]]:
    """Microseconds per task besides its 1 ms: its execution bare and guarded, and all of its thread's time bare."""
    redis.Redis.from_url(url).flushdb()
    os.environ.update(BENCH_KIND=host, BENCH_REDIS=url, BENCH_WORK=str(work))
    with worker(host):
        control = Requests(url) if host == "asgi" else Tasks(url)
        control.run(500)  # imports, caches
        return [tuple(figure * 1e6 for figure in figures) for figures in control.run(tasks)]


@contextmanager
def worker(host: str) -> Iterator[None]:
    """A worker under ``flatwater guard``."""
    command = {
        "huey": ["-m", "huey.bin.huey_consumer", "guard_host.huey", "-w", "1", "-d", "0.01", "-q"],
        "prefork": ["-m", "celery", "-A", "guard_host", "worker", "-P", "prefork", "-c", "1", "-l", "ERROR"],
        "threads": ["-m", "celery", "-A", "guard_host", "worker", "-P", "threads", "-c", "2", "-l", "ERROR"],
        "asgi": ["-m", "uvicorn", "guard_host:asgi", "--interface", "asgi3", "--port", str(PORT), "--no-access-log",
                 "--log-level", "warning"],
    }[host]  # fmt: skip
    with tempfile.TemporaryDirectory(prefix="flatwater-bench-") as folder:
        guard = [sys.executable, "-m", "flatwater.cli", "guard", "--record", f"{folder}/guard.db", "--"]
        process = subprocess.Popen(
            [*guard, sys.executable, *command], env={**os.environ, "PYTHONPATH": str(Path(__file__).parent)}
        )
        try:
            yield
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait()


class Control:
    """Runs tasks in the worker."""

    def __init__(self, url: str) -> None:
        self._redis = redis.Redis.from_url(url, socket_timeout=None)

    def _told(self) -> str:
        answer = self._redis.blpop(["told"], 120)
        if answer is None:
            sys.exit("the worker does not answer")
        return str(answer[1], "ascii")


class Tasks(Control):
    """Calls tasks."""

    def __init__(self, url: str) -> None:
        super().__init__(url)
        sys.modules.pop("guard_host", None)
        self._host: ModuleType = __import__("guard_host")

    def run(self, count: int) -> list[list[float]]:
        """Seconds, of pairs of blocks."""
        for _ in range(count):
            self._host.one_ms()
        self._host.say()
        return list(json.loads(self._told()))


class Requests(Control):
    """Asks over connections that are kept open, each as soon as it has been answered."""

    def __init__(self, url: str) -> None:
        super().__init__(url)
        deadline = time.monotonic() + 60
        while True:
            try:
                self._connections = [socket.create_connection(("127.0.0.1", PORT)) for _ in range(CONNECTIONS)]
                return
            except ConnectionRefusedError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.1)

    def run(self, count: int) -> list[list[float]]:
        def many(connection: socket.socket) -> None:
            for number in range(count // CONNECTIONS):
                ask(connection, f"/work/{number}")

        threads = [threading.Thread(target=many, args=(connection,)) for connection in self._connections]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        ask(self._connections[0], "/told")
        return list(json.loads(self._told()))


def ask(connection: socket.socket, path: str) -> None:
    connection.sendall(f"GET {path} HTTP/1.1\r\nhost: 127.0.0.1\r\n\r\n".encode())
    answer = b""
    while not answer.endswith(b"\r\n\r\ndone"):
        part = connection.recv(4096)
        if not part:
            sys.exit(f"no answer: {answer!r}")
        answer += part
