"""Observers that subscribe with a bound method and are never unsubscribed.

Repaired: unsubscribed when the view is closed.
"""

from collections.abc import Callable

from stage import Stage

Callback = Callable[[str], None]


class Hall:
    def __init__(self) -> None:
        self.observers: dict[str, list[Callback]] = {"robots": [], "sites": []}

    def subscribe(self, subject: str, callback: Callback) -> None:
        self.observers[subject].append(callback)  # inserted here

    def unsubscribe(self, subject: str, callback: Callback) -> None:
        self.observers[subject].remove(callback)


class View:
    def __init__(self, hall: Hall, number: int) -> None:
        self.hall = hall
        self.lines = [f"view {number}, line {line}" for line in range(12)]
        hall.subscribe("robots", self.show)  # allocated here

    def show(self, text: str) -> None:
        self.lines.append(text)

    def close(self) -> None:
        self.hall.unsubscribe("robots", self.show)


def main() -> None:
    stage = Stage(__doc__, rate=500)
    hall = Hall()
    for number in stage.orders():
        view = View(hall, number)
        if stage.repaired:
            view.close()


if __name__ == "__main__":
    main()
