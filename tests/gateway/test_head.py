"""The memo of request heads: with it and without it clients and upstreams get the same bytes; its bounds hold."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import random
import re
import tracemalloc
import weakref
from collections.abc import AsyncIterator
from dataclasses import dataclass

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.gateway.origin import OK, Gate, Origin, config, gate, origin, reply

from flatwater.bounded import Ledger
from flatwater.errors import SettingError
from flatwater.gateway import Config, parse
from flatwater.gateway.head import Head, Heads
from flatwater.gateway.request import Inspector
from flatwater.gateway.shelf import MAX_INLINE_BYTES
from flatwater.gateway.upstream import Upstream

ANSWERS = {
    b"/fresh": b"cache-control: max-age=60\r\n",
    b"/tagged": b'cache-control: max-age=10\r\netag: "1"\r\nlast-modified: Sat, 01 Jan 2022 00:00:00 GMT\r\n',
    b"/while": b'cache-control: max-age=10, stale-while-revalidate=1000\r\netag: "1"\r\n',
    b"/varied": b"cache-control: max-age=60\r\nvary: accept-encoding\r\n",
    b"/never": b"cache-control: no-store\r\n",
}


async def answer(upstream: Origin, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Fields by the path; the body tells target and coding."""
    while True:
        head = await upstream.request(reader)
        method, target, _ = head.split(b"\r\n")[0].split(b" ")
        fields = ANSWERS.get(target[target.rfind(b"/") :].partition(b"?")[0], b"")
        if b'if-none-match: "1"' in head.lower():
            writer.write(b"HTTP/1.1 304 Not Modified\r\n" + fields + b"\r\n")
            continue
        coding = re.search(rb"accept-encoding: (.*)\r\n", head.lower())
        body = target + (b" " + coding[1] if coding else b"")
        writer.write(b"HTTP/1.1 200 OK\r\n%bcontent-length: %d\r\n\r\n" % (fields, len(body)))
        writer.write(b"" if method == b"HEAD" else body)
        await writer.drain()


def head(target: bytes, *lines: bytes, method: bytes = b"GET", host: bytes = b"Host: gate") -> bytes:
    fields = [line for line in (host, *lines) if line]
    return b"\r\n".join([b"%b %b HTTP/1.1" % (method, target), *fields, b"", b""])


HEADS = [
    *(head(b"/api" + target) for target in ANSWERS),
    head(b"/api/fresh", method=b"HEAD"),
    head(b"/api/fresh?a=b"),
    head(b"http://gate/api/fresh"),
    head(b"/api/fresh", host=b"host: other"),
    head(b"/api/varied", b"Accept-Encoding: gzip, br"),
    head(b"/api/varied", b"Accept-Encoding: br, gzip"),
    head(b"/api/varied", b"Accept-Encoding: zstd"),
    head(b"/api/tagged", b'If-None-Match: "1"'),
    head(b"/api/tagged", b'If-None-Match: "2"'),
    head(b"/api/tagged", b"If-Modified-Since: Sat, 01 Jan 2022 00:00:00 GMT"),
    head(b"/api/fresh", b"Range: bytes=1-3"),
    head(b"/api/fresh", b"Range: bytes=100-"),
    head(b"/api/fresh", b"Cache-Control: no-cache"),
    head(b"/api/fresh", b"Cache-Control: only-if-cached"),
    head(b"/api/tagged", b"Cache-Control: max-stale"),
    head(b"/api/fresh", b"X-Request-Id: mine"),
    head(b"/api/never", b"X-Forwarded-For: 10.0.0.1", b"Via: 1.0 old", b"X-Forwarded-Proto: https"),
    head(b"/api/never", b"Connection: keep-alive, x-a", b"X-A: b", b"TE: trailers"),
    head(b"/api/fresh", b"Connection: close"),
    head(b"/api/fresh", b"Authorization: Basic x"),
    head(b"/api/fresh", b"Expect: 100-continue"),
    head(b"/api/fresh").replace(b"HTTP/1.1", b"HTTP/1.0"),
    head(b"/api/fresh", b"Content-Length: 2") + b"hi",
    head(b"/api/fresh", b"Transfer-Encoding: chunked") + b"2\r\nhi\r\n0\r\n\r\n",
    head(b"/api/fresh", b"Content-Length: 0", method=b"POST"),
    head(b"/elsewhere/fresh"),
    head(b"/api/fresh", host=b""),
    head(b"/api/../fresh"),
    b"\r\n" + head(b"/api/fresh"),
    head(b"/api/fresh") + b"\r\n",
    head(b"/api/fresh").replace(b"\r\n", b"\n"),
    head(b"/api/fresh") + b"\0",
    head(b"/api/fresh", b"Upgrade: websocket", b"Connection: upgrade"),
]
OFTEN = [*HEADS[:5], HEADS[9]]


