"""Upstreams that are dead, slow or lying: an answer with a reason, soon, and nothing left over."""

from __future__ import annotations

import asyncio
import time

import pytest
from tests.gateway.origin import OK, Origin, answering, config, gate, origin

from flatwater.bounded import Ledger

TIMES = """timeout = { connect_s = 1.0, first_byte_s = 0.5, idle_s = 0.5, total_s = 5.0 }
retry = { attempts = 1 }"""

HEAD = b"HTTP/1.1 200 OK\r\n"
BROKEN = {
    "not HTTP": (b"SSH-2.0-OpenSSH\r\n\r\n", "bad_response"),
    "HTTP/3": (b"HTTP/3.0 200 OK\r\ncontent-length: 0\r\n\r\n", "bad_response"),
    "no version": (b"200 OK\r\n\r\n", "bad_response"),
    "a status that is none": (b"HTTP/1.1 999 What\r\ncontent-length: 0\r\n\r\n", "bad_response"),
    "both lengths": (HEAD + b"content-length: 2\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n", "bad_response"),
    "two lengths": (HEAD + b"content-length: 2\r\ncontent-length: 3\r\n\r\nhi", "bad_response"),
    "negative length": (HEAD + b"content-length: -2\r\n\r\nhi", "bad_response"),
    "unknown coding": (HEAD + b"transfer-encoding: gzip, chunked\r\n\r\n0\r\n\r\n", "bad_response"),
    "coding twice": (HEAD + b"transfer-encoding: chunked\r\n" * 2 + b"\r\n0\r\n\r\n", "bad_response"),
    "folded header": (HEAD + b"a: b\r\n c\r\ncontent-length: 0\r\n\r\n", "bad_response"),
    "space before colon": (HEAD + b"a : b\r\ncontent-length: 0\r\n\r\n", "bad_response"),
    "bare line feeds": (b"HTTP/1.1 200 OK\ncontent-length: 0\n\n", "bad_response"),
    "NUL in a value": (HEAD + b"a: b\0c\r\ncontent-length: 0\r\n\r\n", "bad_response"),
    "101 unasked": (b"HTTP/1.1 101 S\r\nconnection: upgrade\r\nupgrade: h2c\r\n\r\n", "bad_response"),
    "endless 1xx": (b"HTTP/1.1 103 Early\r\n\r\n" * 50, "bad_response"),
    "huge head": (HEAD + b"a: " + b"x" * 400_000, "response_head_too_large"),
    "half a head": (b"HTTP/1.1 200 OK\r\ncontent-le", "truncated"),
    "half a status line": (b"HTT", "truncated"),
    "nothing": (b"", "reset"),
}


@pytest.mark.parametrize("name", BROKEN)
async def test_broken_head_is_502(name: str, ledger: Ledger) -> None:
    data, reason = BROKEN[name]
    answer = answering(data, then_close=True)
    async with origin(answer) as upstream, gate(config(upstream.port, TIMES), ledger) as front:
        reply = await front.get()
        assert (reply.status, reply["x-flatwater-reason"]) == (502, reason), reply.raw
        assert reply["content-type"] == "application/problem+json"
        assert reply["x-request-id"]
        await front.at_rest()
        assert front.gateway.statistics().services[0].refused == {reason: 1}


TRUNCATED = {
    "short of its length": HEAD + b"content-length: 100\r\n\r\nonly this",
    "in a chunk": HEAD + b"transfer-encoding: chunked\r\n\r\n64\r\nonly this",
    "before the last chunk": HEAD + b"transfer-encoding: chunked\r\n\r\n4\r\nthis\r\n",
    "bad chunk": HEAD + b"transfer-encoding: chunked\r\n\r\n4\r\nthis\r\nzz\r\n",
    "endless trailer": HEAD + b"transfer-encoding: chunked\r\n\r\n0\r\na: " + b"x" * 400_000,
}


