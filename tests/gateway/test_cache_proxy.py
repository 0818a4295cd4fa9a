"""The cache in the gateway, end to end over sockets: an upstream that counts, clients that leave, errors, 1xx."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable

import pytest
from tests.gateway.origin import Gate, Handler, Origin, Reply, config, gate, origin

from flatwater.bounded import Ledger
from flatwater.gateway import Config

CACHE = "cache = { enabled = true }\nretry = { attempts = 1 }"
PLAIN = "HTTP/1.1 200 OK\r\ncontent-length: 5\r\ncache-control: {}\r\n{}\r\nhello"


def cached(port: int, more: str = "") -> Config:
    return config(port, CACHE + "\n" + more)


def says(control: str, *lines: str) -> bytes:
    return PLAIN.format(control, "".join(line + "\r\n" for line in lines)).encode()


def in_turn(*answers: bytes) -> Handler:
    """The first request gets the first answer, later ones the next; the last one is repeated. b"" closes."""

    async def handle(here: Origin, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            await here.request(reader)
            answer = answers[min(len(here.heads), len(answers)) - 1]
            if not answer:
                return
            writer.write(answer)
            await writer.drain()

    return handle


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(60):
        while not condition():
            await asyncio.sleep(0.01)


async def test_a_second_request_is_answered_here(ledger: Ledger) -> None:
    async with origin(in_turn(says("max-age=60", "x-a: b"))) as upstream, gate(cached(upstream.port), ledger) as front:
        first, second = await front.get(), await front.get()
        assert (
            (first.status, first.body, first["x-a"])
            == (second.status, second.body, second["x-a"])
            == (200, b"hello", "b")
        )
        assert first["cache-status"] == "flatwater; fwd=uri-miss; fwd-status=200; stored"
        assert second["cache-status"].startswith("flatwater; hit; ttl=")
        assert second["age"] in ("0", "1")
        assert second["x-request-id"]
        assert second["via"]
        assert len(upstream.heads) == 1
        await front.at_rest()


async def test_other_paths_hosts_and_queries_are_others(ledger: Ledger) -> None:
    async with origin(in_turn(says("max-age=60"))) as upstream, gate(cached(upstream.port), ledger) as front:
        for path in ("/api/", "/api/a", "/api/a?b", "/api/a?c", "/api/a"):
            await front.get(path)
        await front.ask(b"GET /api/a HTTP/1.1\r\nhost: other\r\n\r\n")
        assert len(upstream.heads) == 5
        await front.at_rest()


async def test_head_ranges_and_conditions_from_one_get(ledger: Ledger) -> None:
    async with (
        origin(in_turn(says("max-age=60", 'etag: "1"'))) as upstream,
        gate(cached(upstream.port), ledger) as front,
    ):
        await front.get()
        head = await front.ask(b"HEAD /api/ HTTP/1.1\r\nhost: gate\r\n\r\n")
        assert (head.status, head["content-length"]) == (200, "5")
        part = await front.get(extra=b"range: bytes=1-2\r\n")
        assert (part.status, part.body, part["content-range"]) == (206, b"el", "bytes 1-2/5")
        none = await front.get(extra=b'if-none-match: "1"\r\n')
        assert (none.status, none.body, none["etag"]) == (304, b"", '"1"')
        assert (await front.get(extra=b"range: bytes=9-\r\n")).status == 416
        assert (await front.get("/api/x", b"cache-control: only-if-cached\r\n")).status == 504
        assert len(upstream.heads) == 1
        await front.at_rest()


async def test_validation(ledger: Ledger) -> None:
    unchanged = b'HTTP/1.1 304 Not Modified\r\netag: "1"\r\ncache-control: max-age=60\r\nx-a: new\r\n\r\n'
    answers = in_turn(says("no-cache", 'etag: "1"', "x-a: old"), unchanged)
    async with origin(answers) as upstream, gate(cached(upstream.port), ledger) as front:
        await front.get()
        renewed = await front.get()
        assert b'if-none-match: "1"' in upstream.heads[1]
        assert (renewed.status, renewed.body, renewed["x-a"]) == (200, b"hello", "new")
        assert renewed["cache-status"] == "flatwater; fwd=stale; fwd-status=304"
        assert (await front.get())["cache-status"].startswith("flatwater; hit")
        assert len(upstream.heads) == 2
        await front.at_rest()


@pytest.mark.parametrize("method", [b"POST", b"PUT", b"DELETE"])
async def test_a_change_invalidates(method: bytes, ledger: Ledger) -> None:
    async with origin(in_turn(says("max-age=60"))) as upstream, gate(cached(upstream.port), ledger) as front:
        await front.get()
        changed = await front.ask(method + b" /api/ HTTP/1.1\r\nhost: gate\r\ncontent-length: 3\r\n\r\nabc")
        assert changed["cache-status"] == "flatwater; fwd=method; fwd-status=200"
        assert upstream.bodies[-1] == b"abc"
        await front.get()
        assert len(upstream.heads) == 3
        await front.at_rest()


async def test_a_get_with_a_body_touches_no_cache(ledger: Ledger) -> None:
    """Its body is not part of the key: who could choose it would choose what others get."""
    async with origin(in_turn(says("max-age=60"))) as upstream, gate(cached(upstream.port), ledger) as front:
        for _ in range(2):
            await front.ask(b"GET /api/ HTTP/1.1\r\nhost: gate\r\ncontent-length: 3\r\n\r\nabc")
        await front.get()
        assert len(upstream.heads) == 3
        await front.at_rest()


@pytest.mark.parametrize(
    "broken",
    [
        b"HTTP/1.1 200 OK\r\ncontent-length: 50\r\ncache-control: max-age=60\r\n\r\nonly this",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\ncache-control: max-age=60\r\n\r\n4\r\nthis\r\n",
    ],
    ids=["sized", "chunked"],
)
async def test_half_an_answer_is_not_stored(broken: bytes, ledger: Ledger) -> None:
    async def handle(here: Origin, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await here.request(reader)
        writer.write(broken if len(here.heads) == 1 else says("max-age=60"))
        await writer.drain()

    async with origin(handle) as upstream, gate(cached(upstream.port), ledger) as front:
        with pytest.raises((asyncio.IncompleteReadError, ConnectionError)):
            await front.get()
        assert (await front.get()).body == b"hello"
        assert len(upstream.heads) == 2
        assert front.gateway.cache is not None
        assert front.gateway.cache.statistics().recording == 0
        await front.at_rest()


async def test_an_unreachable_upstream_is_covered_by_what_is_stale(ledger: Ledger) -> None:
    answers = in_turn(says("max-age=1"), b"")
    async with origin(answers) as upstream, gate(cached(upstream.port), ledger) as front:
        await front.get()
        await asyncio.sleep(1.1)  # the freshness of the response, in whole seconds by its header
        covered = await front.get()
        assert (covered.status, covered.body) == (200, b"hello")
        assert covered["cache-status"] == "flatwater; fwd=stale; detail=disconnected"
        await front.at_rest()


async def test_must_revalidate_is_not_covered(ledger: Ledger) -> None:
    answers = in_turn(says("max-age=1, must-revalidate"), b"")
    async with origin(answers) as upstream, gate(cached(upstream.port), ledger) as front:
        await front.get()
        await asyncio.sleep(1.1)
        assert (await front.get()).status == 502
        await front.at_rest()


async def test_errors_are_covered_where_allowed(ledger: Ledger) -> None:
    error = b"HTTP/1.1 503 No\r\ncontent-length: 2\r\n\r\nno"
    answers = in_turn(says("max-age=1, stale-if-error=60"), error)
    async with origin(answers) as upstream, gate(cached(upstream.port), ledger) as front:
        await front.get()
        await asyncio.sleep(1.1)
        covered = await front.get()
        assert (covered.status, covered.body) == (200, b"hello")
        assert (await front.get(extra=b"cache-control: no-cache\r\n")).status == 503
        await front.at_rest()


async def test_stale_while_revalidating(ledger: Ledger) -> None:
    fresh = says("max-age=60").replace(b"hello", b"fresh")
    answers = in_turn(says("max-age=1, stale-while-revalidate=60", 'etag: "1"'), fresh)
    async with origin(answers) as upstream, gate(cached(upstream.port), ledger) as front:
        await front.get()
        await asyncio.sleep(1.1)
        stale = await front.get(extra=b"range: bytes=0-1\r\n")
        assert (stale.status, stale.body) == (206, b"he")
        await until(lambda: len(upstream.heads) == 2)
        assert b'if-none-match: "1"' in upstream.heads[1]
        assert b"range" not in upstream.heads[1]
        await front.at_rest()
        assert (await front.get()).body == b"fresh"
        assert len(upstream.heads) == 2
        await front.at_rest()


class Slow:
    """An upstream that answers when it is told to."""

    def __init__(self, answer: bytes) -> None:
        self.go = asyncio.Event()
        self.answer = answer

    async def __call__(self, here: Origin, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            await here.request(reader)
            await self.go.wait()
            writer.write(self.answer)
            await writer.drain()


async def crowd(front: Gate, count: int) -> list[Reply]:
    return list(await asyncio.gather(*(front.get() for _ in range(count))))


def waiting(front: Gate) -> int:
    assert front.gateway.flights is not None
    return front.gateway.flights.statistics().waiting


async def test_one_asks_for_all(ledger: Ledger) -> None:
    slow = Slow(says("max-age=60"))
    async with origin(slow) as upstream, gate(cached(upstream.port), ledger) as front, asyncio.TaskGroup() as group:
        all_of_them = group.create_task(crowd(front, 20))
        await until(lambda: waiting(front) == 19)
        slow.go.set()
        assert [reply.body for reply in await all_of_them] == [b"hello"] * 20
        assert len(upstream.heads) == 1
        await front.at_rest()


async def test_what_is_not_stored_is_asked_for_by_each(ledger: Ledger) -> None:
    slow = Slow(says("no-store"))
    async with origin(slow) as upstream, gate(cached(upstream.port), ledger) as front, asyncio.TaskGroup() as group:
        all_of_them = group.create_task(crowd(front, 10))
        await until(lambda: waiting(front) == 9)
        slow.go.set()
        assert [reply.body for reply in await all_of_them] == [b"hello"] * 10
        assert len(upstream.heads) == 10
        await front.at_rest()


async def test_variants_go_their_own_ways(ledger: Ledger) -> None:
    slow = Slow(says("max-age=60", "vary: foo"))
    async with origin(slow) as upstream, gate(cached(upstream.port), ledger) as front, asyncio.TaskGroup() as group:
        one = group.create_task(front.get(extra=b"foo: 1\r\n"))
        await until(lambda: len(upstream.heads) == 1)
        others = [group.create_task(front.get(extra=b"foo: %d\r\n" % number)) for number in (1, 2)]
        await until(lambda: waiting(front) == 2)
        slow.go.set()
        assert [(await task).status for task in (one, *others)] == [200] * 3
        assert len(upstream.heads) == 2
        await front.at_rest()


async def test_a_client_that_leaves_takes_nothing_from_the_others(ledger: Ledger) -> None:
    slow = Slow(says("max-age=60"))
    async with origin(slow) as upstream, gate(cached(upstream.port), ledger) as front, asyncio.TaskGroup() as group:
        _, leaver = await asyncio.open_connection("127.0.0.1", front.port)
        leaver.write(b"GET /api/ HTTP/1.1\r\nhost: gate\r\n\r\n")
        await until(lambda: len(upstream.heads) == 1)
        others = group.create_task(crowd(front, 5))
        await until(lambda: waiting(front) == 5)
        leaver.transport.abort()
        await until(lambda: len(upstream.heads) == 2)  # the next in line has asked
        slow.go.set()
        assert [reply.body for reply in await others] == [b"hello"] * 5
        await front.at_rest()


async def test_a_stored_answer_larger_than_the_buffers_waits_for_a_slow_reader(ledger: Ledger) -> None:
    body = bytes(range(256)) * 3000
    answer = b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\ncache-control: max-age=60\r\n\r\n%b" % (len(body), body)
    async with origin(in_turn(answer)) as upstream, gate(cached(upstream.port), ledger) as front:
        for _ in range(3):
            assert (await front.get()).body == body
        assert len(upstream.heads) == 1
        await front.at_rest()


async def test_interim_answers_are_passed_on_and_not_stored(ledger: Ledger) -> None:
    early = b"HTTP/1.1 103 Early Hints\r\nlink: </a.css>; rel=preload\r\nconnection: x\r\nx: y\r\n\r\n"
    async with origin(in_turn(early + says("max-age=60"))) as upstream, gate(cached(upstream.port), ledger) as front:
        ask = b"GET /api/ HTTP/1.1\r\nhost: gate\r\nconnection: close\r\n\r\n"
        first = (await front.ask(ask, until_close=True)).raw
        assert first.startswith(b"HTTP/1.1 103 Early Hints\r\nlink: </a.css>; rel=preload\r\n\r\nHTTP/1.1 200 OK\r\n")
        second = (await front.ask(ask, until_close=True)).raw
        assert second.startswith(b"HTTP/1.1 200 OK\r\n")
        old = (await front.ask(ask.replace(b"1.1", b"1.0").replace(b"/api/", b"/api/old"), until_close=True)).raw
        assert b"103" not in old.split(b"\r\n")[0]
        assert len(upstream.heads) == 2
        await front.at_rest()


async def test_a_cache_that_a_reload_switches_on_gives_way_too(ledger: Ledger) -> None:
    async with origin(in_turn(says("max-age=60"))) as upstream, gate(config(upstream.port), ledger) as front:
        gateway = front.gateway
        gateway.reload(cached(upstream.port))
        await front.get()
        assert (await front.get())["cache-status"].startswith("flatwater; hit")
        gateway._read_memory = lambda: (9 * 2**27, 10 * 2**27)
        assert gateway.overload is not None
        gateway.overload.check(0.0, time.monotonic())
        assert gateway.cache is not None
        assert len(gateway.cache) == 0
        await front.at_rest()


async def test_memory_pressure_empties_the_cache_and_then_refuses(ledger: Ledger) -> None:
    from flatwater.gateway import Gateway

    async with origin(in_turn(says("max-age=60"))) as upstream, gate(cached(upstream.port), ledger) as front:
        gateway: Gateway = front.gateway
        assert gateway.cache is not None
        assert gateway.overload is not None
        await front.get()
        used = 0.9
        gateway._read_memory = lambda: (int(used * 2**30), 2**30)
        gateway.overload.check(0.0, time.monotonic())
        assert len(gateway.cache) == 0
        used = 0.96
        gateway.overload.check(0.0, time.monotonic())
        refused = await front.get()
        assert (refused.status, refused["x-flatwater-reason"]) == (503, "overloaded")
        assert int(refused["retry-after"]) > 0
        assert gateway.overload.statistics().refused == 1
        used = 0.1
        gateway.overload.check(0.0, time.monotonic())
        assert (await front.get()).status == 200
        await front.at_rest()


@pytest.mark.parametrize("seed", range(2))
async def test_chaos_leaves_nothing(ledger: Ledger, seed: int) -> None:
    """Clients leave, the upstream closes, truncates, is slow: who stays gets an answer, and then all is over.

    Time goes on as clients leave: on a busy machine an answer would be older than its second when it comes.
    """
    dice = random.Random(seed)
    gone = 0
    whole = says("max-age=1, stale-while-revalidate=1", 'etag: "1"')

    async def handle(here: Origin, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            await here.request(reader)
            fate = dice.random()
            await asyncio.sleep(dice.choice([0, 0, 0.01, 0.05]))
            if fate < 0.15:
                return
            if fate < 0.3:
                writer.write(whole[: dice.randrange(len(whole))])
                return
            writer.write(whole if fate < 0.8 else says("no-store"))
            await writer.drain()

    async def client(front: Gate, number: int) -> int:
        await asyncio.sleep(number * 0.004)
        try:
            return await ask(front)
        finally:
            nonlocal gone
            gone += 1

    async def ask(front: Gate) -> int:
        path = f"/api/{dice.randrange(3)}"
        if dice.random() < 0.3:
            _, writer = await asyncio.open_connection("127.0.0.1", front.port)
            writer.write(b"GET %b HTTP/1.1\r\nhost: gate\r\n\r\n" % path.encode())
            await asyncio.sleep(dice.choice([0, 0.005, 0.02]))
            writer.transport.abort()
            return 0
        try:
            reply = await front.get(path)
        except (asyncio.IncompleteReadError, ConnectionError):
            return 1  # the upstream broke off after the head
        assert reply.status != 200 or reply.body == b"hello"
        return reply.status

    def clock() -> float:
        return 1000 + gone * 0.004

    async with origin(handle) as upstream, gate(cached(upstream.port), ledger, clock=clock) as front:
        statuses = await asyncio.gather(*(client(front, number) for number in range(400)))
        assert set(statuses) <= {0, 1, 200, 502, 503, 504}, statuses  # 503: the endpoint is ejected for a while
        assert statuses.count(200) > 50
        await front.at_rest()
        await until(lambda: len(front.gateway.background) == 0)
        assert front.gateway.flights is not None
        assert front.gateway.cache is not None
        flights, cache = front.gateway.flights.statistics(), front.gateway.cache.statistics()
        assert (flights.size, flights.waiting, cache.recording) == (0, 0, 0)
        assert cache.hits
        assert flights.led  # how many of them others waited for depends on the scheduling; test_flight.py holds that
