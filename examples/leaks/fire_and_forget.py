"""Background tasks in a set that is never discarded from (gateway, S2.1).

``ProblematicGateway`` starts a task behind each request and adds it to ``background_tasks`` so that it is not
collected too early, and there it stays: 10,000 finished tasks, each with its coroutine's result. Repaired: a done
callback discards it.
"""

import asyncio

from stage import Stage


class ProblematicGateway:
    def __init__(self) -> None:
        self.background_tasks: set[asyncio.Task[dict[str, object]]] = set()

    async def handle_request(self, service_name: str, number: int) -> None:
        task = asyncio.create_task(self.process_async(service_name, number))  # allocated here
        self.background_tasks.add(task)  # inserted here

    async def process_async(self, service_name: str, number: int) -> dict[str, object]:
        await asyncio.sleep(0.05)
        return {"service": service_name, "number": number, "lines": [f"line {number}.{line}" for line in range(20)]}


class ImprovedGateway(ProblematicGateway):
    async def handle_request(self, service_name: str, number: int) -> None:
        task = asyncio.create_task(self.process_async(service_name, number))
        self.background_tasks.add(task)
        task.add_done_callback(self.background_tasks.discard)


async def serve(stage: Stage) -> None:
    gateway = ImprovedGateway() if stage.repaired else ProblematicGateway()
    async for number in stage.aorders():
        await gateway.handle_request(f"service-{number % 5}", number)


if __name__ == "__main__":
    asyncio.run(serve(Stage(__doc__, rate=300)))
