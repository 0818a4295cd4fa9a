"""``atexit.register`` for each temporary export: callbacks that the interpreter's C state holds.

Repaired: unregistered.
"""

import atexit

from stage import Stage


class Export:
    def __init__(self, number: int) -> None:
        self.rows = [f"row {number}.{row}" for row in range(15)]
        atexit.register(self.close)  # allocated here, inserted here

    def close(self) -> None:
        self.rows.clear()


class RepairedExport(Export):
    def __init__(self, number: int) -> None:
        self.rows = [f"row {number}.{row}" for row in range(15)]


def main() -> None:
    stage = Stage(__doc__, rate=350)
    kind = RepairedExport if stage.repaired else Export
    for number in stage.orders():
        kind(number)


if __name__ == "__main__":
    main()
