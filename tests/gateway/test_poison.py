"""Upstreams that try to leave something behind: whatever one answer was, the next client gets its own."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct

import pytest
from tests.gateway.origin import Origin, body, config, gate, origin

from flatwater.bounded import Ledger

H = b"host: gate\r\n"
HEAD = b"HTTP/1.1 200 OK\r\n"
GOOD = HEAD + b"content-length: 4\r\n\r\ngood"
EVIL = HEAD + b"content-length: 4\r\n\r\nevil"
CHUNKED = HEAD + b"transfer-encoding: chunked\r\n\r\n"
TIMES = """timeout = { connect_s = 1.0, first_byte_s = 0.5, idle_s = 0.5, total_s = 2.0 }
retry = { attempts = 1 }
ejection = { failures = 1000000 }"""

# What is answered to /bad, part by part with a pause between; methods that have no body are told before a colon.
POISON = {
    "a second answer": [GOOD + EVIL],
    "a second answer later": [GOOD, EVIL],
    "half of a second answer": [GOOD + EVIL[:20]],
    "bytes that are no answer": [GOOD + b"\0\xff junk"],
    "line ends": [GOOD + b"\r\n\r\n"],
    "an interim answer after the answer": [GOOD + b"HTTP/1.1 100 Continue\r\n\r\n", EVIL],
    "longer than its length": [HEAD + b"content-length: 2\r\n\r\ngood" + EVIL],
    "a body for HEAD": [HEAD + b"content-length: 4\r\n\r\nevil"],
    "an answer in the body for HEAD": [HEAD + b"content-length: %d\r\n\r\n" % len(EVIL) + EVIL],
    "chunks for HEAD": [CHUNKED + b"4\r\nevil\r\n0\r\n\r\n"],
    "a body for 204": [b"HTTP/1.1 204 No\r\ncontent-length: %d\r\n\r\n" % len(EVIL) + EVIL],
    "a body for 304": [b"HTTP/1.1 304 No\r\ncontent-length: %d\r\n\r\n" % len(EVIL) + EVIL],
    "chunks for 304": [b"HTTP/1.1 304 No\r\ntransfer-encoding: chunked\r\n\r\n4\r\nevil\r\n0\r\n\r\n"],
    "an interim answer with a body": [b"HTTP/1.1 103 E\r\ncontent-length: %d\r\n\r\n" % len(EVIL) + EVIL],
    "an interim answer with chunks": [
        b"HTTP/1.1 103 E\r\ntransfer-encoding: chunked\r\n\r\n4\r\nevil\r\n0\r\n\r\n" + GOOD
    ],
    "after the last chunk": [CHUNKED + b"4\r\ngood\r\n0\r\n\r\n" + EVIL],
    "after the trailers": [CHUNKED + b"4\r\ngood\r\n0\r\nx: y\r\n\r\n" + EVIL],
    "an answer in a trailer": [CHUNKED + b"4\r\ngood\r\n0\r\nHTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nevil"],
    "an answer in a chunk extension": [CHUNKED + b"4;" + EVIL.replace(b"\r\n", b"\n") + b"\r\ngood\r\n0\r\n\r\n"],
    "chunks and a length": [HEAD + b"transfer-encoding: chunked\r\ncontent-length: 4\r\n\r\n0\r\n\r\n" + EVIL],
    "a length and chunks": [HEAD + b"content-length: 4\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n" + EVIL],
    "chunks in HTTP/1.0": [b"HTTP/1.0 200 OK\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n" + EVIL],
    "a length in a list": [HEAD + b"content-length: 4, 4\r\n\r\ngood" + EVIL],
    "a length with a sign": [HEAD + b"content-length: +4\r\n\r\ngood" + EVIL],
    "a length beyond all": [HEAD + b"content-length: 18446744073709551620\r\n\r\ngood" + EVIL],
    "a chunk beyond all": [CHUNKED + b"fffffffffffffffff4\r\ngood\r\n0\r\n\r\n" + EVIL],
    "a chunk with a sign": [CHUNKED + b"+4\r\ngood\r\n0\r\n\r\n" + EVIL],
    "a chunk without its end": [CHUNKED + b"4\r\ngoodevil\r\n0\r\n\r\n"],
    "two status lines": [b"HTTP/1.1 200 OK\r\n" + EVIL],
    "a field without a name": [HEAD + b": x\r\ncontent-length: 4\r\n\r\nevil"],
    "a carriage return in a value": [HEAD + b"a: b\rcontent-length: 4\r\n\r\nevil"],
    "folded framing": [HEAD + b"transfer-encoding:\r\n chunked\r\n\r\n4\r\nevil\r\n0\r\n\r\n"],
    "many fields": [HEAD + b"a: b\r\n" * 50_000],
    "many interim fields": [(b"HTTP/1.1 103 E\r\n" + b"a: b\r\n" * 9_000 + b"\r\n") * 20 + EVIL],
    "a huge trailer": [CHUNKED + b"0\r\n" + b"a: b\r\n" * 50_000],
    "a switch of protocols": [b"HTTP/1.1 101 S\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n" + EVIL],
}


LATER = ("a second answer later", "an interim answer after the answer")


def handler(parts: list[bytes], *, reset: bool = False) -> object:
    async def handle(found: Origin, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            bad = b"/bad" in await found.request(reader)
            for part in parts if bad else [GOOD]:
                writer.write(part)
                await writer.drain()
                await asyncio.sleep(0.02 if bad else 0)
            if bad and reset:
                linger = struct.pack("ii", 1, 0)
                writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
                return

    return handle


@pytest.mark.parametrize("name", POISON)
async def test_next_client_gets_its_own_answer(name: str, ledger: Ledger) -> None:
    method = b"HEAD" if "HEAD" in name else b"GET"
    async with origin(handler(POISON[name])) as upstream, gate(config(upstream.port, TIMES), ledger) as front:  # type: ignore[arg-type]
        asked = method + b" /api/bad HTTP/1.1\r\n" + H + b"connection: close\r\n\r\n"
        for _ in range(2):
            await front.ask(asked, until_close=True)
            if name in LATER:  # what comes before the next request is seen; after it nobody could tell
                async with asyncio.timeout(90):
                    while front.gateway.statistics().services[0].endpoints[0].pool.size:
                        await asyncio.sleep(0.005)
            for _ in range(3):
                good = await front.get("/api/good")
                assert (good.status, good.body) == (200, b"good"), name
        await front.at_rest()


@pytest.mark.parametrize("parts", [[HEAD], [b"HTTP/1.1 2"], [GOOD[:-2]], [CHUNKED + b"4\r\ngo"], [CHUNKED + b"4"], []])
async def test_reset_is_an_end_with_a_reason(parts: list[bytes], ledger: Ledger) -> None:
    async with (
        origin(handler(parts, reset=True)) as upstream,  # type: ignore[arg-type]
        gate(config(upstream.port, TIMES), ledger) as front,
    ):
        for _ in range(2):
            bad = await front.ask(b"GET /api/bad HTTP/1.1\r\n" + H + b"connection: close\r\n\r\n", until_close=True)
            assert bad.status == 502 or not bad.raw.endswith((b"good", b"0\r\n\r\n"))
            assert (await front.get("/api/good")).body == b"good"
        await front.at_rest()
        assert front.gateway.history.latest(2)[1].reason in ("truncated", "reset", "stale_connection")


DRIPS = {
    "head": HEAD + b"a: " + b"b" * 10_000,
    "interim answers": b"HTTP/1.1 103 E\r\n\r\n" * 10_000,
    "body": HEAD + b"content-length: 10000\r\n\r\n" + b"b" * 10_000,
    "chunk extension": CHUNKED + b"4;" + b"a" * 10_000,
    "trailer": CHUNKED + b"0\r\na: " + b"b" * 10_000,
}


@pytest.mark.parametrize("name", DRIPS)
async def test_drip_ends_in_time(name: str, ledger: Ledger) -> None:
    """A byte every few milliseconds: something always moves, and still there is an end."""

    async def drip(found: Origin, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await found.request(reader)
        for byte in DRIPS[name]:
            writer.write(bytes([byte]))
            await writer.drain()
            await asyncio.sleep(0.005)

    async with origin(drip) as upstream, gate(config(upstream.port, TIMES), ledger) as front:
        await front.ask(b"GET /api/ HTTP/1.1\r\n" + H + b"connection: close\r\n\r\n", until_close=True)
        await front.at_rest()
        assert front.gateway.history.latest(1)[0].reason in ("first_byte_timeout", "total_timeout", "bad_response")


@pytest.mark.parametrize("size", [3_000, 3_000_000])
@pytest.mark.parametrize("framing", ["sized", "chunked"])
async def test_early_answer_leaves_no_body_behind(framing: str, size: int, ledger: Ledger) -> None:
    """The upstream answers after the head; the rest of the body must not be taken for the next request there."""

    async def handle(found: Origin, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            head = await found.head(reader)
            writer.write(GOOD)
            await writer.drain()
            await body(reader, head)

    smuggled = b"GET /evil HTTP/1.1\r\nhost: gate\r\n\r\n"
    data = smuggled * (size // len(smuggled))
    head = b"POST /api/bad HTTP/1.1\r\n" + H
    if framing == "sized":
        asked = head + b"content-length: %d\r\n\r\n" % len(data) + data
    else:
        asked = head + b"transfer-encoding: chunked\r\n\r\n%x\r\n%b\r\n0\r\n\r\n" % (len(data), data)
    async with origin(handle) as upstream, gate(config(upstream.port, TIMES), ledger) as front:
        for _ in range(2):
            with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
                await front.ask(asked)
            assert (await front.get("/api/good")).body == b"good"
        await front.at_rest()
        assert [found.split(b" ")[1] for found in upstream.heads] == [b"/bad", b"/good"] * 2
