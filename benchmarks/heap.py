"""The heap walker beside its peers: time, and how long the process stands still, measured from inside it.

    python benchmarks/heap.py [--objects 1 5 10] [--repeat 3] [--only flatwater ...]

Every measurement is a process of its own that builds a heap of so many million objects, starts a thread that looks at
the clock every half millisecond, runs one tool once, and reports the tool's time, the longest silence of the clock and
the growth of the peak RSS. A tool that took longer than 20 s is not repeated; one that does not end in 10 minutes is
given up. Medians are shown, with the factor to `gc.collect()` on the same heap.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import random
import resource
import statistics
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

LIMIT_S = 600
SLOW_S = 20


class Record:
    """Ten objects each: itself, its dict or values, and what they hold."""

    def __init__(self, number: int) -> None:
        self.number = number + 1000
        self.name = f"record {number}"
        self.position = (number / 3, number / 7)
        self.tags = [f"tag {number % 5000}", number * 2 + 1000]


class Gateway:
    """Holds the leak."""

    def __init__(self) -> None:
        self.background_tasks: set[Any] = set()


app = Gateway()


def build(objects: int) -> list[Any]:
    rows: list[Any] = [None] * (objects // 10)
    for number in range(len(rows)):
        kind = number % 3
        if kind == 0:
            rows[number] = Record(number)
        elif kind == 1:
            rows[number] = {"id": number + 1000, "owner": Record(number)}
        else:
            rows[number] = [Record(number), (number + 2000, str(number))]
    random.Random(1).shuffle(rows)  # a heap that lived: neighbours in a container are not neighbours in memory
    app.background_tasks.update(Record(number) for number in range(10_000))
    return rows


class Clock(threading.Thread):
    """The longest time that this process did not get to look at the clock."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.longest = 0.0

    def run(self) -> None:
        last = time.perf_counter()
        while True:
            time.sleep(0.0005)
            now = time.perf_counter()
            self.longest, last = max(self.longest, now - last), now


# The tools. Each returns something to show that it did its work.


def collect(rows: list[Any]) -> Any:
    return gc.collect()


def counter(rows: list[Any]) -> Any:
    return Counter(type(item).__name__ for item in gc.get_objects()).most_common(1)


def objgraph_types(rows: list[Any]) -> Any:
    import objgraph

    return objgraph.most_common_types(1)


def objgraph_chain(rows: list[Any]) -> Any:
    import objgraph

    chain = objgraph.find_backref_chain(next(iter(app.background_tasks)), objgraph.is_proper_module, max_depth=6)
    return [type(item).__name__ for item in chain]


def pympler_summary(rows: list[Any]) -> Any:
    from pympler import muppy, summary

    return max(summary.summarize(muppy.get_objects()), key=lambda row: row[1])


def pympler_asizeof(rows: list[Any]) -> Any:
    from pympler import asizeof

    return asizeof.asizeof(rows)


def guppy_heap(rows: list[Any]) -> Any:
    from guppy import hpy

    return hpy().heap().size


def guppy_dominated(rows: list[Any]) -> Any:
    from guppy import hpy

    return hpy().iso(rows).domisize


def guppy_path(rows: list[Any]) -> Any:
    from guppy import hpy

    return str(hpy().iso(next(iter(app.background_tasks))).shpaths)[:200]


def census(scope: str) -> Callable[[list[Any]], Any]:
    def run(rows: list[Any]) -> Any:
        from flatwater.memory import heap

        return heap.census(scope).count  # type: ignore[arg-type]

    return run


def containers(rows: list[Any]) -> Any:
    from flatwater.memory import heap

    return [(row.type, row.length) for row in heap.containers(10_000)]


def graph(rows: list[Any]) -> Any:
    from flatwater.memory import heap

    with heap.graph(nice=0, timeout_s=LIMIT_S) as one:
        task = next(iter(app.background_tasks))
        figures = one.statistics()
        return {
            "path": str(one.path_to(task)),
            "retained": one.retained(rows),
            "fork": figures.pause_s,
            "objects": figures.objects,
            "per object": round(figures.graph_bytes / figures.objects, 1),
            "phases": [round(figures.walk_s, 2), round(figures.reach_s, 2), round(figures.dominate_s, 2)],
        }


def allocate(frames: int) -> Callable[[list[Any]], Any]:
    """The price of tracing while the program works: the same allocations without and with tracemalloc."""

    def nested(depth: int) -> float:
        if depth:
            return nested(depth - 1)
        start = time.perf_counter()
        for _ in range(5):
            build(100_000)
        return time.perf_counter() - start

    def run(rows: list[Any]) -> Any:
        import tracemalloc

        gc.disable()
        without = nested(25)
        tracemalloc.start(frames)
        traced = nested(25)
        return {"slower": round(traced / without, 2)}

    return run


