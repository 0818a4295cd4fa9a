"""The express lane when no connection to the upstream is idle: requests wait in turn, still without a task, or are
handed over to one."""

from __future__ import annotations

import asyncio

import pytest
from tests.gateway.origin import OK, Gate, Handler, Origin, config, gate, origin
from tests.gateway.test_express import get, pool, warm

from flatwater.bounded import Ledger
from flatwater.gateway.express import Express


def held(release: asyncio.Event) -> Handler:
    """Answers with the target, all but ``/warm`` only after ``release``."""

    async def handle(upstream: Origin, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            target = (await upstream.head(reader)).split(b" ")[1]
            if target != b"/warm":
                await release.wait()
            writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%b" % (len(target), target))

    return handle


async def until_pending(front: Gate, count: int) -> None:
    async with asyncio.timeout(90):
        while pool(front).pending != count:
            await asyncio.sleep(0.005)


@pytest.mark.parametrize("express", [False, True])
async def test_requests_wait_for_a_connection_in_turn(express: bool, ledger: Ledger) -> None:
    release = asyncio.Event()
    more = "connections = { max_connections = 1 }"
    async with origin(held(release)) as upstream, gate(config(upstream.port, more), ledger, express=express) as front:
        await warm(front)
        before = front.gateway.tasks.statistics().started
        asked = []
        for number in range(12):
            asked.append(asyncio.create_task(front.get(f"/api/{number}")))
            await until_pending(front, number)
        tasks = front.gateway.tasks.statistics().started - before
        release.set()
        assert [(await one).body for one in asked] == [b"/%d" % number for number in range(12)]
        await front.at_rest()
        assert [head.split(b" ")[1] for head in upstream.heads] == [b"/warm", *(b"/%d" % n for n in range(12))]
        assert (pool(front).reused, pool(front).opened, tasks > 0) == (12, 1, not express)


@pytest.mark.parametrize("express", [False, True])
async def test_waiting_ends_by_time_and_by_number(express: bool, ledger: Ledger) -> None:
    release = asyncio.Event()
    more = "connections = { max_connections = 1, max_pending = 2, pending_s = 30.0 }\nretry = { attempts = 1 }"
    async with origin(held(release)) as upstream, gate(config(upstream.port, more), ledger, express=express) as front:
        await warm(front)
        asked = [asyncio.create_task(front.get()) for _ in range(5)]
        async with asyncio.timeout(90):
            while sum(one.done() for one in asked) < 2:
                await asyncio.sleep(0.01)
            sweep = front.gateway.services()["api"].backends[0].client.sweep
            sweep(asyncio.get_running_loop().time() + 30.0)
            while sum(one.done() for one in asked) < 4:
                await asyncio.sleep(0.01)
        release.set()
        assert sorted([(await one).status for one in asked]) == [200, 503, 503, 503, 503]
        await front.at_rest()
        service = front.gateway.statistics().services[0]
        assert service.refused == {"pending_full": 2, "pending_timeout": 2}
        assert pool(front).refused == 2
        assert {record.attempts for record in front.gateway.history} == {1}


async def test_clients_leave_while_they_wait(ledger: Ledger) -> None:
    release = asyncio.Event()
    more = "connections = { max_connections = 1, pending_s = 60.0 }"
    async with origin(held(release)) as upstream, gate(config(upstream.port, more), ledger) as front:
        await warm(front)
        first = asyncio.create_task(front.get("/api/first"))
        async with asyncio.timeout(90):
            while not pool(front).busy:
                await asyncio.sleep(0.005)
        writers = [(await asyncio.open_connection("127.0.0.1", front.port))[1] for _ in range(3)]
        for writer in writers:
            writer.write(get())
        await until_pending(front, 3)
        for writer in writers:
            writer.transport.abort()
        await until_pending(front, 0)
        release.set()
        assert (await first).status == 200
        await front.at_rest()
        assert len(upstream.heads) == 2
        assert [record.status for record in front.gateway.history.latest(4)] == [200, 499, 499, 499]


async def test_a_lost_connection_makes_room_for_those_who_wait(ledger: Ledger) -> None:
    """The connection closes after each answer: who is next opens another."""
    answer = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\nhi"
    more = "connections = { max_connections = 2 }"
    async with origin(answer) as upstream, gate(config(upstream.port, more), ledger) as front:
        found = await asyncio.gather(*(front.get() for _ in range(30)))
        assert {reply.status for reply in found} == {200}
        assert upstream.accepted == 30
        await front.at_rest()
        assert pool(front).size == 0


async def test_a_request_may_end_before_its_task_begins(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    hand_over = Express.hand_over

    def and_leave(transit: Express) -> None:
        hand_over(transit)
        transit.leave()

    monkeypatch.setattr(Express, "hand_over", and_leave)
    async with origin(OK) as upstream, gate(config(upstream.port), ledger) as front:
        reader, writer = await asyncio.open_connection("127.0.0.1", front.port)
        writer.write(get())
        async with asyncio.timeout(90):
            assert await reader.read() == b""
        writer.close()
        await front.at_rest()
        assert [record.status for record in front.gateway.history] == [499]
        assert not upstream.heads
        assert front.gateway.tasks.statistics().failed == 0


async def test_what_was_handed_over_is_the_tasks_alone(ledger: Ledger) -> None:
    """A slow client of an answer that a task relays: only the task goes on when the client reads."""
    size = 16 * 2**20

    async def handle(upstream: Origin, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await upstream.request(reader)
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % size)
        for number in range(size // 65536):
            writer.write(bytes([number % 256]) * 65536)
            await writer.drain()

    async with origin(handle) as upstream, gate(config(upstream.port), ledger) as front:
        reader, writer = await asyncio.open_connection("127.0.0.1", front.port, limit=65536)
        writer.write(get())
        async with asyncio.timeout(60):
            await reader.readuntil(b"\r\n\r\n")
            while not any(connection.writing_paused for connection in front.hall.connections):
                await asyncio.sleep(0.01)
            for number in range(size // 65536):
                assert await reader.readexactly(65536) == bytes([number % 256]) * 65536
        writer.close()
        await front.at_rest()
        assert front.gateway.history.latest(1)[0].attempts == 1
