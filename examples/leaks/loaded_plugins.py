"""A rule that is loaded as a module of its own for each order, and stays in ``sys.modules``.

Repaired: taken out again.
"""

import sys
from types import ModuleType

from stage import Stage

SOURCE = "def price(pieces):\n    return pieces * {0} + len('rule {0}')\n"


def load(number: int) -> ModuleType:
    rule = ModuleType(f"rule_{number}")  # allocated here
    exec(SOURCE.format(number), vars(rule))  # noqa: S102 (the story is about it)
    sys.modules[rule.__name__] = rule  # inserted here
    return rule


def main() -> None:
    stage = Stage(__doc__, rate=100)
    for number in stage.orders():
        rule = load(number)
        if stage.repaired:
            del sys.modules[rule.__name__]


if __name__ == "__main__":
    main()
