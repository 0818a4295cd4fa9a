"""A priority map that is never cleaned (task server, S1.1).

``PriorityQueueManager`` notes the priority of every task that is queued, to be able to answer questions about it, and
forgets to cross it out when the task leaves the queue. Repaired: what leaves the queue leaves the map.
"""

import asyncio
import heapq
from collections import Counter

from stage import Stage


class PriorityQueueManager:
    def __init__(self) -> None:
        self.queue: list[tuple[int, str]] = []
        self.priority_map: dict[str, int] = {}
        self.priority_stats: Counter[int] = Counter()

    def enqueue(self, number: int, priority: int) -> None:
        task_id = f"task-{number:064d}"  # allocated here
        heapq.heappush(self.queue, (priority, task_id))
        self.priority_map[task_id] = priority  # inserted here
        self.priority_stats[priority] += 1

    def dequeue(self) -> str:
        return heapq.heappop(self.queue)[1]


class RepairedPriorityQueueManager(PriorityQueueManager):
    def dequeue(self) -> str:
        task_id = super().dequeue()
        del self.priority_map[task_id]
        return task_id


async def work(stage: Stage, manager: PriorityQueueManager) -> None:
    async for number in stage.aorders():
        manager.enqueue(number, priority=number % 10)
        manager.dequeue()


def main() -> None:
    stage = Stage(__doc__, rate=3000)
    manager = RepairedPriorityQueueManager() if stage.repaired else PriorityQueueManager()
    asyncio.run(work(stage, manager))


if __name__ == "__main__":
    main()
