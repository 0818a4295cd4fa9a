"""The express lane when all connections to the upstream are busy: requests wait in turn, still without a task."""

from __future__ import annotations

import asyncio

import pytest
from tests.gateway.origin import Gate, Handler, Origin, config, gate, origin
from tests.gateway.test_express import get, pool, warm

from flatwater.bounded import Ledger


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
    async with asyncio.timeout(20):
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
    more = "connections = { max_connections = 1, max_pending = 2, pending_s = 0.5 }\nretry = { attempts = 1 }"
    async with origin(held(release)) as upstream, gate(config(upstream.port, more), ledger, express=express) as front:
        await warm(front)
        asked = [asyncio.create_task(front.get()) for _ in range(5)]
        async with asyncio.timeout(20):
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
    more = "connections = { max_connections = 1 }"
    async with origin(held(release)) as upstream, gate(config(upstream.port, more), ledger) as front:
        await warm(front)
        first = asyncio.create_task(front.get("/api/first"))
        async with asyncio.timeout(20):
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