@dataclass(frozen=True)
class Step:
    """Requests in a row on one of the connections. ``wait_s`` passes before, ``reload`` comes before; the bytes are cut
    in two at a share of them."""

    client: int
    requests: list[bytes]
    wait_s: float = 0.0
    reload: bool = False
    cut: float = 1.0


OTHER = st.builds(  # asks for the same with other fields
    lambda often, lines: often[:-2] + b"".join(lines) + b"\r\n",
    st.sampled_from(OFTEN),
    st.lists(
        st.one_of(
            st.integers(0, 99).map(lambda number: b"X-A: %d\r\n" % number),
            st.sampled_from(
                [
                    *(b"X-Request-Id: a\r\n", b"X-Request-Id: b\r\n", b"X-Request-Id:\r\n", b"X-Request-Id: \xe9\r\n"),
                    *(b"Connection: keep-alive\r\n", b"Connection: close\r\n", b"connection: Keep-Alive, X-A\r\n"),
                    *(b"Host: gate\r\n", b"Host:\r\n", b"Accept-Encoding: br\r\n", b"Pragma: no-cache\r\n"),
                    *(
                        b"Via: 1.0 a\r\n",
                        b"Upgrade: h2c\r\n",
                        b'If-None-Match: "1"\r\n',
                        b"X-B: %b\r\n" % (b"c" * 3000),
                    ),
                ]
            ),
        ),
        min_size=1,
        max_size=3,
    ),
)
REQUEST = st.one_of(st.sampled_from(OFTEN), OTHER, st.sampled_from(HEADS))
STEPS = st.lists(
    st.builds(
        Step,
        client=st.integers(0, 1),
        requests=st.one_of(REQUEST.map(lambda one: [one]), st.lists(REQUEST, min_size=1, max_size=3)),
        wait_s=st.sampled_from([0.0] * 6 + [11.0, 70.0]),
        reload=st.sampled_from([False] * 9 + [True]),
        cut=st.sampled_from([1.0] * 5 + [0.3, 0.9]),
    ),
    min_size=4,
    max_size=14,
)


def gateway(port: int, entries: int, *, other: bool = False) -> Config:
    return parse(
        f'[front]\nmemo_entries = {entries}\ntrusted_proxies = ["127.0.0.2"]\n'
        f'[services.api]\nendpoints = ["http://127.0.0.1:{port}"]\ncache = {{ enabled = true }}\n'
        + ("strip_prefix = false\n" if other else "")
    )


