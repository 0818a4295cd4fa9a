"""A history of requests without a bound (gateway, S2.3).

After each request a record of it is appended to ``request_history``, "for the statistics". Repaired: a deque that
keeps the last 200.
"""

import asyncio
from collections import deque

from stage import Stage


class Gateway:
    request_history: list[dict[str, object]] | deque[dict[str, object]]

    def __init__(self, *, repaired: bool) -> None:
        self.request_history = deque(maxlen=200) if repaired else []

    async def handle_request(self, service: str, number: int) -> dict[str, object]:
        data = {"order": number, "lines": [f"{number}: article {line}" for line in range(8)]}
        result = {"stored": True, "place": f"BUF-{number}"}
        now = asyncio.get_running_loop().time()
        record = {"timestamp": now, "service": service, "data": data, "result": result}  # allocated here
        self.request_history.append(record)  # inserted here
        return result


async def serve(gateway: Gateway, stage: Stage) -> None:
    async for number in stage.aorders():
        await gateway.handle_request("stock", number)


if __name__ == "__main__":
    stage = Stage(__doc__, rate=500)
    app = Gateway(repaired=stage.repaired)
    asyncio.run(serve(app, stage))
