"""A queue whose consumer has died of an exception that nobody looked at.

Repaired: the consumer survives a bad item.
"""

import asyncio

from stage import Stage

Reading = dict[str, object]


class Recorder:
    def __init__(self) -> None:
        self.readings: asyncio.Queue[Reading] = asyncio.Queue()
        self.recorded = 0
        self.bad = 0

    def put(self, number: int) -> None:
        values = [number + step * 1.5 for step in range(20)]
        reading = {"sensor": f"sensor {number}", "values": values}  # allocated here
        self.readings.put_nowait(reading)  # inserted here

    def record(self, reading: Reading) -> None:
        if reading["sensor"] == "sensor 13":
            raise ValueError("sensor 13 is broken")
        self.recorded += 1

    async def consume(self) -> None:
        while True:
            self.record(await self.readings.get())


class RepairedRecorder(Recorder):
    async def consume(self) -> None:
        while True:
            reading = await self.readings.get()
            try:
                self.record(reading)
            except ValueError:
                self.bad += 1


async def work(stage: Stage) -> None:
    recorder = RepairedRecorder() if stage.repaired else Recorder()
    consumer = asyncio.create_task(recorder.consume())
    async for number in stage.aorders():
        recorder.put(number)
    consumer.cancel()
    await asyncio.wait([consumer])
    consumer.cancelled() or consumer.exception()


if __name__ == "__main__":
    asyncio.run(work(Stage(__doc__, rate=700)))