class Twin:
    """A gateway with its upstream and two clients of different addresses."""

    def __init__(self, front: Gate, upstream: Origin, entries: int, now: list[float]) -> None:
        self.front = front
        self.upstream = upstream
        self.told: list[bytes] = []
        self._entries = entries
        self._now = now
        self._other = False
        self._streams: dict[int, tuple[asyncio.StreamReader, asyncio.StreamWriter]] = {}

    async def take(self, step: Step) -> None:
        self._now[0] += step.wait_s
        if step.reload:
            self._other = not self._other
            self.front.gateway.reload(gateway(self.upstream.port, self._entries, other=self._other))
        if step.client not in self._streams:
            self._streams[step.client] = await asyncio.open_connection(
                "127.0.0.1", self.front.port, local_addr=(f"127.0.0.{1 + step.client}", 0)
            )
        reader, writer = self._streams[step.client]
        data = b"".join(step.requests)
        at = int(len(data) * step.cut)
        writer.write(data[:at])
        if data[at:]:
            await asyncio.sleep(0.002)  # so that it comes in two reads, most of the time
            writer.write(data[at:])
        for request in step.requests:
            found = await reply(reader, head_only=request.startswith(b"HEAD"))
            self.told.append(found.raw.partition(b"\r\n\r\n")[0] + b"\r\n\r\n" + found.body)
            if not found.raw or found["connection"] == "close":
                await self._leave(step.client)
                break
        else:
            if step.requests[-1].endswith(b"\0"):  # nobody answers that before more comes
                await self._leave(step.client)
        while self.front.gateway.running():
            await asyncio.sleep(0.001)

    async def stop(self) -> None:
        for client in list(self._streams):
            await self._leave(client)
        await self.front.at_rest()

    async def _leave(self, client: int) -> None:
        _, writer = self._streams.pop(client)
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()


@contextlib.asynccontextmanager
async def twin(entries: int) -> AsyncIterator[Twin]:
    now = [1000.0]
    async with (
        origin(answer) as upstream,
        gate(gateway(upstream.port, entries), Ledger(), clock=lambda: now[0]) as front,
    ):
        found = Twin(front, upstream, entries, now)
        try:
            yield found
        finally:
            await found.stop()


VARIABLE = re.compile(rb"\b[0-9a-f]{22}\b|(?<=\r\ndate: )[^\r]*|127\.0\.0\.1:\d+")  # ids, dates, ports


async def compare(steps: list[Step]) -> None:
    async with asyncio.timeout(60), twin(100) as first, twin(0) as second:
        for step in steps:
            await first.take(step)
            await second.take(step)
        for mine, other in ((first.told, second.told), (first.upstream.heads, second.upstream.heads)):
            assert [VARIABLE.sub(b"", one) for one in mine] == [VARIABLE.sub(b"", one) for one in other]
        ours, theirs = first.front.gateway.statistics(), second.front.gateway.statistics()
        assert ours.cache == theirs.cache
        assert ours.requests == theirs.requests
        assert [(record.target, record.status, record.cache) for record in first.front.gateway.history] == [
            (record.target, record.status, record.cache) for record in second.front.gateway.history
        ]
        assert second.front.gateway.app.heads.statistics().hits == 0


@settings(max_examples=40, deadline=None)
@given(STEPS)
def test_memo_changes_no_answer(steps: list[Step]) -> None:
    with asyncio.Runner() as runner:
        runner.run(compare(steps))


async def test_every_head_thrice() -> None:
    """Each by itself on one connection, so that all that may enter do, and are used."""
    for client in (0, 1):
        await compare([Step(client, [one]) for one in HEADS for _ in range(3)])


async def test_what_enters(ledger: Ledger) -> None:
    """One whole head without a body in one read, of a connection that stays, at its second sight; nothing else."""
    async with origin(answer) as upstream, gate(gateway(upstream.port, 100), ledger) as front:
        heads = front.gateway.app.heads
        plain = head(b"/api/fresh")
        never = [one for one in HEADS if one.endswith((b"hi", b"0\r\n\r\n", b"\0", b"\r\n\r\n\r\n", b"\n\n"))]
        never += [plain + plain, plain + b"GET", plain[:-2], head(b"/api/fresh", b"x: " + b"y" * 2048)]
        never += [one for one in HEADS if b"Upgrade" in one or b"Expect" in one or b"close" in one or b"1.0\r" in one]
        for one in never:
            for _ in range(4):
                reader, writer = await asyncio.open_connection("127.0.0.1", front.port)
                writer.write(one)
                writer.write_eof()
                async with asyncio.timeout(90):
                    await reader.read(-1)
                writer.close()
                await writer.wait_closed()
            assert one not in heads
        reader, writer = await asyncio.open_connection("127.0.0.1", front.port)
        for sight in (1, 2, 3):
            before = heads.statistics()
            writer.write(plain)
            assert (await reply(reader)).status == 200
            assert (plain in heads) == (sight > 1)
            assert heads.statistics().entered - before.entered == (sight == 2)
            assert heads.statistics().hits - before.hits == (sight != 2), "first by host and target, then by its bytes"
        writer.close()
        await writer.wait_closed()


