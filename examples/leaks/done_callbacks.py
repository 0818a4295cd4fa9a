"""A callback per request on a future that never comes (the shutdown).

Repaired: the callback is removed with the request.
"""

import asyncio
from collections.abc import Callable

from stage import Stage


class Server:
    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.shutdown: asyncio.Future[None] = loop.create_future()

    def say_goodbye_to(self, number: int) -> Callable[[object], None]:
        text = f"goodbye, request {number} " * 20
        return lambda _: print(text[:20])  # allocated here

    def handle(self, number: int) -> None:
        self.shutdown.add_done_callback(self.say_goodbye_to(number))  # inserted here


class RepairedServer(Server):
    def handle(self, number: int) -> None:
        goodbye = self.say_goodbye_to(number)
        self.shutdown.add_done_callback(goodbye)
        self.shutdown.remove_done_callback(goodbye)


async def serve(stage: Stage) -> None:
    server = (RepairedServer if stage.repaired else Server)(asyncio.get_running_loop())
    async for number in stage.aorders():
        server.handle(number)


if __name__ == "__main__":
    asyncio.run(serve(Stage(__doc__, rate=700)))
