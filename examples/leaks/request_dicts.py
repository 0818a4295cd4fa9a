"""Requests for storage places that are kept when they are done (task server, S1.9).

``StorageQueueManager`` moves a request from ``pending_requests`` over ``processing_requests`` to
``completed_requests``, where the caller may look up the result. Nobody takes them out. Repaired: the one who asked
takes the result with it.
"""

import asyncio
from dataclasses import dataclass, field

from stage import Stage


@dataclass
class StorageRequest:
    request_id: str
    map_id: str
    filters: dict[str, str]
    result: list[str] = field(default_factory=list)


class StorageQueueManager:
    def __init__(self) -> None:
        self.pending_requests: dict[str, StorageRequest] = {}
        self.processing_requests: dict[str, StorageRequest] = {}
        self.completed_requests: dict[str, StorageRequest] = {}

    def submit_request(self, number: int) -> str:
        filters = {f"attribute {key}": f"value {number}" for key in range(8)}
        request = StorageRequest(f"request-{number}", "hall", filters)  # allocated here
        self.pending_requests[request.request_id] = request
        return request.request_id

    async def process(self, request_id: str) -> None:
        request = self.processing_requests[request_id] = self.pending_requests.pop(request_id)
        await asyncio.sleep(0)
        request.result = [f"site {request_id} {site}" for site in range(5)]
        self.completed_requests[request_id] = self.processing_requests.pop(request_id)  # inserted here

    def wait_for_result(self, request_id: str) -> list[str]:
        return self.completed_requests[request_id].result


class RepairedStorageQueueManager(StorageQueueManager):
    def wait_for_result(self, request_id: str) -> list[str]:
        return self.completed_requests.pop(request_id).result


async def work(manager: StorageQueueManager, stage: Stage) -> None:
    async for number in stage.aorders():
        request_id = manager.submit_request(number)
        await manager.process(request_id)
        manager.wait_for_result(request_id)


storage_stage = Stage(__doc__, rate=300)
storage_queue_manager = RepairedStorageQueueManager() if storage_stage.repaired else StorageQueueManager()

if __name__ == "__main__":
    asyncio.run(work(storage_queue_manager, storage_stage))
