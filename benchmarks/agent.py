"""What an agent costs a busy program while nobody asks: ``python benchmarks/agent.py [--seconds 60]``.

Blocks of the same work run without the agent and with it, in turn, in one process: between two processes the layout in
memory alone would make a difference of a percent or two. Where the agent runs a client is connected, too, and asks
nothing. Each pair of blocks (in changing order, so that a drift cancels) gives a ratio of the processor time of the
whole process, the agent's threads included; printed are the median and its 95 % interval, and the same for blocks that
are both bare: what the method itself cannot tell apart.
"""

from __future__ import annotations

import argparse
import gc
import json
import math
import socket
import statistics
import time
from collections.abc import Callable

from flatwater.memory import agent

BLOCK_S = 0.004
TARGET = 1.005


def work(rounds: int) -> int:
    """Objects, dicts and text, as programs make them."""
    kept: list[dict[str, str]] = []
    for number in range(rounds):
        kept.append({"number": str(number), "text": f"order {number % 7}"})
        if len(kept) > 500:
            kept.clear()
    return len(kept)


def calibrated(work: Callable[[int], object]) -> int:
    """Rounds of a block of some ``BLOCK_S``."""
    rounds = 1000
    while True:
        began = time.process_time()
        work(rounds)
        if (took := time.process_time() - began) > BLOCK_S / 2:
            return max(1, round(rounds * BLOCK_S / took))
        rounds *= 2


def block(rounds: int, attached: bool) -> float:
    """Seconds of the processor for the work. The agent starts before each block, and what that displaces from the
    caches is the same for both kinds; before a bare one it ends again."""
    client = socket.socket(socket.AF_UNIX)
    client.connect(agent.start().path)
    if not attached:
        client.close()
        agent.stop()
    time.sleep(0.001)  # the thread for the client is there
    work(rounds // 4)  # what the start has displaced from the caches is back
    began = time.process_time()
    work(rounds)
    took = time.process_time() - began
    if attached:
        client.close()
        agent.stop()
    return took


def measured(seconds: float, block: Callable[[bool], float]) -> list[float]:
    """The ratios of pairs: ``block(True)``, which may be bare once more, to ``block(False)``, which is bare."""
    ratios: list[float] = []
    end = time.monotonic() + seconds
    while time.monotonic() < end or len(ratios) < 10:
        order = (False, True) if len(ratios) % 2 else (True, False)
        times = {second: block(second) for second in order}
        ratios.append(times[True] / times[False])
    return ratios


def interval(ratios: list[float]) -> tuple[float, float, float]:
    """The median and its 95 % interval, by the ranks of the sorted values."""
    ranked = sorted(ratios)
    margin = 0.98 * math.sqrt(len(ranked))
    low, high = (round(len(ranked) / 2 + sign * margin) for sign in (-1, 1))
    return statistics.median(ranked), ranked[max(0, low - 1)], ranked[min(len(ranked) - 1, high)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=60.0, help="for each of the two comparisons")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    gc.disable()  # a collection more or less would be a percent of a block; the work leaves no cycles
    rounds = calibrated(work)
    block(rounds, attached=True)
    found = {
        name: (*interval(ratios), len(ratios))
        for name, ratios in (
            ("bare to bare", measured(options.seconds, lambda _: block(rounds, attached=False))),
            ("agent idle to bare", measured(options.seconds, lambda attached: block(rounds, attached))),
        )
    }
    if options.json:
        print(json.dumps(found))
        return
    for name, (middle, low, high, pairs) in found.items():
        print(f"{name:<20} {middle - 1:+.2%} (95 %: {low - 1:+.2%} to {high - 1:+.2%}; {pairs} pairs)")
    print(f"target: below {TARGET - 1:+.1%}")


if __name__ == "__main__":
    main()
