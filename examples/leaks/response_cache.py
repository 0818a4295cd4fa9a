"""A cache of responses without a bound (gateway, S2.2).

The gateway keeps every response under a key that contains the request's data, so hardly any is ever asked for
twice, and none is dropped. Repaired: the oldest leaves when there are more than 100.
"""

import asyncio
from collections import OrderedDict

from stage import Stage

MAX_CACHED = 100


class Gateway:
    def __init__(self) -> None:
        self.response_cache: OrderedDict[str, dict[str, object]] = OrderedDict()

    async def call_service(self, service: str, number: int) -> dict[str, object]:
        await asyncio.sleep(0)
        items = [f"{service} item {number}.{item}" for item in range(30)]
        return {"service": service, "items": items}  # allocated here

    async def handle_request(self, service: str, number: int) -> dict[str, object]:
        key = f"{service}_{number}"
        if key not in self.response_cache:
            result = await self.call_service(service, number)
            self.response_cache[key] = result  # inserted here
        return self.response_cache[key]


class RepairedGateway(Gateway):
    async def handle_request(self, service: str, number: int) -> dict[str, object]:
        result = await super().handle_request(service, number)
        while len(self.response_cache) > MAX_CACHED:
            self.response_cache.popitem(last=False)
        return result


class Application:
    def __init__(self, gateway: Gateway) -> None:
        self.gateway = gateway

    async def serve(self, stage: Stage) -> None:
        async for number in stage.aorders():
            await self.gateway.handle_request("stock", number)


def main() -> None:
    stage = Stage(__doc__, rate=300)
    app = Application(RepairedGateway() if stage.repaired else Gateway())
    asyncio.run(app.serve(stage))


if __name__ == "__main__":
    main()
