"""Bodies both ways: framing, streaming, back-pressure, early answers, and clients that leave."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import socket

import pytest
from tests.gateway.origin import OK, Gate, Origin, answering, body, config, gate, origin, reply

from flatwater.bounded import Ledger

LARGE = b"".join(hashlib.sha256(b"%d" % n).digest() for n in range(100_000))  # 3.2 MB that no two chunks repeat

GET = b"GET /api/ HTTP/1.1\r\nhost: gate\r\n\r\n"


def chunked(data: bytes, size: int = 40_000) -> bytes:
    parts = [data[at : at + size] for at in range(0, len(data), size)]
    return b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in parts) + b"0\r\n\r\n"


@pytest.mark.parametrize("data", [b"", b"x", LARGE], ids=["empty", "small", "large"])
@pytest.mark.parametrize("framing", ["sized", "chunked"])
async def test_request_body_arrives(data: bytes, framing: str, ledger: Ledger) -> None:
    async with origin(OK) as upstream, gate(config(upstream.port), ledger) as front:
        head = b"POST /api/ HTTP/1.1\r\nhost: gate\r\n"
        if framing == "sized":
            request = head + b"content-length: %d\r\n\r\n%b" % (len(data), data)
        else:
            request = head + b"transfer-encoding: chunked\r\n\r\n" + chunked(data)
        assert (await front.ask(request)).status == 200
        assert upstream.bodies == [data]
        sent = upstream.heads[0].lower()
        assert (b"content-length: %d\r\n" % len(data) in sent) == (framing == "sized")
        assert (b"transfer-encoding: chunked\r\n" in sent) == (framing == "chunked")
        await front.at_rest()
        assert front.gateway.statistics().services[0].endpoints[0].pool.idle == 1


async def test_request_body_of_a_client_without_host_arrives(ledger: Ledger) -> None:
    """HTTP/1.0 needs no Host: then Content-Length, or Via, is the only field that the gateway deals with."""
    async with origin(OK) as upstream, gate(config(upstream.port), ledger) as front:
        assert (await front.ask(b"POST /api/ HTTP/1.0\r\ncontent-length: 2\r\n\r\nhi")).status == 200
        assert upstream.bodies == [b"hi"]
        assert (await front.ask(b"GET /api/ HTTP/1.0\r\nvia: 1.0 old\r\n\r\n")).status == 200
        assert b"\r\nvia: 1.0 old, 1.1 flatwater\r\n" in upstream.heads[1]


RESPONSES = {
    "sized": b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % len(LARGE) + LARGE,
    "chunked": b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n" + chunked(LARGE),
    "until the end": b"HTTP/1.1 200 OK\r\n\r\n" + LARGE,
    "of HTTP/1.0": b"HTTP/1.0 200 OK\r\n\r\n" + LARGE,
    "after 1xx": b"HTTP/1.1 103 Early\r\nlink: x\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % len(LARGE)
    + LARGE,
}


@pytest.mark.parametrize("name", RESPONSES)
@pytest.mark.parametrize("version", [b"1.1", b"1.0"])
async def test_response_body_arrives(name: str, version: bytes, ledger: Ledger) -> None:
    answer = answering(RESPONSES[name], then_close="0" in name or "end" in name)
    async with origin(answer) as upstream, gate(config(upstream.port), ledger) as front:
        found = await front.ask(b"GET /api/ HTTP/%b\r\nhost: gate\r\n\r\n" % version)
        assert found.status == 200
        assert found.body == LARGE
        if version == b"1.0":
            assert not found["transfer-encoding"], "HTTP/1.0 knows no chunks"
        await front.at_rest()


@pytest.mark.parametrize("framing", [b"content-length: 5\r\n", b"transfer-encoding: chunked\r\n", b""])
async def test_head_has_no_body_and_keeps_the_connection(framing: bytes, ledger: Ledger) -> None:
    async with (
        origin(b"HTTP/1.1 200 OK\r\n" + framing + b"\r\n") as upstream,
        gate(config(upstream.port), ledger) as front,
    ):
        for _ in range(2):
            found = await front.ask(b"HEAD /api/ HTTP/1.1\r\nhost: gate\r\n\r\n")
            assert found.status == 200
            if b"length" in framing:
                assert found["content-length"] == "5"
        assert upstream.accepted == 1


@pytest.mark.parametrize("status", [204, 304])
async def test_answers_without_body(status: int, ledger: Ledger) -> None:
    answer = b"HTTP/1.1 %d X\r\netag: x\r\n\r\n" % status
    async with origin(answer) as upstream, gate(config(upstream.port), ledger) as front:
        found = await front.ask(GET + GET[:-2] + b"connection: close\r\n\r\n", until_close=True)
        assert found.raw.count(b"HTTP/1.1 %d " % status) == 2
        assert b"transfer-encoding" not in found.raw
        assert upstream.accepted == 1


async def test_trailers_reach_a_client_that_takes_them(ledger: Ledger) -> None:
    answer = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\nx-sum: 42\r\n\r\n"
    async with origin(answer) as upstream, gate(config(upstream.port), ledger) as front:
        close = b"connection: close\r\n"
        plain = await front.ask(b"GET /api/ HTTP/1.1\r\nhost: gate\r\n" + close + b"\r\n", until_close=True)
        taken = await front.ask(
            b"GET /api/ HTTP/1.1\r\nhost: gate\r\nte: trailers\r\nconnection: te, close\r\n\r\n", until_close=True
        )
        assert plain.body == b"2\r\nhi\r\n0\r\n\r\n"
        assert taken.body == b"2\r\nhi\r\n0\r\nx-sum: 42\r\n\r\n"


async def test_continue_comes_from_the_upstream(ledger: Ledger) -> None:
    """The upstream sees the head before the body is sent, and its refusal saves the client the body."""

    async def handle(origin: Origin, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await origin.head(reader)
        if b"/large" in head:
            writer.write(b"HTTP/1.1 413 No\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")
            return
        writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        origin.bodies.append(await body(reader, head))
        writer.write(OK)
        await writer.drain()

    async with origin(handle) as upstream, gate(config(upstream.port), ledger) as front:
        head = b"PUT /api/%b HTTP/1.1\r\nhost: gate\r\ncontent-length: 5\r\nexpect: 100-continue\r\n\r\n"
        reader, writer = await asyncio.open_connection("127.0.0.1", front.port)
        writer.write(head % b"small")
        assert await reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
        writer.write(b"hello")
        assert (await reply(reader)).status == 200
        assert upstream.bodies == [b"hello"]
        assert b"expect: 100-continue" in upstream.heads[0]
        writer.write(head % b"large")
        refused = await reply(reader)
        assert (refused.status, refused["connection"]) == (413, "close")
        assert await reader.read() == b""
        writer.close()
        await front.at_rest()


@pytest.mark.parametrize("closes", [True, False])
async def test_answer_that_comes_early_is_not_lost(closes: bool, ledger: Ledger) -> None:
    """The upstream refuses after the head, while the client still sends; it gets the refusal, not a reset."""

    async def handle(origin: Origin, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await origin.head(reader)
        writer.write(b"HTTP/1.1 403 No\r\ncontent-length: 3\r\n\r\nno!")
        await writer.drain()
        if closes:  # its side; a server that closes both with unread bytes resets, and may lose its own answer
            writer.write_eof()
        while await reader.read(2**20):
            pass

    async with origin(handle) as upstream, gate(config(upstream.port), ledger) as front:
        found = await front.ask(
            b"POST /api/ HTTP/1.1\r\nhost: gate\r\ncontent-length: %d\r\n\r\n" % len(LARGE) + LARGE[:1_000_000]
        )
        assert (found.status, found.body) == (403, b"no!")
        await front.at_rest()


async def test_too_large_a_body_is_refused(ledger: Ledger) -> None:
    async with origin(OK) as upstream, gate(config(upstream.port, 'max_body_bytes = "100 KiB"'), ledger) as front:
        head = b"POST /api/ HTTP/1.1\r\nhost: gate\r\n"
        sized = await front.ask(head + b"content-length: 200000\r\n\r\n" + LARGE[:200_000])
        assert (sized.status, sized["x-flatwater-reason"]) == (413, "body_too_large")
        grown = await front.ask(head + b"transfer-encoding: chunked\r\n\r\n" + chunked(LARGE[:1_000_000]))
        assert (grown.status, grown["x-flatwater-reason"]) == (413, "body_too_large")
        await front.at_rest()


async def _leaves(front: Gate, data: bytes, *, after: bytes = b"") -> None:
    """A client that sends ``data``, waits for ``after`` and goes."""
    reader, writer = await asyncio.open_connection("127.0.0.1", front.port)
    writer.write(data)
    await writer.drain()
    if after:
        await reader.readuntil(after)
    else:
        await asyncio.sleep(0.15)
    writer.transport.abort()


@pytest.mark.parametrize(
    ("answer", "sent", "after"),
    [
        ((), GET, b""),
        ((b"HTTP/1.1 200 OK\r\n",), GET, b""),
        ((b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhi",), GET, b"hi"),
        ((b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nhi\r\n",), GET, b"hi"),
        ((), b"POST /api/ HTTP/1.1\r\nhost: gate\r\ncontent-length: 9\r\n\r\nhi", b""),
    ],
    ids=["waiting", "half a head", "in a sized body", "in a chunked body", "sending"],
)
async def test_client_that_leaves_frees_the_connection(
    answer: tuple[bytes, ...], sent: bytes, after: bytes, ledger: Ledger
) -> None:
    """Twenty leave half-way through a pool of four: the upstream sees each connection close, and the pool lives."""
    closed = 0

    async def handle(origin: Origin, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal closed
        if b"/last" in await origin.head(reader):
            writer.write(OK)
            return
        for part in answer:
            writer.write(part)
        try:
            while await reader.read(65536):
                pass
        except ConnectionResetError:
            pass
        closed += 1

    limits = "connections = { max_connections = 4 }\nretry = { attempts = 1 }\n[front]\nhalf_close_s = 0"
    async with origin(handle) as upstream, gate(config(upstream.port, limits), ledger) as front:
        await asyncio.gather(*(_leaves(front, sent, after=after) for _ in range(20)))
        await front.at_rest()
        assert (await front.get("/api/last")).status == 200
        async with asyncio.timeout(60):
            while closed < upstream.accepted - 1:
                await asyncio.sleep(0.01)
        left = front.gateway.statistics().services[0].statuses
        assert left.get("499") == 20


async def test_stalled_readers_are_not_buffered_for(ledger: Ledger) -> None:
    """Eight clients ask for 32 MB each and read nothing: what the gateway holds stays near 64 KiB on each side."""
    size = 32 * 2**20

    async def handle(origin: Origin, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await origin.request(reader)
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % size)
        for _ in range(size // 65536):
            writer.write(bytes(65536))
            await writer.drain()

    async with origin(handle) as upstream, gate(config(upstream.port), ledger) as front:
        clients = []
        for _ in range(8):
            client = socket.create_connection(("127.0.0.1", front.port))
            client.sendall(GET)
            clients.append(client)
        held = [0]
        for _ in range(30):
            await asyncio.sleep(0.05)
            pool = front.gateway.statistics().services[0].endpoints[0].pool
            held.append((pool.bytes or 0) + (front.hall.statistics().bytes or 0))
        assert upstream.accepted == 8
        assert 0 < max(held) <= 8 * (64 + 256 + 64 + 256) * 1024
        for client in clients:
            client.close()
        await front.at_rest()


async def test_upstream_that_does_not_read_is_not_buffered_for(ledger: Ledger) -> None:
    """A client's upload waits with it, and the upload ends by the idle time."""

    async def handle(origin: Origin, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await origin.head(reader)
        writer.transport.pause_reading()  # type: ignore[attr-defined]
        await asyncio.sleep(3600)

    more = "timeout = { first_byte_s = 1.0, idle_s = 1.0 }\nretry = { attempts = 1 }"
    async with origin(handle) as upstream, gate(config(upstream.port, more), ledger) as front:
        reader, writer = await asyncio.open_connection("127.0.0.1", front.port)
        writer.write(b"POST /api/ HTTP/1.1\r\nhost: gate\r\ncontent-length: %d\r\n\r\n" % 2**30)
        sent = 0
        try:
            async with asyncio.timeout(60):
                while sent < 2**28 and not reader._buffer:  # type: ignore[attr-defined]
                    writer.write(bytes(65536))
                    await asyncio.wait_for(writer.drain(), 1.0)
                    sent += 65536
        except TimeoutError:
            pass
        assert sent < 2**26, "the gateway took what nobody read"
        async with asyncio.timeout(60):
            found = await reply(reader)
        assert (found.status, found["x-flatwater-reason"]) == (504, "idle_timeout")
        writer.transport.abort()
        await front.at_rest()


async def test_slow_heads_are_cut_off(ledger: Ledger) -> None:
    async with origin(OK) as upstream:
        given = config(upstream.port, "[listen]\nhead_s = 1.0\nkeep_alive_s = 1.0")
        async with gate(given, ledger) as front:
            reader, writer = await asyncio.open_connection("127.0.0.1", front.port)
            writer.write(b"GET /api/ HTTP/1.1\r\nho")
            async with asyncio.timeout(60):
                with contextlib.suppress(ConnectionResetError):
                    assert await reader.read() == b""
            writer.close()
            await front.get()
            assert front.hall.statistics().timeouts == 1
