"""Live events: frames, replay, gaps, filters, slow and stalled clients."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
import pytest
from tests.server.client import eventually

from flatwater.bounded import Fanout, Ledger, Message, TaskGroup
from flatwater.errors import LimitError
from flatwater.server.stream import Resume, Stream, chooser, frame, gap, resume


class Subscriber:
    """A client: collects what is sent; ``stall`` makes it take nothing, ``leave`` hangs up."""

    def __init__(self, stream: Stream) -> None:
        self.stream = stream
        self.text = b""
        self.status = 0
        self.finished = False
        self.stall = asyncio.Event()
        self.leave = asyncio.Event()

    async def send(self, message: Any) -> None:
        if self.stall.is_set():
            await asyncio.Event().wait()
        if message["type"] == "http.response.start":
            self.status = message["status"]
        else:
            self.text += message["body"]
            self.finished = not message["more_body"]

    async def receive(self) -> Any:
        await self.leave.wait()
        return {"type": "http.disconnect"}

    def events(self) -> list[tuple[str, Any]]:
        found = []
        for block in self.text.decode().split("\n\n"):
            fields = dict(line.split(": ", 1) for line in block.split("\n") if line and not line.startswith(":"))
            if "data" in fields:
                found.append((fields["event"], msgspec.json.decode(fields["data"])))
        return found

    async def until(self, count: int) -> list[tuple[str, Any]]:
        await eventually(lambda: len(self.events()) >= count)
        return self.events()


class Setup:
    def __init__(self, *, max_messages: int = 100, max_subscribers: int = 3, heartbeat_s: float = 5.0) -> None:
        self.ledger = Ledger()
        self.events: Fanout[Any] = Fanout(
            "events", max_messages=max_messages, max_subscribers=max_subscribers, ledger=self.ledger
        )
        self.tasks = TaskGroup("streams", max_tasks=50, ledger=self.ledger)
        self.stream = Stream(self.events, self.tasks, boot="BOOT", heartbeat_s=heartbeat_s, write_timeout_s=0.2)

    async def __aenter__(self) -> Setup:
        await self.tasks.__aenter__()
        return self

    async def __aexit__(self, *error: Any) -> None:
        self.events.stop()
        await self.tasks.stop()

    def subscribe(self, last_id: str = "", kinds: tuple[str, ...] = (), run: str | None = None) -> Subscriber:
        subscriber = Subscriber(self.stream)
        coro = self.stream.respond(chooser(kinds, run), last_id, subscriber.receive, subscriber.send)
        self.tasks.start(coro, name="subscriber")
        return subscriber


def test_frames() -> None:
    text = frame(Message(7, {"type": "run", "id": "x\ny"}, 0), "B")
    assert text == b'id: B-7\nevent: run\ndata: {"type":"run","id":"x\\ny"}\n\n'
    assert frame(Message(7, {"type": "run"}, 3), "B").startswith(gap(3))


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("", Resume(None)),
        ("B-7", Resume(7)),
        ("OTHER-7", Resume(None, foreign=True)),
        ("7", Resume(None, foreign=True)),
        ("B--7", Resume(None, foreign=True)),
        ("B-" + "9" * 50, Resume(None, foreign=True)),
        ("B-\u0667", Resume(None, foreign=True)),
        ("\x00", Resume(None, foreign=True)),
    ],
)
def test_where_to_go_on(text: str, place: Resume) -> None:
    assert resume(text, "B") == place


async def test_events_come_as_they_happen() -> None:
    async with Setup() as setup:
        subscriber = setup.subscribe()
        await asyncio.sleep(0.01)
        setup.events.publish({"type": "run", "id": "1"})
        setup.events.publish({"type": "site", "id": "A"})
        assert await subscriber.until(2) == [("run", {"type": "run", "id": "1"}), ("site", {"type": "site", "id": "A"})]
        assert subscriber.status == 200
        subscriber.leave.set()
        await setup.tasks.drain(5)
        assert setup.events.statistics().subscribers == 0


async def test_who_comes_back_gets_what_was_missed() -> None:
    async with Setup() as setup:
        first = setup.subscribe()
        await asyncio.sleep(0.01)
        for number in range(5):
            setup.events.publish({"type": "run", "id": str(number)})
        await first.until(5)
        second = setup.subscribe("BOOT-2")
        assert [data["id"] for _, data in await second.until(3)] == ["2", "3", "4"]
        third = setup.subscribe("EARLIER-2")
        assert await third.until(1) == [("gap", {"type": "gap", "missed": None})]


async def test_what_is_no_longer_kept_is_told_as_a_gap() -> None:
    async with Setup(max_messages=3) as setup:
        first = setup.subscribe()
        await asyncio.sleep(0.01)
        for number in range(10):
            setup.events.publish({"type": "run", "id": str(number)})
        late = setup.subscribe("BOOT-1")
        events = await late.until(4)
        assert events[0] == ("gap", {"type": "gap", "missed": 6})
        assert [data["id"] for _, data in events[1:]] == ["7", "8", "9"]
        first.leave.set()


async def test_filters_by_type_and_run() -> None:
    async with Setup() as setup:
        runs = setup.subscribe(kinds=("run",))
        blocks = setup.subscribe(kinds=("block", "run"), run="1")
        await asyncio.sleep(0.01)
        for run in ("1", "2"):
            setup.events.publish({"type": "run", "id": run})
            setup.events.publish({"type": "block", "run_id": run, "path": "-1"})
        assert [kind for kind, _ in await runs.until(2)] == ["run", "run"]
        assert [(kind, data.get("run_id")) for kind, data in await blocks.until(3)] == [
            ("run", None),
            ("block", "1"),
            ("run", None),
        ]


async def test_heartbeats() -> None:
    async with Setup(heartbeat_s=0.02) as setup:
        subscriber = setup.subscribe()
        await eventually(lambda: subscriber.text.count(b": alive\n\n") >= 3)


async def test_too_many_subscribers_are_refused_before_anything_is_sent() -> None:
    async with Setup(max_subscribers=1) as setup:
        setup.subscribe()
        await asyncio.sleep(0.01)
        extra = Subscriber(setup.stream)
        with pytest.raises(LimitError, match="1 subscribers"):
            await setup.stream.respond(chooser((), None), "", extra.receive, extra.send)
        assert extra.status == 0


async def test_a_stalled_client_loses_its_place_and_holds_nothing() -> None:
    async with Setup(max_subscribers=1) as setup:
        stalled = setup.subscribe()
        await asyncio.sleep(0.01)
        stalled.stall.set()
        for number in range(1000):
            setup.events.publish({"type": "run", "id": str(number)})
        await eventually(lambda: not setup.events.statistics().subscribers)
        assert setup.events.statistics().size <= 100
        other = setup.subscribe()
        await asyncio.sleep(0.01)
        setup.events.publish({"type": "run", "id": "x"})
        await other.until(1)
        stalled.leave.set()


async def test_the_end_of_the_fanout_ends_the_answer() -> None:
    async with Setup() as setup:
        subscriber = setup.subscribe()
        await asyncio.sleep(0.01)
        setup.events.publish({"type": "run", "id": "last"})
        setup.events.stop()
        await setup.tasks.drain(5)
        assert subscriber.finished
        assert subscriber.events() == [("run", {"type": "run", "id": "last"})]
