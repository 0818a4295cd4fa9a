"""A loop that makes a new request in each pass until a place is free (task server, S1.10).

``GetIdleSiteBp`` asks again and again, each time with a new request, and each request that was not served stays in the
queue manager. No place ever comes free, so the loop never ends. Repaired: one request for the whole wait.
"""

import asyncio

from stage import STEP_S, Stage


class StorageRequest:
    def __init__(self, block: str, attempt: int) -> None:
        self.request_id = f"{block}#{attempt}"
        self.attempt = attempt
        self.conditions = [f"condition {number} of {self.request_id}" for number in range(6)]


class StorageQueueManager:
    def __init__(self) -> None:
        self.unserved: list[StorageRequest] = []

    def submit_request(self, request: StorageRequest) -> None:
        self.unserved.append(request)  # inserted here

    async def wait_for_result(self, request: StorageRequest) -> str | None:
        await asyncio.sleep(0)
        return None if request.attempt >= 0 else "IN-1"


class GetIdleSite:
    def __init__(self, manager: StorageQueueManager, retry_period_s: float) -> None:
        self.manager = manager
        self.retry_period_s = retry_period_s

    async def execute(self, block: str) -> None:
        attempt = 0
        while True:
            request = StorageRequest(block, attempt)  # allocated here
            self.manager.submit_request(request)
            if await self.manager.wait_for_result(request):
                return
            attempt += 1
            await asyncio.sleep(self.retry_period_s)


class RepairedGetIdleSite(GetIdleSite):
    async def execute(self, block: str) -> None:
        request = StorageRequest(block, 0)
        self.manager.submit_request(request)
        while not await self.manager.wait_for_result(request):
            await asyncio.sleep(self.retry_period_s)


async def work(stage: Stage) -> None:
    handler = (RepairedGetIdleSite if stage.repaired else GetIdleSite)(StorageQueueManager(), STEP_S)
    blocks = max(1, round(stage.rate * STEP_S))
    async with asyncio.timeout(min(stage.seconds, 1e6)), asyncio.TaskGroup() as group:
        stage.ready()
        for number in range(blocks):
            group.create_task(handler.execute(f"block-{number}"))
        await asyncio.Event().wait()


if __name__ == "__main__":
    try:
        asyncio.run(work(Stage(__doc__, rate=400)))
    except TimeoutError:
        print("its seconds are over")
