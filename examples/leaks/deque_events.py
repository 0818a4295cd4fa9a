"""A deque of events for subscribers that connect later, without ``maxlen``. Repaired: the last 200."""

from collections import deque

from stage import Stage


class EventStream:
    def __init__(self, max_events: int | None) -> None:
        self.backlog: deque[tuple[int, str, tuple[str, ...]]] = deque(maxlen=max_events)

    def publish(self, number: int) -> None:
        places = tuple(f"place {number}.{stop}" for stop in range(6))
        event = (number, f"robot {number % 20} moved, event {number}", places)  # allocated here
        self.backlog.append(event)  # inserted here


def main() -> None:
    stage = Stage(__doc__, rate=800)
    stream = EventStream(200 if stage.repaired else None)
    for number in stage.orders():
        stream.publish(number)


if __name__ == "__main__":
    main()
