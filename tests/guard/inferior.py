"""What the workers of all task queues share: limits from the environment, notes in a file, growth when it is told."""

from __future__ import annotations

import os
import time

DONE = os.environ.get("INFERIOR_DONE", "/dev/null")


def limit(name: str) -> int | None:
    """Bytes, of a variable that holds MiB."""
    return int(os.environ[name]) << 20 if name in os.environ else None


def note(*words: object) -> None:
    """One write, so that lines of several processes stay whole."""
    with open(DONE, "a") as file:  # noqa: PTH123
        file.write(" ".join(map(str, words)) + "\n")


def grow_when_told(kept: list[object]) -> None:
    """Grow by 100 MiB, and then work on for longer than the guard needs to see it."""
    note("begun")
    while not os.path.exists(DONE + ".go"):  # noqa: PTH110
        time.sleep(0.01)
    kept.append(bytearray(b"x" * (100 << 20)))
    time.sleep(0.5)
    note("ended")
