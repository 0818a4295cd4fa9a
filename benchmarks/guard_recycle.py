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


def recycle(url: str, host: str, tasks: int, recycles: int, workers: int, task_s: float) -> None:
    """All tasks guarded and growing; before and after them a tenth of them bare and without growth."""
    bare = [Run(url, host, workers, guarded=False) for _ in range(2)]
    guarded = Run(url, host, workers, guarded=True)
    bare[0].go(max(tasks // 10, 1), 0, task_s)
    guarded.go(tasks, max(ROOM_MIB * 1024 * recycles // tasks, 4), task_s)
    bare[1].go(max(tasks // 10, 1), 0, task_s)
    counts = Counter(guarded.numbers())
    twice = sum(count > 1 for count in counts.values())
    print(f"{host}: {len(counts):,} of {tasks:,} tasks ended, {twice} of them twice; {guarded.left()} recycles")
    before, after = (run.per_s for run in bare)
    loss = 1 - guarded.per_s / ((before + after) / 2)
    print(f"  guarded {guarded.per_s:.2f}/s, bare {before:.2f}/s before and {after:.2f}/s after it: loss {loss:.2%}")
    print(f"  {workers} workers, tasks of {task_s:g} s")
    spread = ", ".join(f"{living}: {share:.2%}" for living, share in guarded.living())
    print(f"  workers ready for tasks, share of {sum(guarded.seen.values()):,} looks: {spread}", flush=True)


class Run:
    """One run of a real worker over a queue that was filled before."""

    def __init__(self, url: str, host: str, workers: int, *, guarded: bool) -> None:
        self._url, self._host, self._workers, self._guarded = url, host, workers, guarded
        self._folder = Path(tempfile.mkdtemp(prefix="flatwater-bench-"))
        self._done, self._log = self._folder / "done", self._folder / "log"
        self.per_s = 0.0
        self.seen: Counter[int] = Counter()

    def go(self, tasks: int, kib: int, task_s: float) -> None:
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
        with self._log.open("wb") as log:
            processes = [
                subprocess.Popen(command, env=environment, stdout=log, stderr=log) for command in self._commands()
            ]
        try:
            self._watch(processes, tasks)
        finally:
            for process in processes:
                process.send_signal(signal.SIGTERM)
            for process in processes:
                process.wait()

    def numbers(self) -> list[int]:
        return [int(line.split()[0]) for line in self._done.read_text().splitlines()]

    def left(self) -> int:
        return self._log.read_text("utf-8", "replace").count("above the soft limit")

    def living(self) -> list[tuple[int, float]]:
        return [(living, count / sum(self.seen.values())) for living, count in sorted(self.seen.items())]

    def _commands(self) -> list[list[str]]:
        """One guard over all workers; or the workers alone, as many."""
        places = 1 if self._host == "prefork" else PLACES
        inside = str(self._workers // places)
        if self._host == "huey":
            words = ["-m", "huey.bin.huey_consumer", "huey_inferior.huey", "-w", inside, "-d", "0.01", "-q"]
        else:
            words = ["-m", "celery", "-A", "celery_inferior", "worker", "-P", self._host, "-c", inside]
            words += ["-l", "WARNING", "--without-gossip", "--without-mingle", "--without-heartbeat"]
        if not self._guarded:
            return [[sys.executable, *words]] * places
        guard = [sys.executable, "-m", "flatwater.cli", "guard", "--record", str(self._folder / "guard.db")]
        return [[*guard, "-n", str(places), "--overlap", "--", sys.executable, *words]]

    def _watch(self, processes: list[subprocess.Popen[bytes]], tasks: int) -> None:
        """Until all tasks have ended; fifty looks a second at how many workers are ready."""
        first, began, ended = 0.0, time.monotonic(), 0
        self._done.touch()
        with self._done.open() as lines:
            while ended < tasks:
                ended += lines.read().count("\n")
                if ended and not first:
                    first, at_first = time.monotonic(), ended
                if self._guarded and ended > tasks // 100 and tasks - ended > 8 * self._workers:
                    self.seen[self._ready(processes[0].pid)] += 1
                time.sleep(0.02)
                if any(process.poll() is not None for process in processes) or time.monotonic() - began > PATIENCE_S:
                    sys.exit(f"not finished: {self._log}")
        self.per_s = (tasks - at_first) / (time.monotonic() - first)

    def _ready(self, guard: int) -> int:
        """Processes that wait for tasks or run them: each has a file of its tasks in flight."""
        flights = [path.name.split("-")[1:] for path in self._folder.glob("flatwater-guard-*/flight-*")]
        living = {int(pid) for pid, start in flights if started(int(pid)) == start}
        return len(living - set(tree(guard)[1:2]) if self._host == "prefork" else living)
