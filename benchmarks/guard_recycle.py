"""Recycling under load: see ``guard.py``."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import redis

from flatwater.guard.flight import started
from flatwater.guard.instance import tree

INFERIORS = Path(__file__).parents[1] / "tests" / "guard"
ROOM_MIB = 40  # what a worker may grow by before it is recycled
BASE_MIB = {"huey": 50, "prefork": 20, "threads": 65}  # before it grows; of a forked child what is its own
PLACES = 2  # consumers of Huey, and workers of Celery with threads, under one guard; a prefork pool is one
PATIENCE_S = 3600


def recycle(url: str, beside: str, host: str, tasks: int, recycles: int, workers: int, task_s: float) -> None:
    """Guarded workers with tasks that grow, and beside them as many bare ones with tasks that do not.

    Both at the same time, so that whatever else the machine does slows down both.
    """
    bare, guarded = Run(beside, host, workers, guarded=False), Run(url, host, workers, guarded=True)
    try:
        bare.start(tasks * 6 // 5, 0, task_s)
        guarded.start(tasks, max(ROOM_MIB * 1024 * recycles // tasks, 4), task_s)
        window = until(guarded, bare, tasks)
    finally:
        bare.stop()
        guarded.stop()
    counts = Counter(guarded.numbers())
    twice = sum(count > 1 for count in counts.values())
    print(f"{host}: {len(counts):,} of {tasks:,} tasks ended, {twice} of them twice; {guarded.left()} recycles")
    of_guarded, of_bare = (last - first for first, last in zip(*window[1:], strict=True))
    print(
        f"  {workers} workers, tasks of {task_s:g} s, in {window[0]:.0f} s: {of_guarded:,} guarded, {of_bare:,} bare;"
        f" loss {1 - of_guarded / of_bare:.2%}"
    )
    spread = ", ".join(f"{living}: {share:.2%}" for living, share in guarded.living())
    print(f"  workers ready for tasks, share of {sum(guarded.seen.values()):,} looks: {spread}", flush=True)


def until(guarded: Run, bare: Run, tasks: int) -> tuple[float, tuple[int, int], tuple[int, int]]:
    """Seconds, and how many tasks of both had ended at their begin and end: nearly the whole run."""
    began, window = time.monotonic(), None
    while guarded.ended < tasks:
        for run in (guarded, bare):
            run.look()
        now = time.monotonic()
        if window is None and min(guarded.ended, bare.ended) > tasks // 100:
            window = now, (guarded.ended, bare.ended)
        if window is not None and tasks - guarded.ended > 20 * guarded.workers:
            guarded.count_ready()
            last = now, (guarded.ended, bare.ended)
        if now - began > PATIENCE_S:
            sys.exit("not finished")
        time.sleep(0.02)
    assert window is not None
    return last[0] - window[0], window[1], last[1]


class Run:
    """Real workers over a queue that was filled before."""

    def __init__(self, url: str, host: str, workers: int, *, guarded: bool) -> None:
        self._url, self._host, self.workers, self._guarded = url, host, workers, guarded
        self._folder = Path(tempfile.mkdtemp(prefix="flatwater-bench-"))
        self._done, self._log = self._folder / "done", self._folder / "log"
        self._processes: list[subprocess.Popen[bytes]] = []
        self.ended = 0
        self.seen: Counter[int] = Counter()

    def start(self, tasks: int, kib: int, task_s: float) -> None:
        environment = {
            **os.environ, "INFERIOR_STORAGE": self._url, "INFERIOR_BROKER": self._url, "INFERIOR_BACKEND": self._url,
            "INFERIOR_DONE": str(self._done), "TMPDIR": str(self._folder),
            "PYTHONPATH": os.pathsep.join([str(INFERIORS), os.environ.get("PYTHONPATH", "")]),
            ("INFERIOR_SOFT" if self._guarded else "INFERIOR_BARE"): str(BASE_MIB[self._host] + ROOM_MIB),
        }  # fmt: skip
        redis.Redis.from_url(self._url).flushdb()
        module, call = ("huey_inferior", "grow") if self._host == "huey" else ("celery_inferior", "grow.delay")
        program = f"import {module} as m\nfor n in range({tasks}): m.{call}(n, {kib}, {task_s})"
        subprocess.run([sys.executable, "-c", program], env={**environment, "INFERIOR_BARE": "1"}, check=True)
        self._done.touch()
        self._lines = self._done.open()
        with self._log.open("wb") as log:
            for command in self._commands():
                self._processes.append(subprocess.Popen(command, env=environment, stdout=log, stderr=log))

    def look(self) -> None:
        self.ended += self._lines.read().count("\n")
        if any(process.poll() is not None for process in self._processes):
            sys.exit(f"ended too early: {self._log}")

    def stop(self) -> None:
        for process in self._processes:
            process.send_signal(signal.SIGTERM)
        for process in self._processes:
            process.wait()

    def count_ready(self) -> None:
        """Processes that wait for tasks or run them: each has a file of its tasks in flight."""
        flights = [path.name.split("-")[1:] for path in self._folder.glob("flatwater-guard-*/flight-*")]
        ready = {int(pid) for pid, start in flights if started(int(pid)) == start}
        if self._host == "prefork":
            ready -= set(tree(self._processes[0].pid)[1:2])  # the parent of the pool
        self.seen[len(ready)] += 1

    def numbers(self) -> list[int]:
        return [int(line.split()[0]) for line in self._done.read_text().splitlines()]

    def left(self) -> int:
        return self._log.read_text("utf-8", "replace").count("above the soft limit")

    def living(self) -> list[tuple[int, float]]:
        return [(living, count / sum(self.seen.values())) for living, count in sorted(self.seen.items())]

    def _commands(self) -> list[list[str]]:
        """One guard over all workers; or the workers alone, as many."""
        places = 1 if self._host == "prefork" else PLACES
        inside = str(self.workers // places)
        if self._host == "huey":
            words = ["-m", "huey.bin.huey_consumer", "huey_inferior.huey", "-w", inside, "-d", "0.01", "-q"]
        else:
            words = ["-m", "celery", "-A", "celery_inferior", "worker", "-P", self._host, "-c", inside]
            words += ["-l", "WARNING", "--without-gossip", "--without-mingle", "--without-heartbeat"]
        if not self._guarded:
            return [[sys.executable, *words]] * places
        guard = [sys.executable, "-m", "flatwater.cli", "guard", "--record", str(self._folder / "guard.db")]
        return [[*guard, "-n", str(places), "--overlap", "--", sys.executable, *words]]
