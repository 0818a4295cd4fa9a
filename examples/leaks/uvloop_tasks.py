"""Tasks under uvloop that wait for answers that never come: C holders on the whole way.

Each question is a future in a dictionary by its number, with a task that waits for it; a robot that is switched off
never answers. Repaired: the wait has a timeout, after which the question is dropped.
"""

import asyncio

import uvloop
from stage import Stage


class RobotLink:
    def __init__(self) -> None:
        self.open_questions: dict[int, asyncio.Future[str]] = {}
        self.tasks: set[asyncio.Task[None]] = set()

    async def ask(self, number: int) -> None:
        text = f"where are you, robot {number}? " * 20
        answer: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self.open_questions[number] = answer
        await answer
        del text

    def send(self, number: int) -> None:
        task = asyncio.create_task(self.ask(number))  # allocated here
        self.tasks.add(task)  # inserted here
        task.add_done_callback(self.tasks.discard)


class RepairedRobotLink(RobotLink):
    async def ask(self, number: int) -> None:
        try:
            await asyncio.wait_for(super().ask(number), timeout=0.2)
        except TimeoutError:
            pass
        finally:
            self.open_questions.pop(number, None)


async def serve(stage: Stage) -> None:
    link = RepairedRobotLink() if stage.repaired else RobotLink()
    async for number in stage.aorders():
        link.send(number)


if __name__ == "__main__":
    uvloop.run(serve(Stage(__doc__, rate=300)))
