"""The gateway as a whole: balance, retries, ejection, limits, cache, background work, other ASGI servers, rest."""

from __future__ import annotations

import asyncio
from collections import Counter

import pytest
import uvicorn
from tests.gateway.origin import OK, Origin, config, gate, origin

from flatwater.bounded import Ledger
from flatwater.gateway import Gateway, Record, Request, parse


def named(name: bytes) -> bytes:
    return b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\n\r\n" + name


async def test_requests_are_spread_and_a_dead_endpoint_is_left_out(ledger: Ledger, unused_port: int) -> None:
    async with origin(named(b"a")) as first, origin(named(b"b")) as second:
        urls = ", ".join(f'"http://127.0.0.1:{port}"' for port in (first.port, second.port, unused_port))
        given = parse(f'[services.api]\nendpoints = [{urls}]\nbalance = "round_robin"\nejection = {{ failures = 2 }}')
        async with gate(given, ledger) as front:
            replies = [await front.get() for _ in range(40)]
            assert {reply.status for reply in replies} == {200}, "a refused connection is retried elsewhere"
            counts = Counter(reply.body for reply in replies)
            assert min(counts.values()) >= 10
            dead = front.gateway.statistics().services[0].endpoints[2]
            assert (dead.state, dead.ejections) == ("ejected", 1)
            await front.at_rest()


async def test_only_idempotent_requests_are_repeated(ledger: Ledger) -> None:
    busy = b"HTTP/1.1 503 Busy\r\ncontent-length: 0\r\n\r\n"
    async with origin(busy) as upstream, gate(config(upstream.port), ledger) as front:
        assert (await front.get()).status == 503
        assert len(upstream.heads) == 2
        post = b"POST /api/ HTTP/1.1\r\nhost: gate\r\ncontent-length: 2\r\n\r\nhi"
        assert (await front.ask(post)).status == 503
        assert len(upstream.heads) == 3
        put = post.replace(b"POST", b"PUT")
        assert (await front.ask(put)).status == 503
        assert upstream.bodies[3:] == [b"hi", b"hi"]
        await front.at_rest()


async def test_a_trace_context_is_passed_on_as_it_is(ledger: Ledger) -> None:
    """With and without a body, which are two ways through the gateway; and past its cache."""
    trace = b"traceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01\r\n"
    trace += b"tracestate: congo=t61rcWkgMzE,rojo=00f067aa0ba902b7\r\nbaggage: plant=hall%201\r\n"
    get = b"GET /api/ HTTP/1.1\r\nhost: gate\r\n" + trace + b"\r\n"
    post = b"POST /api/ HTTP/1.1\r\nhost: gate\r\n" + trace + b"content-length: 2\r\n\r\nhi"
    for more in ("", "cache = {}"):
        async with origin(OK) as upstream, gate(config(upstream.port, more), ledger) as front:
            for request in (get, post):
                assert (await front.ask(request)).status == 200
                passed = upstream.heads[-1].lower()
                assert [line + b"\r\n" in passed for line in trace.lower().split(b"\r\n") if line] == [True] * 3
            await front.at_rest()


async def test_retry_budget_ends_a_storm(ledger: Ledger) -> None:
    more = "retry = { attempts = 3, budget_percent = 10.0, min_per_s = 0.1, backoff_s = 0.001 }\n"
    more += "ejection = { failures = 1000 }"
    busy = b"HTTP/1.1 503 Busy\r\ncontent-length: 0\r\n\r\n"
    async with origin(busy) as upstream, gate(config(upstream.port, more), ledger) as front:
        for _ in range(60):
            assert (await front.get()).status == 503
        assert 60 < len(upstream.heads) < 80
        assert front.gateway.statistics().services[0].retries_refused > 40


