"""The express lane: the same answers, counts and history as the ordinary path, from upstreams of all shapes; and what
it is for, no task."""

from __future__ import annotations

import asyncio
import random
import re
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import asdict
from tests.gateway.origin import OK, Gate, Handler, Origin, config, gate, origin, reply
from tests.gateway.test_differential import CASES, Case, raw_answer
from tests.gateway.test_lying import BROKEN, TRUNCATED

from flatwater.bounded import Ledger
from flatwater.gateway import Record, Request

TIMES = """timeout = { connect_s = 5.0, first_byte_s = 0.5, idle_s = 0.5, total_s = 20.0 }
retry = { attempts = 2, backoff_s = 0.001 }"""

BUSY = b"HTTP/1.1 503 Busy\r\ncontent-length: 4\r\n\r\nbusy"


def get(target: str = "/api/x", extra: bytes = b"", *, method: bytes = b"GET", version: bytes = b"1.1") -> bytes:
    return b"%b %b HTTP/%b\r\nhost: gate\r\n%b\r\n" % (method, target.encode(), version, extra)


def scripted(*parts: bytes, then_close: bool = False, pause_s: float = 0.0) -> Handler:
    """Answers ``/warm`` and ``/last`` properly, and everything else with ``parts``."""

    async def handle(upstream: Origin, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            head = await upstream.request(reader)
            if b"/warm" in head or b"/last" in head:
                writer.write(OK)
                continue
            for part in parts:
                writer.write(part)
                await writer.drain()
                await asyncio.sleep(pause_s)
            if then_close:
                return

    return handle


async def warm(front: Gate) -> None:
    """Leave an idle connection to the upstream, which the express lane needs."""
    assert (await front.get("/api/warm")).status == 200
    async with asyncio.timeout(90):
        while pool(front).idle != 1:
            await asyncio.sleep(0.005)


def pool(front: Gate) -> Any:
    return front.gateway.statistics().services[0].endpoints[0].pool


async def told(front: Gate, request: bytes, *, ends: bool = False) -> tuple[object, ...]:
    """What a client gets for ``request``, and whether its connection lives on. ``ends``: the upstream closes its own,
    which is waited for, because the next request on it would meet the end or not."""
    reader, writer = await asyncio.open_connection("127.0.0.1", front.port, limit=2**20)
    try:
        async with asyncio.timeout(90):
            try:
                writer.write(request)
                found = await reply(reader, head_only=request.startswith(b"HEAD"))
            except (asyncio.IncompleteReadError, ConnectionResetError, ValueError):
                return ("broken",)
            kept = False
            while ends and pool(front).size:
                await asyncio.sleep(0.005)
            if found.status:
                writer.write(get("/api/last"))
                try:
                    kept = (await reply(reader)).status == 200
                except (asyncio.IncompleteReadError, ConnectionError):
                    kept = False
            body = re.sub(rb'"request_id":"\w+"', b"", found.body)
            headers = sorted(item for item in found.headers if item[0] not in (b"x-request-id", b"date"))
            return found.status, headers, body, kept
    finally:
        writer.transport.abort()


def counted(front: Gate, upstream: Origin) -> dict[str, object]:
    """All that is counted and noted, without times, ids and the upstream's port."""
    found = front.gateway.statistics()
    service = found.services[0]
    endpoint = service.endpoints[0]
    records = [asdict(record) for record in front.gateway.history]
    for record in records:
        for name in ("at", "duration_s", "id", "endpoint"):
            del record[name]
    heads = [re.sub(rb"x-request-id: \w+", b"", head) for head in upstream.heads]
    return {
        "requests": (found.requests, found.refused, front.hall.statistics().requests),
        "service": (service.requests, service.statuses, service.refused, service.retries, service.latency.count),
        "breaker": (service.breaker.requests, service.breaker.refused_requests),
        "endpoint": (endpoint.active, endpoint.successes, endpoint.failures, re.sub(r":\d+", "", endpoint.last_error)),
        "pool": (endpoint.pool.busy, endpoint.pool.opened, endpoint.pool.reused, endpoint.pool.cut),
        "history": records,
        "upstream": heads,
    }


def noted(counts: dict[str, Any]) -> dict[str, Any]:
    """The record of the last request for /api/x."""
    return [record for record in counts["history"] if record["target"] == "/api/x"][-1]


Scene = Callable[[Gate], Awaitable[object]]


async def both(handler: Callable[[], Handler], scene: Scene, more: str = TIMES) -> tuple[Any, dict[str, Any], int]:
    """Play a scene on the ordinary path and in the express lane: the same is seen and counted.

    Returns what was seen, what was counted, and how many tasks the express lane took."""
    seen = []
    tasks = 0
    for express in (False, True):
        ledger = Ledger()
        async with origin(handler()) as upstream, gate(config(upstream.port, more), ledger, express=express) as front:
            await warm(front)
            before = front.gateway.tasks.statistics().started
            found = await scene(front)
            await front.at_rest()
            tasks = front.gateway.tasks.statistics().started - before
            seen.append((found, counted(front, upstream)))
    assert seen[0] == seen[1]
    return *seen[1], tasks


ANSWERS = {
    "sized": b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\nx-a: b\r\nconnection: x-a\r\n\r\nhello",
    "empty": b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n",
    "chunked": b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\nx-sum: 42\r\n\r\n",
    "204": b"HTTP/1.1 204 No\r\n\r\n",
    "304": b"HTTP/1.1 304 No\r\ncontent-length: 5\r\n\r\n",
    "501": b"HTTP/1.1 501 No\r\ncontent-length: 2\r\n\r\nno",
    "early hints": b"HTTP/1.1 103 Early\r\nlink: x\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nhi",
    "closing": b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\nhi",
}


@pytest.mark.parametrize("version", [b"1.1", b"1.0"])
@pytest.mark.parametrize("name", ANSWERS)
async def test_whole_answers_take_no_task(name: str, version: bytes) -> None:
    async def scene(front: Gate) -> object:
        return [
            await told(front, get(version=version)),
            await told(front, get(extra=b"te: trailers\r\nconnection: te\r\n", version=version)),
            await told(front, get(extra=b"connection: close\r\n", version=version)),
        ]

    found, _, tasks = await both(lambda: scripted(ANSWERS[name]), scene)
    assert {answer[0] for answer in found} == {
        int(ANSWERS[name].split(b" ")[-1 if "early" in name else 1].split()[0])
    } or (name == "early hints" and {answer[0] for answer in found} == {200})
    assert tasks == (2 if name == "closing" else 0)  # then no connection is idle for the next two


async def test_trailers_and_interim_answers_reach_the_client(ledger: Ledger) -> None:
    answer = ANSWERS["early hints"].split(b"HTTP/1.1 200")[0] + ANSWERS["chunked"]
    async with origin(scripted(answer)) as upstream, gate(config(upstream.port), ledger) as front:
        await warm(front)
        taken = await front.ask(get(extra=b"te: trailers\r\nconnection: te, close\r\n"), until_close=True)
        assert taken.raw.startswith(b"HTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\nHTTP/1.1 200 OK\r\n")
        assert taken.raw.endswith(b"5\r\nhello\r\n0\r\nx-sum: 42\r\n\r\n")
        plain = await front.ask(get(extra=b"connection: close\r\n"), until_close=True)
        assert plain.raw.endswith(b"5\r\nhello\r\n0\r\n\r\n")
        assert front.gateway.tasks.statistics().started == 2, "one for the overload manager, one for the first request"


@pytest.mark.parametrize("name", BROKEN)
async def test_broken_heads(name: str) -> None:
    found, counts, _ = await both(
        lambda: scripted(BROKEN[name][0], then_close=True), lambda front: told(front, get()), TIMES
    )
    assert found[0] == 502
    assert noted(counts)["attempts"] == (3 if name == "nothing" else 2)


@pytest.mark.parametrize("name", TRUNCATED)
async def test_broken_bodies(name: str) -> None:
    head, _, rest = TRUNCATED[name].partition(b"\r\n\r\n")
    handler = lambda: scripted(head + b"\r\n\r\n", rest, then_close=True, pause_s=0.1)  # noqa: E731
    found, counts, tasks = await both(handler, lambda front: told(front, get()))
    assert found == ("broken",)
    assert noted(counts)["reason"] in ("truncated", "bad_response", "response_head_too_large")
    assert tasks == 0


@pytest.mark.parametrize(
    ("parts", "reason"),
    [((), "first_byte_timeout"), ((b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nhi",), "idle_timeout")],
    ids=["silent", "stalled"],
)
async def test_time_outs(parts: tuple[bytes, ...], reason: str) -> None:
    more = TIMES.replace("attempts = 2", "attempts = 1")
    found, counts, _ = await both(lambda: scripted(*parts), lambda front: told(front, get()), more)
    assert found[0] == ("broken" if parts else 504)
    assert noted(counts)["reason"] == reason


async def test_answer_worth_a_retry_is_handed_over() -> None:
    found, counts, _ = await both(lambda: scripted(BUSY), lambda front: told(front, get()))
    assert (found[0], found[2], found[3]) == (503, b"busy", True)
    assert noted(counts)["attempts"] == 2
    assert counts["endpoint"][2] == 2
    post = b"POST /api/x HTTP/1.1\r\nhost: gate\r\n\r\n"
    found, counts, _ = await both(lambda: scripted(BUSY), lambda front: told(front, post))
    assert (found[0], noted(counts)["attempts"]) == (503, 1)


async def test_stale_connection_is_handed_over() -> None:
    """The upstream closes each connection when the second request comes: it is asked again on another."""

    def once() -> Handler:
        async def handle(upstream: Origin, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await upstream.request(reader)
            writer.write(OK)
            await upstream.request(reader)

        return handle

    async def scene(front: Gate) -> object:
        found = await front.get("/api/x")
        return found.status, found.body

    found, counts, _ = await both(once, scene)
    assert found == (200, b"hi")
    assert noted(counts)["attempts"] == 2
    assert counts["endpoint"][2] == 0, "it says nothing about the upstream"


LIMITS = {
    "rate": ("rate = { per_s = 0.001, burst = 2 }", 429, "rate_limited"),
    "breaker": ("breaker = { max_requests = 1 }", 503, "breaker_open"),
}


@pytest.mark.parametrize("name", LIMITS)
async def test_refusals(name: str) -> None:
    more, status, reason = LIMITS[name]

    async def scene(front: Gate) -> object:
        if name == "breaker":
            front.gateway.services()["api"].breaker.requests += 1
        found = [await told(front, get()) for _ in range(2)]
        if name == "breaker":
            front.gateway.services()["api"].breaker.requests -= 1
        return found

    found, counts, tasks = await both(lambda: scripted(OK), scene, more)
    assert found[-1][0] == status
    assert noted(counts)["reason"] == reason
    assert tasks == 0


async def test_clients_that_leave() -> None:
    """Before the head, and in the body: the upstream's connection is closed, and 499 noted."""
    body = b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nhi"
    for parts in ((), (body,)):

        async def scene(front: Gate, parts: tuple[bytes, ...] = parts) -> None:
            reader, writer = await asyncio.open_connection("127.0.0.1", front.port)
            writer.write(get())
            async with asyncio.timeout(90):
                while not any(record for record in front.gateway.app._transits if record.seen):
                    await asyncio.sleep(0.01)
                if parts:
                    await reader.readuntil(b"hi")
            writer.transport.abort()

        more = "timeout = { first_byte_s = 30.0, idle_s = 30.0 }"
        _, counts, tasks = await both(lambda parts=parts: scripted(*parts), scene, more)  # type: ignore[misc]
        assert [record["status"] for record in counts["history"]] == [200, 499]
        assert counts["service"][1] == {"2xx": 1, "499": 1}
        assert counts["pool"][3] == 1, "cut"
        assert tasks == 0


async def test_requests_end_with_the_gateway(ledger: Ledger) -> None:
    async with origin(scripted()) as upstream, gate(config(upstream.port), ledger) as front:
        await warm(front)
        reader, writer = await asyncio.open_connection("127.0.0.1", front.port)
        writer.write(get())
        async with asyncio.timeout(90):
            while not len(front.gateway.app):
                await asyncio.sleep(0.01)
            front.gateway.app.abort()
            assert await reader.read() == b""
        writer.close()
        await front.at_rest()
        assert front.gateway.history.latest(1)[0].status == 499


async def test_a_full_house_hears_of_it(ledger: Ledger) -> None:
    """No task can start for a request that must be handed over."""
    async with origin(scripted(BUSY)) as upstream, gate(config(upstream.port), ledger) as front:
        await warm(front)
        front.gateway.tasks._max_tasks = 1  # the overload manager's
        found = await front.get()
        assert (found.status, found["x-flatwater-reason"], found["connection"]) == (503, "overloaded", "close")
        front.gateway.tasks._max_tasks = 100
        await front.at_rest()
        assert front.gateway.history.latest(1)[0].reason == "overloaded"


@pytest.mark.parametrize("express", [False, True])
async def test_slow_client_holds_the_upstream_back(express: bool, ledger: Ledger) -> None:
    """What is held meanwhile is bounded, and everything arrives once the client reads."""
    size = 32 * 2**20

    async def handle(upstream: Origin, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            if b"/warm" in await upstream.request(reader):
                writer.write(OK)
                continue
            writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % size)
            for number in range(size // 65536):
                writer.write(bytes([number % 256]) * 65536)
                await writer.drain()

    async with (
        origin(handle) as upstream,
        gate(config(upstream.port), ledger, express=express) as front,
    ):
        await warm(front)
        reader, writer = await asyncio.open_connection("127.0.0.1", front.port, limit=65536)
        writer.write(get())
        await reader.readuntil(b"\r\n\r\n")
        held: list[int] = []
        async with asyncio.timeout(90):
            while len(held) < 20 or held[-1] != held[-5]:
                await asyncio.sleep(0.02)
                held.append(pool(front).bytes + (front.hall.statistics().bytes or 0))
        assert 65536 <= max(held) <= (64 + 256 + 64 + 256) * 1024
        async with asyncio.timeout(60):
            for number in range(size // 65536):
                assert await reader.readexactly(65536) == bytes([number % 256]) * 65536
        writer.close()
        await front.at_rest()
        assert (front.gateway.tasks.statistics().started == 2) is express


async def test_client_that_reads_nothing_is_cut_off_in_the_end(ledger: Ledger) -> None:
    """Not only when it reads again: until then it would hold the upstream's connection."""
    large = b"HTTP/1.1 200 OK\r\ncontent-length: 33554432\r\n\r\n" + bytes(2**25)
    more = "timeout = { first_byte_s = 20.0, idle_s = 0.5 }"
    async with origin(scripted(large)) as upstream, gate(config(upstream.port, more), ledger) as front:
        await warm(front)
        reader, writer = await asyncio.open_connection("127.0.0.1", front.port, limit=65536)
        writer.write(get())
        await reader.readuntil(b"\r\n\r\n")
        async with asyncio.timeout(90):
            while len(front.gateway.app):
                await asyncio.sleep(0.02)
        assert front.gateway.history.latest(1)[0].reason == "idle_timeout"
        assert pool(front).busy == 0
        writer.transport.abort()
        await front.at_rest()


@pytest.mark.parametrize("connections", [3, 100])
async def test_answers_are_never_mixed_up(connections: int, ledger: Ledger) -> None:
    """Sixteen clients ask for bodies that tell their number: sized, chunked or until the end, read at once, late, or
    left half-way, over upstream connections that also close."""

    async def handle(upstream: Origin, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            number = int((await upstream.head(reader)).split(b" ")[1].rpartition(b"/")[2])
            data = b"%d;" % number * (1 + (number * 7919) % 30_000)
            if number % 3 == 0:
                writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%b" % (len(data), data))
            elif number % 3 == 1:
                writer.write(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n")
                for at in range(0, len(data), 9000):
                    writer.write(b"%x\r\n%b\r\n" % (len(data[at : at + 9000]), data[at : at + 9000]))
                writer.write(b"0\r\n\r\n")
            else:
                writer.write(b"HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n" + data)
                return
            await writer.drain()
            if number % 11 == 0:
                return

    async def client(front: Gate, first: int) -> int:
        done = 0
        chance = random.Random(first)
        reader, writer = await asyncio.open_connection("127.0.0.1", front.port, limit=65536)
        for number in range(first, first + 25):
            writer.write(get(f"/api/{number}"))
            if chance.random() < 0.1:
                await reader.read(10)
                writer.transport.abort()
                reader, writer = await asyncio.open_connection("127.0.0.1", front.port, limit=65536)
                continue
            if chance.random() < 0.2:
                await asyncio.sleep(0.05)
            found = await reply(reader)
            assert found.status == 200
            assert found.body == b"%d;" % number * (1 + (number * 7919) % 30_000)
            done += 1
        writer.close()
        return done

    more = f"connections = {{ max_connections = {connections} }}"
    async with origin(handle) as upstream, gate(config(upstream.port, more), ledger) as front:
        async with asyncio.timeout(60):
            done = sum(await asyncio.gather(*(client(front, 1000 * number) for number in range(1, 17))))
        await front.at_rest()
        assert front.gateway.tasks.statistics().started < done, "some took none"


async def test_pipelined_requests_are_answered_in_order(ledger: Ledger) -> None:
    async with origin(scripted(ANSWERS["sized"])) as upstream, gate(config(upstream.port), ledger) as front:
        await warm(front)
        found = await front.ask(get() * 3 + get("/api/last", b"connection: close\r\n"), until_close=True)
        assert found.raw.count(b"hello") == 3
        assert found.raw.endswith(b"hi")
        await front.at_rest()


async def test_drain_closes_connections(ledger: Ledger) -> None:
    async with origin(scripted(OK)) as upstream, gate(config(upstream.port), ledger) as front:
        await warm(front)
        reader, writer = await asyncio.open_connection("127.0.0.1", front.port)
        writer.write(get())
        assert not (await reply(reader))["connection"]
        front.gateway.app.draining = True
        writer.write(get())
        assert (await reply(reader))["connection"] == "close"
        assert await reader.read() == b""
        writer.close()
        await front.at_rest()


async def test_hooks_run(ledger: Ledger) -> None:
    seen: list[tuple[bytes, int, int]] = []

    class Audit:
        async def after(self, request: Request, record: Record) -> None:
            seen.append((request.path, record.status, record.attempts))

    async with origin(scripted(OK)) as upstream, gate(config(upstream.port), ledger) as front:
        await warm(front)
        front.gateway.add_hook(Audit())
        await front.get("/api/x")
        async with asyncio.timeout(90):
            while not seen:
                await asyncio.sleep(0.005)
        assert seen == [(b"/api/x", 200, 1)]


async def test_a_fault_of_ours_ends_the_request(ledger: Ledger, caplog: pytest.LogCaptureFixture) -> None:
    async with origin(scripted(OK)) as upstream, gate(config(upstream.port), ledger) as front:
        await warm(front)
        front.gateway.services()["api"].answered = None  # type: ignore[method-assign,assignment]
        reader, writer = await asyncio.open_connection("127.0.0.1", front.port)
        writer.write(get())
        async with asyncio.timeout(90):
            assert await reader.read() == b""
        writer.close()
        await front.at_rest()
        assert front.gateway.history.latest(1)[0].status == 500
        assert "a request failed" in caplog.text


@settings(max_examples=25, deadline=None)
@given(CASES, st.sampled_from([b"1.1", b"1.0"]), st.sampled_from([b"", b"te: trailers\r\nconnection: te\r\n"]))
def test_same_as_ordinary(case: Case, version: bytes, extra: bytes) -> None:
    data = raw_answer(case)
    size = len(data) // case.cut + 1
    parts = [data[at : at + size] for at in range(0, len(data), size)]
    extra += b"".join(b"%b: %b\r\n" % item for item in case.headers)
    request = get("/api" + case.target.decode(), extra, method=case.method, version=version)
    ends = case.truncated or case.framing == "close"

    with asyncio.Runner() as runner:
        runner.run(both(lambda: scripted(*parts, then_close=ends), lambda front: told(front, request, ends=ends)))
