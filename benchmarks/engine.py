"""Flatwater's engine beside Huey (SqliteHuey) and DBOS (SQLite), on one machine in one run.

    python benchmarks/engine.py [--rounds 3] [--only runs,flows,latency,delay,growth]

Each figure is the median over rounds in which the systems take turns; ratios are between medians.
Every engine commits with fsync (SQLite WAL, synchronous=FULL). Peers run as their documentation
says, tuned where they allow it: Huey with 8 threads, DBOS with a 10 ms queue poll.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
RUNS, FLOWS, STARTS = 5_000, 400, 300


def peer(name: str, what: str, count: int) -> dict[str, Any]:
    """One measurement in a process of its own; its last line is JSON."""
    with tempfile.TemporaryDirectory(prefix="flatwater-bench-") as folder:
        command = [sys.executable, str(HERE / "peers" / f"{name}_engine.py"), what, str(count), folder]
        done = subprocess.run(command, capture_output=True, text=True, timeout=900, check=False)
        if done.returncode:
            raise SystemExit(f"{name} {what} failed:\n{done.stdout[-2000:]}{done.stderr[-4000:]}")
        return json.loads(done.stdout.strip().splitlines()[-1])


def median(name: str, what: str, count: int, rounds: int, key: str) -> float:
    return statistics.median(peer(name, what, count)[key] for _ in range(rounds))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", default="runs,flows,latency,delay,growth")
    chosen = parser.parse_args()
    only = set(chosen.only.split(","))
    for name in ("flatwater", "huey", "dbos"):
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


def compare(title: str, what: str, count: int, rounds: int, peers: dict[str, float]) -> None:
    samples: dict[str, list[float]] = {name: [] for name in ("flatwater", *peers)}
    for _ in range(rounds):
        for name in samples:
            share = count if name != "dbos" else count // 10
            samples[name].append(peer(name, what, share)["rate"])
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
