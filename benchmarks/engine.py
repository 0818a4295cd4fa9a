"""Flatwater's engine beside its peers, on one machine in one run.

    python benchmarks/engine.py [--rounds 3] [--only runs,flows,latency,delay,growth,postgres,brokers,starts]
                                [--postgres postgresql://postgres@127.0.0.1:5432/postgres] [--redis redis://127.0.0.1:6379]

Each figure is the median over rounds in which the systems take turns; ratios are between medians.

runs, flows, latency, delay, growth: on SQLite (WAL, synchronous=FULL) beside Huey (8 threads, fsync) and DBOS (10 ms
poll). postgres: runs and flows on PostgreSQL beside DBOS. brokers: jobs per second, from the first submission until the
last job began (Flatwater in one process: until the last end is on the disk), and memory of the worker after them.
starts: from submission until the job begins, idle.

A database is made and dropped for each measurement; Redis lends an empty numbered one, which is emptied again. Peers
with a broker have a process that submits (200 at a time, each awaits its acknowledgement) and one worker (100 jobs at
a time; Celery has two children, Dramatiq eight threads). Servers keep their settings, which are printed.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, NamedTuple

import broker

HERE = Path(__file__).parent
RUNS, FLOWS, STARTS, JOBS = 5_000, 400, 300, 10_000
PEERS = "huey", "dbos", "pgqueuer", "procrastinate", "saq", "taskiq", "taskiq-redis", "dramatiq", "celery"
SECTIONS = "runs,flows,latency,delay,growth,postgres,brokers,starts"


class Side(NamedTuple):
    """One row of a comparison: which script, on what, measured how, and what a job is worth when its worker dies."""

    name: str
    script: str
    server: str
    jobs: str
    starts: str
    promise: str


FLATWATER = Side(
    "flatwater", "flatwater", "postgres", "jobs", "latency", "at least once, each block's end recorded; one process"
)
APART = "apart-jobs", "apart-latency"
SIDES = [
    FLATWATER,
    Side("flatwater, apart", "flatwater", "postgres", *APART, "the same, submitted by another process"),
    Side(
        "flatwater, bulk", "flatwater", "postgres", "bulk", "", "the same in one process; 1,000 submissions at a time"
    ),
    Side("pgqueuer", "pgqueuer", "postgres", "jobs", "latency", "at least once (heartbeat of 30 s)"),
    Side("pgqueuer, bulk", "pgqueuer", "postgres", "bulk", "", "the same; 1,000 jobs in each submission"),
    Side("procrastinate", "procrastinate", "postgres", "jobs", "latency", "a killed worker's jobs stay 'doing'"),
    Side("procrastinate, bulk", "procrastinate", "postgres", "bulk", "", "the same; 1,000 in each submission"),
    Side("saq, postgres", "saq", "postgres", "jobs", "latency", "a killed worker's jobs are swept, not run again"),
    Side("saq", "saq", "redis", "jobs", "latency", "the same; nothing survives Redis"),
    Side("taskiq stream", "taskiq", "redis", "jobs", "latency", "at least once after 10 min; not beyond Redis"),
    Side("dramatiq", "dramatiq", "redis", "jobs", "latency", "at least once after minutes; not beyond Redis"),
    Side("celery", "celery", "redis", "jobs", "latency", "at most once (acknowledged before it runs)"),
]


def peer(name: str, what: str, count: int, *url: str) -> dict[str, Any]:
    """One measurement in a process of its own; its last line is JSON."""
    with tempfile.TemporaryDirectory(prefix="flatwater-bench-") as folder:
        command = [sys.executable, str(HERE / "peers" / f"{name}_engine.py"), what, str(count), folder, *url]
        done = subprocess.run(command, capture_output=True, text=True, timeout=900, check=False)
        if done.returncode:
            raise SystemExit(f"{name} {what} failed:\n{done.stdout[-2000:]}{done.stderr[-4000:]}")
        return json.loads(done.stdout.strip().splitlines()[-1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", default=SECTIONS)
    parser.add_argument("--sides", help="of brokers and starts only these (and flatwater), by the beginnings of names")
    parser.add_argument("--postgres", default="postgresql://postgres@127.0.0.1:5432/postgres")
    parser.add_argument("--redis", default="redis://127.0.0.1:6379")
    chosen = parser.parse_args()
    only = set(chosen.only.split(","))
    for name in ("flatwater", *PEERS):
        try:
            print(f"{name} {version(name)}", end="  ")
        except PackageNotFoundError:
            raise SystemExit(f"{name} is not installed: pip install -e '.[bench]'") from None
    print(f"Python {sys.version.split()[0]}\n")
    if "runs" in only:
        compare("durable single-block runs, end to end (/s)", "runs", RUNS, chosen.rounds, {"huey": 2.5, "dbos": 15.0})
    if "flows" in only:
        compare("ten-block flows, every block recorded (/s)", "flows", FLOWS, chosen.rounds, {"dbos": 30.0})
    if "latency" in only:
        for name in ("flatwater", "huey"):
            figures = peer(name, "latency", STARTS)
            print(f"start latency, idle, {name}: p50 {figures['p50_ms']:.2f} ms, p99 {figures['p99_ms']:.2f} ms")
    if "delay" in only:
        for name in ("flatwater", "huey"):
            print(f"a 2 s delay lasts, {name}: {peer(name, 'delay', 5)['seconds']:.3f} s")
    if "growth" in only:
        growth()
    if only & {"postgres", "brokers", "starts"}:
        on_servers(only, chosen)


def on_servers(only: set[str], chosen: argparse.Namespace) -> None:
    """The sections that need servers; of those that do not answer it is said, and nothing is measured."""
    places: dict[str, Callable[[], AbstractContextManager[str]]] = {}
    for name, tell, place, url in (
        ("postgres", broker.describe_postgres, broker.postgres, chosen.postgres),
        ("redis", broker.describe_redis, broker.redis_database, chosen.redis),
    ):
        try:
            print(tell(url))
        except broker.Absent as absent:
            print(f"not measured, no answer: {absent}")
        else:
            places[name] = partial(place, url)
    if "postgres" not in places:
        return
    rounds, place = chosen.rounds, places["postgres"]
    if "postgres" in only:
        target = {"dbos": 15.0}
        compare("PostgreSQL: durable single-block runs, end to end (/s)", "runs", RUNS, rounds, target, place)
        compare("PostgreSQL: ten-block flows, every block recorded (/s)", "flows", FLOWS, rounds, {"dbos": 30.0}, place)
    wanted = tuple(chosen.sides.split(",")) if chosen.sides else ("",)
    sides = [side for side in SIDES if side.server in places and (side is FLATWATER or side.name.startswith(wanted))]
    if "brokers" in only:
        show_jobs(sides, take_turns(sides, "jobs", JOBS, rounds, places))
    if "starts" in only:
        sides = [side for side in sides if side.starts]
        show_starts(sides, take_turns(sides, "starts", STARTS, rounds, places))


def take_turns(
    sides: list[Side], what: str, count: int, rounds: int, places: dict[str, Callable[[], AbstractContextManager[str]]]
) -> dict[str, list[dict[str, float]]]:
    """Figures by side, a round of all sides after the other, each on an empty database."""
    found: dict[str, list[dict[str, float]]] = {side.name: [] for side in sides}
    for _ in range(rounds):
        for side in sides:
            with places[side.server]() as url:
                found[side.name].append(peer(side.script, getattr(side, what), count, url))
    return found


def show_jobs(sides: list[Side], found: dict[str, list[dict[str, float]]]) -> None:
    print(f"\n{JOBS} empty jobs, end to end, and the worker after them: RSS of its largest process, PSS of all")
    ours = statistics.median(each["rate"] for each in found[FLATWATER.name])
    for side in sides:
        rates = [each["rate"] for each in found[side.name]]
        rate = statistics.median(rates)
        rss, pss = (statistics.median(each[key] for each in found[side.name]) for key in ("rss_mb", "pss_mb"))
        print(
            f"  {side.name:20} {side.server:8} {rate:7.0f} /s ({min(rates):.0f} … {max(rates):.0f})"
            f"   ratio {ours / rate:5.2f}   {rss:4.0f} / {pss:4.0f} MB   {side.promise}"
        )


def show_starts(sides: list[Side], found: dict[str, list[dict[str, float]]]) -> None:
    print(f"\nfrom submission until the job begins, idle, {STARTS} times: p50 / p99 ms")
    middle = {
        side.name: [statistics.median(each[key] for each in found[side.name]) for key in ("p50_ms", "p99_ms")]
        for side in sides
    }
    for side in sides:
        (p50, p99), ours = middle[side.name], middle[FLATWATER.name]
        ratios = f"{p50 / ours[0]:5.2f} / {p99 / ours[1]:.2f}"
        print(f"  {side.name:20} {side.server:8} {p50:7.2f} / {p99:7.2f}   ratio {ratios}")


def compare(
    title: str,
    what: str,
    count: int,
    rounds: int,
    peers: dict[str, float],
    place: Callable[[], AbstractContextManager[str | None]] = nullcontext,
) -> None:
    samples: dict[str, list[float]] = {name: [] for name in ("flatwater", *peers)}
    for _ in range(rounds):
        for name in samples:
            share = count if name != "dbos" else count // 10
            with place() as url:
                samples[name].append(peer(name, what, share, *([url] if url else []))["rate"])
    medians = {name: statistics.median(values) for name, values in samples.items()}
    print(title)
    for name, value in medians.items():
        ratio = "" if name == "flatwater" else f"   ratio {medians['flatwater'] / value:6.1f} (target {peers[name]:g})"
        print(f"  {name:10} {value:10.0f}{ratio}")


def growth() -> None:
    figures = peer("flatwater", "growth", 1_000_000)
    print(f"cost per run at 1,000 / 1,000,000 stored runs: {figures['small_us']:.0f} / {figures['large_us']:.0f} µs,")
    print(f"  ratio {figures['large_us'] / figures['small_us']:.2f} (target 0.8 … 1.2)")


if __name__ == "__main__":
    main()
