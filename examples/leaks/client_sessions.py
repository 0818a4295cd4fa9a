"""Client sessions that are never closed (gateway, S2: "hundreds of sessions").

The gateway looks for the session of a service in a dictionary, but under the whole address, which is another one
for each order. So every request makes a session with its connector, cookies and timeouts. Repaired: one session per
service.
"""

import asyncio

import aiohttp
from aiohttp import web
from stage import Stage


class Gateway:
    def __init__(self, upstream: str) -> None:
        self.upstream = upstream
        self.http_sessions: dict[str, aiohttp.ClientSession] = {}

    def session_key(self, number: int) -> str:
        return f"{self.upstream}/orders/{number}"

    async def handle_request(self, number: int) -> int:
        key = self.session_key(number)
        if key not in self.http_sessions:
            self.http_sessions[key] = aiohttp.ClientSession()  # allocated here, inserted here
        async with self.http_sessions[key].get(self.upstream, headers={"Connection": "close"}) as response:
            return len(await response.read())

    async def close(self) -> None:
        for session in self.http_sessions.values():
            await session.close()


class RepairedGateway(Gateway):
    def session_key(self, number: int) -> str:
        return self.upstream


async def answer(request: web.Request) -> web.Response:
    return web.Response(text="stored")


async def main(stage: Stage) -> None:
    app = web.Application()
    app.router.add_get("/", answer)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    gateway = (RepairedGateway if stage.repaired else Gateway)(f"http://127.0.0.1:{runner.addresses[0][1]}/")
    async for number in stage.aorders():
        await gateway.handle_request(number)
    await gateway.close()
    await runner.cleanup()


if __name__ == "__main__":
    asyncio.run(main(Stage(__doc__, rate=60)))
