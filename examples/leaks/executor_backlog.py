"""More work than a thread pool can do: its queue has no bound. Repaired: a semaphore makes the producer wait."""

import threading
import time
from concurrent.futures import Future, ThreadPoolExecutor

from stage import Stage


class Labels:
    def __init__(self) -> None:
        self.pool = ThreadPoolExecutor(max_workers=2, thread_name_prefix="labels")
        self.printed = 0

    def print_label(self, text: str) -> None:
        time.sleep(0.1)
        self.printed += bool(text)

    def order(self, number: int) -> "Future[None]":
        text = f"pallet {number} for place {number} " * 40
        return self.pool.submit(self.print_label, text)  # allocated here, inserted here


class RepairedLabels(Labels):
    def __init__(self) -> None:
        super().__init__()
        self.room = threading.Semaphore(10)

    def order(self, number: int) -> "Future[None]":
        self.room.acquire()
        done = super().order(number)
        done.add_done_callback(lambda _: self.room.release())
        return done


def main() -> None:
    stage = Stage(__doc__, rate=400)
    labels = RepairedLabels() if stage.repaired else Labels()
    for number in stage.orders():
        labels.order(number)
    labels.pool.shutdown(wait=True, cancel_futures=True)


if __name__ == "__main__":
    main()
