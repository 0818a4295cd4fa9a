"""What the always-on sampler of allocations costs a busy program: ``python benchmarks/sampler.py [--seconds 30]``.

Blocks of the same work run with the sampler and without it, in turn, in one process, as in ``benchmarks/agent.py``; so
each pair gives a ratio of the processor time. Printed are the median and its 95 % interval for work of several kinds,
the same for blocks that are both bare (what the method itself cannot tell apart), and the memory that the sampler
takes.
"""

from __future__ import annotations

import argparse
import gc
import json
import time
from collections.abc import Callable

from agent import calibrated, interval, measured
from flatwater.memory import sampler
from flatwater.memory.usage import usage

TARGET = 1.05


class Order:
    def __init__(self, number: int) -> None:
        self.number = number
        self.lines = [number, number + 1]


def objects(rounds: int) -> None:
    """Dicts and texts, kept for a while."""
    kept: list[dict[str, str]] = []
    for number in range(rounds):
        kept.append({"number": str(number), "text": f"order {number % 7}"})
        if len(kept) > 500:
            kept.clear()


def instances(rounds: int) -> None:
    """Instances of a class with lists, kept in a dict by their number."""
    kept: dict[int, Order] = {}
    for number in range(rounds):
        kept[number % 500] = Order(number)


def documents(rounds: int) -> None:
    """JSON read and written."""
    text = json.dumps([{"id": number, "name": f"site {number}", "tags": ["a", "b"]} for number in range(20)])
    for _ in range(rounds // 20 + 1):
        json.dumps(json.loads(text))


def allocations(rounds: int) -> None:
    """Nothing but the allocator, the worst there is."""
    for _ in range(rounds):
        bytes(600)
        bytes(60)


WORK: tuple[Callable[[int], None], ...] = (objects, instances, documents, allocations)


def block(work: Callable[[int], None], rounds: int, sampled: bool) -> float:
    """Seconds of the processor. The sampler starts before each block, and before a bare one it ends again."""
    sampler.start()
    if not sampled:
        sampler.stop()
    work(rounds // 4)
    began = time.process_time()
    work(rounds)
    took = time.process_time() - began
    sampler.stop()
    return took


def ratios(work: Callable[[int], None], seconds: float, sampled: bool) -> list[float]:
    rounds = calibrated(work)
    return measured(seconds, lambda second: block(work, rounds, sampled and second))


def memory() -> int:
    """Bytes that a full sampler makes resident: the work's own blocks are there before."""
    kept = [bytes(700) for _ in range(200_000)]
    before = usage(shares=False).memory.rss
    sampler.start(1024)
    for number in range(len(kept)):
        kept[number] = bytes(700)
    found = usage(shares=False).memory.rss - before
    sampler.stop()
    return max(0, found)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=30.0, help="for each comparison")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    gc.disable()  # a collection more or less would be a percent of a block; the work leaves no cycles
    found = {"bare to bare": interval(ratios(objects, options.seconds, sampled=False))}
    for work in WORK:
        found[f"sampled to bare: {work.__name__}"] = interval(ratios(work, options.seconds, sampled=True))
    if options.json:
        print(json.dumps(found))
        return
    for name, (middle, low, high) in found.items():
        print(f"{name:<28} {middle:.3f} ({low:.3f} to {high:.3f}, 95 %)")
    print(f"memory of a full sampler     {memory() / 2**20:.1f} MiB")
    print(f"target: below {TARGET:.2f}")


if __name__ == "__main__":
    main()
