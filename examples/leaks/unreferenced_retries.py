"""Delayed retries as tasks that nobody holds (task server, S1.3).

Each failed task makes another task that sleeps until the retry is due, with all that the retry needs. Nobody has a
reference to it; the timers of the event loop hold it for an hour. Repaired: a retry is a small record with a due time
in a heap of limited size, worked off by one task.
"""

import asyncio
import heapq
import time

from stage import Stage

RETRY_DELAY_S = 3600.0
MAX_RETRIES = 100


class TaskScheduler:
    def __init__(self) -> None:
        self.retried = 0

    async def run_task(self, number: int) -> None:
        task_record = {"id": number, "input": [f"order {number} line {line}" for line in range(10)]}
        self.handle_error(task_record)

    def handle_error(self, task_record: dict[str, object]) -> None:
        asyncio.create_task(self.delayed_retry(task_record, RETRY_DELAY_S))  # noqa: RUF006 - nobody holds it

    async def delayed_retry(self, task_record: dict[str, object], delay_s: float) -> None:
        await asyncio.sleep(delay_s)  # allocated here, inserted here
        self.retried += len(task_record)


class RepairedTaskScheduler(TaskScheduler):
    def __init__(self) -> None:
        super().__init__()
        self.due: list[tuple[float, int]] = []

    def handle_error(self, task_record: dict[str, object]) -> None:
        if len(self.due) < MAX_RETRIES:  # a task that finds no room has failed
            heapq.heappush(self.due, (time.monotonic() + RETRY_DELAY_S, hash(task_record["id"])))


async def work(stage: Stage) -> None:
    scheduler = RepairedTaskScheduler() if stage.repaired else TaskScheduler()
    async for number in stage.aorders():
        await scheduler.run_task(number)


if __name__ == "__main__":
    asyncio.run(work(Stage(__doc__, rate=250)))
