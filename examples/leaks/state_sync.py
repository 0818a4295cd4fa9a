"""Fire-and-forget tasks that wait for another system which is slow (task server, S1.8).

``TaskStateBp`` tells another system each change of state in a task of its own. One call at a time is allowed, the
other system takes its time, and so the tasks queue up in the semaphore. Repaired: of each order only the latest
text is sent, by one task.
"""

import asyncio

from stage import Stage


class DispatchSystem:
    """The other system: it takes half a second for each text."""

    def __init__(self) -> None:
        self.one_at_a_time = asyncio.Semaphore(1)
        self.told = 0

    async def sync_description(self, order: int, text: str) -> None:
        async with self.one_at_a_time:  # allocated here, inserted here
            await asyncio.sleep(0.5)
            self.told += bool(text)


class TaskState:
    def __init__(self, system: DispatchSystem) -> None:
        self.system = system

    def set_state(self, order: int, text: str) -> None:
        asyncio.create_task(self.system.sync_description(order, text))  # noqa: RUF006 - nobody holds it


class RepairedTaskState(TaskState):
    def __init__(self, system: DispatchSystem) -> None:
        super().__init__(system)
        self.latest: dict[int, str] = {}
        self.sender: asyncio.Task[None] | None = None

    def set_state(self, order: int, text: str) -> None:
        self.latest[order] = text
        if self.sender is None:
            self.sender = asyncio.create_task(self.send())

    async def send(self) -> None:
        while self.latest:
            await self.system.sync_description(*self.latest.popitem())
        self.sender = None


async def work(stage: Stage) -> None:
    system = DispatchSystem()
    state = RepairedTaskState(system) if stage.repaired else TaskState(system)
    async for number in stage.aorders():
        state.set_state(number % 50, f"order {number % 50} is at place {number}, " + "waiting for a robot " * 40)


if __name__ == "__main__":
    asyncio.run(work(Stage(__doc__, rate=300)))
