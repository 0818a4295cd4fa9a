"""A search tree that grows at its leaves: each new entry hangs on an object that did not change for long.

Repaired: the index begins anew every thousand entries.
"""

from __future__ import annotations

import random

from stage import Stage


class Entry:
    __slots__ = ("key", "lower", "upper", "where")

    def __init__(self, key: float, number: int) -> None:
        self.key = key
        self.where = f"place {number} of the hall"
        self.lower: Entry | None = None
        self.upper: Entry | None = None


class Index:
    def __init__(self) -> None:
        self.top = Entry(0.5, 0)

    def insert(self, key: float, number: int) -> None:
        entry = self.top
        while (below := entry.lower if key < entry.key else entry.upper) is not None:
            entry = below
        added = Entry(key, number)  # allocated here
        if key < entry.key:
            entry.lower = added  # inserted here
        else:
            entry.upper = added  # inserted here


class RepairedIndex(Index):
    def insert(self, key: float, number: int) -> None:
        super().insert(key, number)
        if number % 1000 == 0:
            self.top = Entry(0.5, number)


def main() -> None:
    stage = Stage(__doc__, rate=700)
    index = RepairedIndex() if stage.repaired else Index()
    keys = random.Random(7)
    for number in stage.orders():
        index.insert(keys.random(), number)


if __name__ == "__main__":
    main()
