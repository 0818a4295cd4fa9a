"""Retries by ``loop.call_later`` under uvloop: timers an hour ahead, held by the loop's C objects alone.

Repaired: a timer that is not needed any more is cancelled.
"""

import asyncio

import uvloop
from stage import Stage

PATIENCE_S = 3600.0


class Watchdog:
    def __init__(self) -> None:
        self.alarms = 0

    def watch(self, number: int) -> asyncio.TimerHandle:
        order = {"id": f"order {number}", "lines": [f"line {number}.{line}" for line in range(8)]}
        return asyncio.get_running_loop().call_later(PATIENCE_S, self.alarm, order)  # allocated here, inserted here

    def alarm(self, order: dict[str, object]) -> None:
        self.alarms += len(order)


async def serve(stage: Stage) -> None:
    watchdog = Watchdog()
    async for number in stage.aorders():
        timer = watchdog.watch(number)
        if stage.repaired:
            timer.cancel()


if __name__ == "__main__":
    uvloop.run(serve(Stage(__doc__, rate=500)))