@pytest.mark.parametrize("name", TRUNCATED)
async def test_broken_body_cannot_pass_for_a_whole_one(name: str, ledger: Ledger) -> None:
    """Sent in two parts, so that the head has gone to the client when the rest turns out to be broken."""
    head, _, body = TRUNCATED[name].partition(b"\r\n\r\n")

    async def handle(origin: Origin, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await origin.request(reader)
        writer.write(head + b"\r\n\r\n")
        await asyncio.sleep(0.1)
        writer.write(body)
        await writer.drain()
        await asyncio.sleep(0.1)

    async with origin(handle) as upstream, gate(config(upstream.port, TIMES), ledger) as front:
        reader, writer = await asyncio.open_connection("127.0.0.1", front.port)
        writer.write(b"GET /api/ HTTP/1.1\r\nhost: gate\r\n\r\n")
        raw = b""
        async with asyncio.timeout(60):
            try:
                while data := await reader.read(65536):
                    raw += data
            except ConnectionResetError:
                pass
        writer.close()
        assert raw.startswith(b"HTTP/1.1 200 OK")
        assert not raw.endswith(b"0\r\n\r\n"), "a truncated body was ended as if it were whole"
        await front.at_rest()


@pytest.mark.parametrize(
    ("parts", "reason"),
    [((), "first_byte_timeout"), ((b"HTTP/1.1 2",), "first_byte_timeout")],
    ids=["silent", "half a head"],
)
async def test_slow_upstream_is_504(parts: tuple[bytes, ...], reason: str, ledger: Ledger) -> None:
    async with origin(answering(*parts)) as upstream, gate(config(upstream.port, TIMES), ledger) as front:
        began = time.monotonic()
        reply = await front.get()
        assert (reply.status, reply["x-flatwater-reason"]) == (504, reason)
        assert time.monotonic() - began < 60
        await front.at_rest()


async def test_stalled_body_ends_the_connection(ledger: Ledger) -> None:
    stalled = answering(HEAD + b"content-length: 100\r\n\r\nsome")
    async with origin(stalled) as upstream, gate(config(upstream.port, TIMES), ledger) as front:
        raw = await _all(front.port)
        assert raw.endswith(b"some")
        await front.at_rest()
        assert front.gateway.history.latest(1)[0].reason == "idle_timeout"


async def test_total_time_holds_for_a_trickle(ledger: Ledger) -> None:
    async def trickle(origin: Origin, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await origin.request(reader)
        writer.write(HEAD + b"content-length: 100000\r\n\r\n")
        while True:
            writer.write(b"x")
            await writer.drain()
            await asyncio.sleep(0.05)

    times = "timeout = { first_byte_s = 1.0, idle_s = 1.0, total_s = 1.0 }"
    async with origin(trickle) as upstream, gate(config(upstream.port, times), ledger) as front:
        await _all(front.port)
        await front.at_rest()
        assert front.gateway.history.latest(1)[0].reason == "total_timeout"


async def _all(port: int) -> bytes:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"GET /api/ HTTP/1.1\r\nhost: gate\r\n\r\n")
    raw = b""
    async with asyncio.timeout(60):
        try:
            while data := await reader.read(65536):
                raw += data
        except ConnectionResetError:
            pass
    writer.close()
    return raw


async def test_dead_upstream_is_502(ledger: Ledger, unused_port: int) -> None:
    async with gate(config(unused_port, TIMES), ledger) as front:
        reply = await front.get()
        assert (reply.status, reply["x-flatwater-reason"]) == (502, "connect_failed")
        assert str(unused_port) not in reply.raw.decode(), "inner addresses are nobody's business"
        await front.at_rest()


async def test_bytes_after_an_answer_never_reach_the_next_client(ledger: Ledger) -> None:
    """Response splitting: what an upstream sends beyond its answer is dropped with the connection."""
    surplus = OK + b"HTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\nsecret"
    async with origin(surplus) as upstream, gate(config(upstream.port, TIMES), ledger) as front:
        for _ in range(3):
            reply = await front.get()
            assert (reply.status, reply.body) == (200, b"hi")
        await front.at_rest()
        assert upstream.accepted == 3


async def test_upstream_that_closes_idle_connections_is_asked_again(ledger: Ledger) -> None:
    """Each reuse meets a connection that the upstream is just closing: the client never sees it."""

    async def once(origin: Origin, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await origin.request(reader)
        writer.write(OK)
        await writer.drain()
        await reader.read(1)  # the next request comes, and the connection goes

    async with origin(once) as upstream, gate(config(upstream.port, TIMES), ledger) as front:
        for _ in range(6):
            assert (await front.get()).body == b"hi"
        await front.at_rest()
        found = front.gateway.statistics().services[0].endpoints[0]
        assert found.failures == 0
        assert found.pool.reused >= 2


async def test_post_on_a_stale_connection_is_not_repeated(ledger: Ledger) -> None:
    async def once(origin: Origin, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await origin.request(reader)
        writer.write(OK)
        await writer.drain()
        await origin.request(reader)

    async with origin(once) as upstream, gate(config(upstream.port, TIMES), ledger) as front:
        post = b"POST /api/ HTTP/1.1\r\nhost: gate\r\ncontent-length: 3\r\n\r\nabc"
        assert (await front.ask(post)).status == 200
        reply = await front.ask(post)
        assert (reply.status, reply["x-flatwater-reason"]) == (502, "stale_connection")
        assert upstream.bodies == [b"abc", b"abc"]