@pytest.mark.parametrize("first", [b"GET /api/fresh", b"GET", b"(b'GET', b'/api/fresh')", b"GET\0/api/fresh"])
async def test_a_part_of_a_head_is_no_key(first: bytes, ledger: Ledger) -> None:
    """Whatever names its host: bytes that are no whole head get no answer, and the rest of them gets one."""
    async with origin(answer) as upstream, gate(gateway(upstream.port, 100), ledger) as front, asyncio.timeout(90):
        reader, writer = await asyncio.open_connection("127.0.0.1", front.port)
        for number in range(5):
            writer.write(head(b"/api/fresh", b"X: %d" % number, host=b"Host: GET"))
            assert (await reply(reader)).status == 200
        hits = front.gateway.app.heads.statistics().hits
        assert hits > 0
        assert front.gateway.app.heads.get((b"GET", b"/api/fresh")) is not None
        writer.write(first)
        for _ in range(20):
            await asyncio.sleep(0.001)
        assert front.gateway.app.heads.statistics().hits == hits + 1
        writer.write(head(b"/api/fresh")[len(first) :])
        found = await reply(reader)
        assert found.status == (200 if head(b"/api/fresh").startswith(first) else 400)
        writer.close()
        await writer.wait_closed()


@pytest.mark.parametrize("size", [0, MAX_INLINE_BYTES, MAX_INLINE_BYTES + 1, 700_000])
async def test_hits_of_any_size(size: int, ledger: Ledger) -> None:
    """One after the other, and several at once, more than the buffers take."""
    data = random.Random(size).randbytes(size)
    stored = b"HTTP/1.1 200 OK\r\ncache-control: max-age=60\r\ncontent-length: %d\r\n\r\n" % size + data
    async with (
        origin(stored) as upstream,
        gate(config(upstream.port, "cache = { enabled = true }"), ledger) as front,
        asyncio.timeout(60),
    ):
        reader, writer = await asyncio.open_connection("127.0.0.1", front.port)
        for count in (1, 1, 1, 1, 5, 5):
            writer.write(head(b"/api/") * count)
            for _ in range(count):
                assert (await reply(reader)).body == data
        assert len(upstream.heads) == 1
        writer.close()
        await writer.wait_closed()
        await front.at_rest()


async def test_reload_forgets(ledger: Ledger) -> None:
    cached = "cache = { enabled = true }"
    async with origin(OK) as first, origin(OK.replace(b"hi", b"ho")) as second:  # noqa: SIM117
        async with gate(config(first.port, cached), ledger) as front:
            reader, writer = await asyncio.open_connection("127.0.0.1", front.port)

            async def ask() -> bytes:
                writer.write(head(b"/api/"))
                return (await reply(reader)).body

            assert {await ask() for _ in range(4)} == {b"hi"}
            assert head(b"/api/") in front.gateway.app.heads
            gone = weakref.ref(front.gateway.services()["api"])
            front.gateway.reload(config(second.port, cached))
            assert len(front.gateway.app.heads) == 0
            assert {await ask() for _ in range(4)} == {b"ho"}
            async with asyncio.timeout(90):
                while gone() is not None:
                    await asyncio.sleep(0.05)
                    gc.collect()
            writer.close()
            await writer.wait_closed()


@contextlib.asynccontextmanager
async def service(ledger: Ledger) -> AsyncIterator[Upstream]:
    async with gate(config(1), ledger) as front:
        yield front.gateway.services()["api"]


INSPECTOR = Inspector(config(1).front)


