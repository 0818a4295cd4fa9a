"""A registry of pending tasks whose removal is forgotten on the way of errors (task server, S1.2).

``TaskPersistenceManager.pending_tasks`` keeps what is needed to start a task again after a crash, some kilobytes for
each. It is removed by an explicit call that the path of success makes and the path of errors does not. Repaired: the
removal is in a ``finally``.
"""

import asyncio

from stage import Stage


class TaskPersistenceManager:
    def __init__(self) -> None:
        self.pending_tasks: dict[str, dict[str, object]] = {}

    def add_task(self, task_id: str, priority: int) -> None:
        info = {"steps": [f"{task_id}: go to place {place}" for place in range(20)]}
        self.pending_tasks[task_id] = {"priority": priority, "info": info}  # allocated here, inserted here

    def remove_task(self, task_id: str) -> None:
        self.pending_tasks.pop(task_id, None)


class TaskScheduler:
    def __init__(self, *, repaired: bool) -> None:
        self.persistence_manager = TaskPersistenceManager()
        self.errors = 0
        self.run_task = self.run_repaired if repaired else self.run_broken

    async def execute(self, number: int) -> None:
        await asyncio.sleep(0)
        if number % 2:
            raise RuntimeError("the robot does not answer")

    async def run_broken(self, number: int) -> None:
        task_id = f"task-{number}"
        self.persistence_manager.add_task(task_id, priority=number % 10)
        try:
            await self.execute(number)
        except RuntimeError:
            self.errors += 1
        else:
            self.persistence_manager.remove_task(task_id)

    async def run_repaired(self, number: int) -> None:
        task_id = f"task-{number}"
        self.persistence_manager.add_task(task_id, priority=number % 10)
        try:
            await self.execute(number)
        except RuntimeError:
            self.errors += 1
        finally:
            self.persistence_manager.remove_task(task_id)


async def work(stage: Stage) -> None:
    scheduler = TaskScheduler(repaired=stage.repaired)
    async for number in stage.aorders():
        await scheduler.run_task(number)


if __name__ == "__main__":
    stage = Stage(__doc__, rate=600)
    asyncio.run(work(stage))
