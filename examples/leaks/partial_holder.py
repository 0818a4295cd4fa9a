"""A journal that only a ``functools.partial`` holds, registered as the callback of a driver.

Repaired: a bounded deque.
"""

import functools
from collections import deque
from collections.abc import Callable, MutableSequence

from stage import Stage

Message = dict[str, str]


def note_message(journal: MutableSequence[Message], number: int) -> None:
    text = f"battery at {number % 100} %, position {number}" * 3
    message = {"from": f"robot {number}", "text": text}  # allocated here
    journal.append(message)  # inserted here


class Driver:
    def __init__(self) -> None:
        self.on_message: Callable[[int], None] | None = None

    def receive(self, number: int) -> None:
        if self.on_message:
            self.on_message(number)


def main() -> None:
    stage = Stage(__doc__, rate=900)
    driver = Driver()
    driver.on_message = functools.partial(note_message, deque(maxlen=200) if stage.repaired else [])
    for number in stage.orders():
        driver.receive(number)


if __name__ == "__main__":
    main()
