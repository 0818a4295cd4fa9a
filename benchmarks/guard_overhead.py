"""The price of the guard per task, in real workers under ``flatwater guard``: see ``guard.py``."""

from __future__ import annotations

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


def overhead(url: str, hosts: list[str], tasks: int, pairs: int) -> None:
    """A line per host: processor time per task bare, what the guard adds, and what that costs in throughput."""
    work = one_ms()
    head = f"{'host':8} {'bare':>9} {'added':>8} {'quartiles':>16} {'loss':>7} {'of 1 ms':>8}"
    print(f"{head}   {pairs} pairs of {tasks}")
    for host in hosts:
        bare, added = zip(*measured(host, url, work, tasks, pairs), strict=True)
        low, middle, high = statistics.quantiles(added, n=4)
        whole = statistics.median(bare)
        print(
            f"{host:8} {whole:6.0f} µs {middle:5.1f} µs {low:6.1f} … {high:4.1f} µs {middle / (whole + middle):7.2%}"
            f" {middle / 1000:8.2%}",
            flush=True,
        )


def one_ms() -> int:
    """So many steps that a task takes 1 ms of a processor."""

    def took(count: int) -> float:
        began = time.thread_time()
        for _ in range(100):
            sum(range(count))
        return (time.thread_time() - began) / 100

    return int(10_000 * 0.001 / statistics.median(took(10_000) for _ in range(9)))


def measured(host: str, url: str, work: int, tasks: int, pairs: int) -> Iterator[tuple[float, float]]:
    """Microseconds of a processor per task, bare and added, by pairs of blocks in alternating order."""
    redis.Redis.from_url(url).flushdb()
    os.environ.update(BENCH_KIND=host, BENCH_REDIS=url, BENCH_WORK=str(work))
    with worker(host) as pid:
        control = Requests() if host == "asgi" else Tasks(url)
        control.run(tasks)  # imports, caches
        for pair in range(pairs):
            took = {}
            for on in (True, False) if pair % 2 else (False, True):
                control.turn(on)
                control.run(tasks)  # begun anew: not what it takes for long
                began = processor_s(pid)
                control.run(tasks)
                took[on] = (processor_s(pid) - began) / tasks * 1e6
            yield took[False], took[True] - took[False]


@contextmanager
def worker(host: str) -> Iterator[int]:
    """A worker under ``flatwater guard``; gives the pid of the guard."""
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
            yield process.pid
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait()


class Tasks:
    """Calls tasks and waits for their end."""

    def __init__(self, url: str) -> None:
        sys.modules.pop("guard_host", None)
        self._host: ModuleType = __import__("guard_host")
        self._redis = redis.Redis.from_url(url)

    def turn(self, on: bool) -> None:
        self._host.set_guard(on)
        self._wait()

    def run(self, count: int) -> None:
        for _ in range(count):
            self._host.one_ms()
        self._host.say("done")
        self._wait()

    def _wait(self) -> None:
        if self._redis.blpop(["told"], 120) is None:
            sys.exit("the worker does not answer")


class Requests:
    """Asks over connections that are kept open, each as soon as it has been answered."""

    def __init__(self) -> None:
        deadline = time.monotonic() + 60
        while True:
            try:
                self._connections = [socket.create_connection(("127.0.0.1", PORT)) for _ in range(CONNECTIONS)]
                return
            except ConnectionRefusedError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.1)

    def turn(self, on: bool) -> None:
        ask(self._connections[0], f"/switch/{on:d}")

    def run(self, count: int) -> None:
        def many(connection: socket.socket) -> None:
            for number in range(count // CONNECTIONS):
                ask(connection, f"/work/{number}")

        threads = [threading.Thread(target=many, args=(connection,)) for connection in self._connections]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()


def ask(connection: socket.socket, path: str) -> None:
    connection.sendall(f"GET {path} HTTP/1.1\r\nhost: 127.0.0.1\r\n\r\n".encode())
    answer = b""
    while not answer.endswith(b"\r\n\r\ndone"):
        part = connection.recv(4096)
        if not part:
            sys.exit(f"no answer: {answer!r}")
        answer += part


def processor_s(guard: int) -> float:
    """What the processes of a worker have used of a processor, its guard left out."""
    from flatwater.guard.instance import tree

    files = (file for pid in tree(guard)[1:] for file in Path(f"/proc/{pid}/task").glob("*/schedstat"))
    return sum(int(file.read_text().split()[0]) for file in files) / 1e9