TOOLS: dict[str, tuple[str, Callable[[list[Any]], Any]]] = {
    "gc.collect()": ("reference", collect),
    "flatwater census, tracked": ("census", census("tracked")),
    "flatwater census, containers": ("census", census("containers")),
    "flatwater census, all": ("census", census("all")),
    "flatwater containers": ("census", containers),
    "gc.get_objects() + Counter": ("census", counter),
    "objgraph types": ("census", objgraph_types),
    "pympler summary": ("census", pympler_summary),
    "guppy3 heap()": ("census", guppy_heap),
    "flatwater graph: all retained sizes, a path": ("graph", graph),
    "objgraph chain, depth 6": ("graph", objgraph_chain),
    "pympler asizeof of one list": ("graph", pympler_asizeof),
    "guppy3 domisize of one list": ("graph", guppy_dominated),
    "guppy3 shortest path": ("graph", guppy_path),
    "tracemalloc, 1 frame": ("tracing", allocate(1)),
    "tracemalloc, 10 frames": ("tracing", allocate(10)),
    "tracemalloc, 25 frames": ("tracing", allocate(25)),
}


def target(name: str, objects: int) -> None:
    """What the measured process does."""
    gc.disable()
    rows = build(objects)
    gc.collect()
    clock = Clock()
    clock.start()
    time.sleep(0.05)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    clock.longest = 0.0
    start = time.perf_counter()
    result = TOOLS[name][1](rows)
    took = time.perf_counter() - start
    time.sleep(0.02)
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - peak) / 1024
    print(json.dumps({"took": took, "pause": clock.longest, "grown": grown, "result": result}), flush=True)
    os._exit(0)  # taking the heap apart is nobody's time


def measure(name: str, objects: int, repeat: int) -> list[dict[str, Any]]:
    rounds: list[dict[str, Any]] = []
    while len(rounds) < repeat:
        command = [sys.executable, __file__, "--target", name, "--objects", str(objects)]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=LIMIT_S, check=True)
        except subprocess.TimeoutExpired:
            return rounds
        except subprocess.CalledProcessError as error:
            print(f"{name}: {error.stderr.strip().splitlines()[-1:]}", file=sys.stderr)
            return rounds
        rounds.append(json.loads(done.stdout.splitlines()[-1]))
        if rounds[-1]["took"] > SLOW_S:
            break
    return rounds


def median(rounds: list[dict[str, Any]], field: str) -> float:
    return statistics.median(row[field] for row in rounds)


def report(objects: int, repeat: int, only: list[str]) -> None:
    print(f"\n### {objects} M objects\n")
    print("| tool | time | to gc.collect() | process stands still | peak RSS of the process | runs |")
    print("|---|---|---|---|---|---|")
    collected = 0.0
    for name in TOOLS:
        if only and name != "gc.collect()" and not any(word in name for word in only):
            continue
        if TOOLS[name][0] == "tracing" and objects > 1:
            continue  # the price of an allocation does not depend on the heap
        rounds = measure(name, objects * 1_000_000, repeat)
        if not rounds:
            print(f"| {name} | not within {LIMIT_S} s | | | | 0 |", flush=True)
            continue
        took, pause = median(rounds, "took"), median(rounds, "pause")
        collected = collected or took
        slower = f"{rounds[-1]['result']['slower']} × slower" if TOOLS[name][0] == "tracing" else f"{took:.3f} s"
        print(
            f"| {name} | {slower} | {took / collected:.2f} × | {pause * 1000:,.1f} ms"
            f" | +{median(rounds, 'grown'):,.0f} MB | {len(rounds)} |",
            flush=True,
        )
        if name.startswith("flatwater graph"):
            print(f"  {rounds[-1]['result']}", file=sys.stderr, flush=True)
        elif name.startswith(("objgraph chain", "guppy3 shortest")):
            print(f"  {name}: {rounds[-1]['result']}", file=sys.stderr, flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--objects", type=int, nargs="+", default=[1], help="millions of objects")
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--only", nargs="+", default=[], help="words of the tools' names")
    parser.add_argument("--target", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.target:
        target(arguments.target, arguments.objects[0])
    print(f"Python {sys.version.split()[0]}, {os.cpu_count()} processors")
    for objects in arguments.objects:
        report(objects, arguments.repeat, arguments.only)


if __name__ == "__main__":
    main()