def made(raw: bytes, upstream: Upstream) -> Head:
    """As the front and the proxy make it."""
    fields = [(name.lower(), value) for line in raw.split(b"\r\n")[1:-2] for name, _, value in [line.partition(b": ")]]
    path = raw.split(b" ")[1]
    request = INSPECTOR.check("GET", "1.1", path, b"", fields)
    return Head("GET", request, upstream, path, fields, b"api http://gate" + path, True)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 30), st.sampled_from([1, 1, 1, 300, 3000])), max_size=150),
    st.integers(0, 12),
    st.integers(0, 40_000),
)
def test_bounds_hold(sent: list[tuple[int, int]], max_entries: int, max_bytes: int) -> None:
    async def check() -> None:
        ledger = Ledger()
        async with service(ledger) as upstream:
            heads = Heads("tried", max_entries=max_entries, max_bytes=max_bytes, max_head_bytes=2048, ledger=ledger)
            seen: set[bytes] = set()
            for number, size in sent:
                raw = head(b"/api/%d" % number, b"x: " + b"y" * size)
                found = heads.get(raw)
                assert found is None or (found.path == b"/api/%d" % number and raw in seen)
                if found is None and heads.again(raw):
                    heads.enter(raw, made(raw, upstream))
                    heads.enter(raw, made(raw, upstream))
                assert raw in seen or heads.get(raw) is None, "it enters at its second sight at the earliest"
                seen.add(raw)
                told = heads.statistics()
                assert told.size <= max_entries == told.bound
                assert told.bytes is not None
                assert 0 <= told.bytes <= max_bytes == told.max_bytes
                assert told.size == told.entered - told.evictions
                assert (told.bytes == 0) == (told.size == 0)
            heads.clear()
            assert (len(heads), heads.statistics().bytes) == (0, 0)

    with asyncio.Runner() as runner:
        runner.run(check())


async def test_heads_that_differ_do_not_push_out_one_that_repeats(ledger: Ledger) -> None:
    async with service(ledger) as upstream:
        heads = Heads("tried", max_entries=10, max_bytes=10**6, max_head_bytes=2048, ledger=ledger)
        often = head(b"/api/often")
        for number in range(1000):
            raw = head(b"/api/seldom", b"X-Request-Id: %d" % number)
            assert heads.get(raw) is None
            assert not heads.again(raw)
            if heads.get(often) is None:
                assert number < 2
                if heads.again(often):
                    heads.enter(often, made(often, upstream))
        for number in range(200):  # nor do those that come twice and then no more
            raw = head(b"/api/twice/%d" % number)
            assert not heads.again(raw)
            assert heads.again(raw)
            heads.enter(raw, made(raw, upstream))
            assert heads.get(often) is not None
        assert heads.statistics().evictions > 150


async def test_bytes_are_not_counted_short(ledger: Ledger) -> None:
    """What a head takes in memory is at most what the memo reckons, for short ones and long ones."""
    async with service(ledger) as upstream:
        for lines in (0, 8, 60):
            heads = Heads("tried", max_entries=1000, max_bytes=10**8, max_head_bytes=4096, ledger=ledger)
            extra = [b"x-%d: " % line + b"v" * 25 for line in range(lines)]
            tracemalloc.start()
            try:
                before = tracemalloc.get_traced_memory()[0]
                for number in range(200):
                    raw = head(b"/api/%d" % number, *extra)
                    heads.enter(raw, made(raw, upstream))
                    heads.enter((b"gate", b"/api/%d" % number), made(raw, upstream))
                del raw
                taken = tracemalloc.get_traced_memory()[0] - before
            finally:
                tracemalloc.stop()
            reckoned = heads.statistics().bytes
            assert len(heads) == 400
            assert reckoned is not None
            assert 0.4 * reckoned < taken <= reckoned, lines


def test_negative_bounds_are_refused(ledger: Ledger) -> None:
    with pytest.raises(SettingError, match="negative"):
        Heads(max_entries=-1, max_bytes=1, max_head_bytes=1, ledger=ledger)
