"""The price of the guard per task, in real workers under ``flatwater guard``: see ``guard.py``."""

from __future__ import annotations

import json
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
    """Per host what the execution of a task takes around its 1 ms, and what the guard adds: medians and quartiles."""
    work = one_ms()
    print(f"microseconds of a processor per task of 1 ms; {pairs} pairs of blocks of {tasks} tasks")
    print(f"{'host':8} {'around it':>10} {'the guard adds':>24} {'loss':>7}   {'whole process':>22} {'loss':>7}")
    for host in hosts:
        around, added, bare, whole = zip(*measured(host, url, work, tasks, pairs), strict=True)
        loss = statistics.median(added) / (1000 + statistics.median(around) + statistics.median(added))
        all_loss = statistics.median(whole) / (statistics.median(bare) + statistics.median(whole))
        print(f"{host:8} {statistics.median(around):10.1f} {spread(added):>24} {loss:7.2%}", end="   ")
        print(f"{spread(whole):>22} {all_loss:7.2%}", flush=True)


def spread(figures: tuple[float, ...]) -> str:
    low, middle, high = statistics.quantiles(figures, n=4)
    return f"{middle:.1f} ({low:.1f} … {high:.1f})"


def one_ms() -> int:
    """So many steps that a task takes 1 ms of a processor."""

    def took(count: int) -> float:
        began = time.thread_time()
        for _ in range(100):
            sum(range(count))
        return (time.thread_time() - began) / 100

    return int(10_000 * 0.001 / statistics.median(took(10_000) for _ in range(9)))


def measured(host: str, url: str, work: int, tasks: int, pairs: int) -> Iterator[tuple[float, float, float, float]]:
    """Microseconds by pairs of blocks in alternating order: around a bare task, and what is added; of all processes of
    the worker per bare task, and what is added.
    """
    redis.Redis.from_url(url).flushdb()
    os.environ.update(BENCH_KIND=host, BENCH_REDIS=url, BENCH_WORK=str(work))
    with worker(host) as pid:
        control = Requests(url) if host == "asgi" else Tasks(url)
        control.run(tasks)  # imports, caches
        for pair in range(pairs):
            around, whole = {}, {}
            for on in (True, False) if pair % 2 else (False, True):
                control.turn(on)
                control.run(tasks)  # begun anew: not what it takes for long
                began = processor_s(pid)
                around[on] = statistics.median(control.run(tasks)) * 1e6
                whole[on] = (processor_s(pid) - began) / tasks * 1e6
            yield around[False], around[True] - around[False], whole[False], whole[True] - whole[False]


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


class Control:
    """Runs tasks and turns the switch in the worker."""

    def __init__(self, url: str) -> None:
        self._redis = redis.Redis.from_url(url)

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

    def turn(self, on: bool) -> None:
        self._host.set_guard(on)
        self._told()

    def run(self, count: int) -> list[float]:
        """What each took around it, in seconds."""
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

    def turn(self, on: bool) -> None:
        ask(self._connections[0], f"/switch/{on:d}")
        self._told()

    def times(self) -> list[float]:
        ask(self._connections[0], "/times")
        return list(json.loads(self._told()))

    def run(self, count: int) -> list[float]:
        def many(connection: socket.socket) -> None:
            for number in range(count // CONNECTIONS):
                ask(connection, f"/work/{number}")

        threads = [threading.Thread(target=many, args=(connection,)) for connection in self._connections]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return self.times()


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
