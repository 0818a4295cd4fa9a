"""What the programs of the gallery share, so that each shows little but its leak.

Options, pace, other objects around it.

Every program takes ``--seconds`` (how long it runs; for ever without), ``--rate`` (orders per second),
``--repaired`` and ``--ballast N`` (N other objects that live in the process), and prints ``ready PID`` when it has
begun.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import time
from collections.abc import AsyncIterator, Iterator

STEP_S = 0.02


class Parcel:
    """One of the other objects: what a real service holds besides its leak."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.label = f"parcel {number}"


class Stage:
    """``repaired`` says which form to run; ``orders()`` and ``aorders()`` yield 0, 1, 2 … at the rate until the end."""

    def __init__(self, story: str | None, rate: float) -> None:
        parser = argparse.ArgumentParser(description=story, formatter_class=argparse.RawDescriptionHelpFormatter)
        parser.add_argument("--seconds", type=float, default=float("inf"), help="how long it runs (default: for ever)")
        parser.add_argument("--rate", type=float, default=rate, help="orders per second (default: %(default)s)")
        parser.add_argument("--repaired", action="store_true", help="run the repaired form, which stays flat")
        parser.add_argument("--ballast", type=int, default=0, help="how many other objects live in the process")
        options = parser.parse_args()
        self.seconds: float = options.seconds
        self.rate: float = options.rate
        self.repaired: bool = options.repaired
        self.ballast = [Parcel(number) for number in range(options.ballast // 2)]  # each is two: itself and its label

    def ready(self) -> None:
        print(f"ready {os.getpid()}", flush=True)

    def orders(self) -> Iterator[int]:
        self.ready()
        begun, number = time.monotonic(), 0
        while (passed := time.monotonic() - begun) < self.seconds:
            while number < passed * self.rate:
                yield number
                number += 1
            time.sleep(STEP_S)

    async def aorders(self) -> AsyncIterator[int]:
        self.ready()
        begun, number = time.monotonic(), 0
        while (passed := time.monotonic() - begun) < self.seconds:
            while number < passed * self.rate:
                yield number
                number += 1
            await asyncio.sleep(STEP_S)