async def test_limits(ledger: Ledger) -> None:
    """Breaker, pending and rate refuse at once; the rest is served."""
    release = asyncio.Event()

    async def slow(upstream: Origin, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            await upstream.request(reader)
            await release.wait()
            writer.write(OK)

    more = "connections = { max_connections = 2, max_pending = 3 }\nbreaker = { max_requests = 8 }"
    async with origin(slow) as upstream, gate(config(upstream.port, more), ledger) as front:
        tasks = [asyncio.create_task(front.get()) for _ in range(12)]
        async with asyncio.timeout(60):
            while sum(task.done() for task in tasks) < 7:
                await asyncio.sleep(0.01)
        refused = Counter(task.result()["x-flatwater-reason"] for task in tasks if task.done())
        assert set(refused) == {"pending_full", "breaker_open"}
        release.set()
        replies = await asyncio.gather(*tasks)
        assert Counter(reply.status for reply in replies) == {200: 5, 503: 7}
        await front.at_rest()
        assert upstream.accepted == 2
    async with (
        origin(OK) as upstream,
        gate(config(upstream.port, "rate = { per_s = 0.01, burst = 2 }"), ledger) as front,
    ):
        replies = [await front.get() for _ in range(3)]
        assert [reply.status for reply in replies] == [200, 200, 429]
        assert int(replies[2]["retry-after"]) > 10


async def test_active_checks_take_out_and_put_back(ledger: Ledger) -> None:
    well = True

    async def handle(upstream: Origin, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await upstream.request(reader)
        writer.write(OK if well else b"HTTP/1.1 500 No\r\ncontent-length: 0\r\n\r\n")
        await writer.drain()

    more = 'check = { path = "/health", every_s = 0.05, unhealthy_after = 2, healthy_after = 2 }'
    async with origin(handle) as upstream, gate(config(upstream.port, more), ledger) as front:

        async def until(state: str) -> None:
            async with asyncio.timeout(60):
                while front.gateway.statistics().services[0].endpoints[0].state != state:
                    await asyncio.sleep(0.02)

        assert (await front.get()).status == 200
        well = False
        await until("down")
        reply = await front.get()
        assert (reply.status, reply["x-flatwater-reason"]) == (503, "no_endpoint")
        well = True
        await until("up")
        assert (await front.get()).status == 200


CACHED = b'HTTP/1.1 200 OK\r\ncontent-length: 2\r\ncache-control: max-age=60\r\netag: "1"\r\n\r\nhi'


async def test_cache_answers_and_single_flight_asks_once(ledger: Ledger) -> None:
    async def slow(upstream: Origin, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            await upstream.request(reader)
            await asyncio.sleep(0.2)
            writer.write(CACHED)

    async with origin(slow) as upstream, gate(config(upstream.port, "cache = { enabled = true }"), ledger) as front:
        replies = await asyncio.gather(*(front.get("/api/page") for _ in range(20)))
        assert {(reply.status, reply.body) for reply in replies} == {(200, b"hi")}
        assert len(upstream.heads) == 1
        hit = await front.get("/api/page")
        assert hit["cache-status"].startswith("flatwater; hit")
        assert hit["x-request-id"] != replies[0]["x-request-id"]
        assert (await front.get("/api/page", b'if-none-match: "1"\r\n')).status == 304
        await front.ask(b"POST /api/page HTTP/1.1\r\nhost: gate\r\ncontent-length: 0\r\n\r\n")
        await front.get("/api/page")
        assert len(upstream.heads) == 3, "an unsafe method invalidates"
        await front.at_rest()


async def test_stale_answer_bridges_a_dead_upstream(ledger: Ledger) -> None:
    stale = CACHED.replace(b"max-age=60", b"max-age=0, stale-if-error=60")
    async with gate(config(1, "cache = { enabled = true }"), ledger) as front:
        async with origin(stale) as upstream:
            front.gateway.reload(config(upstream.port, "cache = { enabled = true }\nretry = { attempts = 1 }"))
            assert (await front.get()).body == b"hi"
        reply = await front.get()
        assert (reply.status, reply.body) == (200, b"hi")
        assert "fwd=stale" in reply["cache-status"]
        await front.at_rest()


async def test_background_work_after_requests(ledger: Ledger) -> None:
    seen: list[tuple[str, int]] = []

    class Audit:
        async def after(self, request: Request, record: Record) -> None:
            await asyncio.sleep(0)
            seen.append((request.method.decode(), record.status))
            if record.status == 404:
                raise RuntimeError("work that fails harms nobody")

    async with origin(OK) as upstream, gate(config(upstream.port), ledger) as front:
        front.gateway.add_hook(Audit())
        await front.get()
        await front.get("/none")
        await front.get()
        async with asyncio.timeout(60):
            while len(seen) < 3 or front.gateway.background.statistics().size:
                await asyncio.sleep(0.01)
        assert seen == [("GET", 200), ("GET", 404), ("GET", 200)]
        assert front.gateway.background.statistics().failed == 1


async def test_history_is_bounded_and_telling(ledger: Ledger) -> None:
    async with origin(OK) as upstream:
        given = config(upstream.port, "[front]\nhistory_entries = 5")
        async with gate(given, ledger) as front:
            for number in range(8):
                await front.get(f"/api/{number}")
            latest = front.gateway.history.latest(10)
            assert [record.target for record in latest] == [f"/api/{number}" for number in (7, 6, 5, 4, 3)]
            assert (latest[0].service, latest[0].status, latest[0].attempts) == ("api", 200, 1)
            assert front.gateway.statistics().services[0].latency.count == 8


@pytest.mark.parametrize("http", ["httptools", "h11"])
async def test_under_another_asgi_server(http: str, ledger: Ledger) -> None:
    """uvicorn's own protocols: bodies, refusals, a client that leaves, an answer that breaks off."""

    async def handle(upstream: Origin, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await upstream.request(reader)
        writer.write(OK if b"/never" not in head else b"")
        await writer.drain()
        await reader.read(1)

    async with origin(handle) as upstream, Gateway(config(upstream.port), ledger=ledger) as gateway:
        server = uvicorn.Server(
            uvicorn.Config(gateway.app, port=0, http=http, ws="none", lifespan="on", log_level="critical")  # type: ignore[arg-type]
        )
        task = asyncio.create_task(server.serve())
        while not server.started:
            await asyncio.sleep(0.01)
        port = server.servers[0].sockets[0].getsockname()[1]
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"POST /api/ HTTP/1.1\r\nhost: gate\r\ncontent-length: 5\r\n\r\nhello")
        assert (await reader.readuntil(b"hi")).startswith(b"HTTP/1.1 200")
        writer.write(b"GET /api/../x HTTP/1.1\r\nhost: gate\r\n\r\n")
        assert (await reader.readuntil(b"}")).startswith(b"HTTP/1.1 400")
        writer.close()
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"GET /api/never HTTP/1.1\r\nhost: gate\r\n\r\n")
        while not any(b"/never" in head for head in upstream.heads):
            await asyncio.sleep(0.01)
        writer.transport.abort()
        async with asyncio.timeout(60):
            while len(gateway.app) or gateway.tasks.statistics().size > 1:
                await asyncio.sleep(0.01)
        assert gateway.history.latest(1)[0].status == 499
        assert upstream.bodies[0] == b"hello"
        server.should_exit = True
        await task
