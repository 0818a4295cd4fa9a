"""Websockets through the gateway as an ASGI app under uvicorn's own protocols, with servers and clients of the
``websockets`` library at both ends."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest
import uvicorn
import websockets
from hypothesis import given
from hypothesis import strategies as st
from tests.gateway.origin import OK, config, origin
from websockets.asyncio.client import ClientConnection, connect
from websockets.asyncio.server import ServerConnection, serve

from flatwater.bounded import Ledger
from flatwater.gateway import Gateway
from flatwater.gateway.error import ResponseError
from flatwater.gateway.frame import BINARY, CLOSE, PING, TEXT, Frames, masked, read_close, write, write_close

PROTOCOLS = ["websockets-sansio"]  # "websockets" is deprecated, and its warnings are errors here
WAIT_S = 30.0

Handler = Callable[[ServerConnection], Awaitable[None]]


async def echo(connection: ServerConnection) -> None:
    async for message in connection:
        await connection.send(message)


@contextlib.asynccontextmanager
async def served(gateway: Gateway, ws: str) -> AsyncIterator[int]:
    """The port of uvicorn with the gateway as its app."""
    server = uvicorn.Server(
        uvicorn.Config(gateway.app, port=0, ws=ws, lifespan="off", log_level="critical")  # type: ignore[arg-type]
    )
    task = asyncio.create_task(server.serve())
    while not server.started:
        await asyncio.sleep(0.01)
    try:
        yield server.servers[0].sockets[0].getsockname()[1]
    finally:
        server.should_exit = True
        await task


@contextlib.asynccontextmanager
async def bridged(
    handler: Handler, ws: str, ledger: Ledger, more: str = "", **options: object
) -> AsyncIterator[tuple[Gateway, str]]:
    async with serve(handler, "127.0.0.1", 0, **options) as upstream:  # type: ignore[arg-type]
        port = upstream.sockets[0].getsockname()[1]
        async with Gateway(config(port, more), ledger=ledger) as gateway, served(gateway, ws) as front:
            yield gateway, f"ws://127.0.0.1:{front}/api/chat?room=1"
            async with asyncio.timeout(WAIT_S):
                while len(gateway.app) or gateway.tasks.statistics().size > 1:  # overload's own stays
                    await asyncio.sleep(0.01)


@pytest.mark.parametrize("ws", PROTOCOLS)
async def test_messages_pass(ws: str, ledger: Ledger) -> None:
    seen: list[str] = []

    async def handler(connection: ServerConnection) -> None:
        assert connection.request is not None
        seen.append(connection.request.path)
        assert connection.request.headers["x-forwarded-for"] == "127.0.0.1"
        await connection.ping()
        await echo(connection)

    messages = ["hello", b"\0\1\2", "", b"", "ä€" * 1000, b"z" * 70_000, "y" * 1_000_000]
    async with (
        bridged(handler, ws, ledger, max_size=None) as (gateway, url),
        asyncio.timeout(WAIT_S),
        connect(url, max_size=None) as client,
    ):
        for message in messages:
            await client.send(message)
            assert await client.recv() == message
        await client.send(["a ", "message ", "in ", "parts"])
        assert await client.recv() == "a message in parts"
    assert seen == ["/chat?room=1"]
    record = gateway.history.latest(1)[0]
    assert record.status == 101


@pytest.mark.parametrize("ws", PROTOCOLS)
async def test_upstream_closes(ws: str, ledger: Ledger) -> None:
    ended: list[int | None] = []

    async def handler(connection: ServerConnection) -> None:
        await connection.send("bye")
        await connection.close(4001, "enough")
        ended.append(connection.close_code)

    async with bridged(handler, ws, ledger) as (_, url), asyncio.timeout(WAIT_S):
        client = await connect(url)
        assert await client.recv() == "bye"
        with pytest.raises(websockets.ConnectionClosed) as closed:
            await client.recv()
        assert closed.value.rcvd is not None
        assert (closed.value.rcvd.code, closed.value.rcvd.reason) == (4001, "enough")
    assert ended == [4001], "the upstream's close was answered"


@pytest.mark.parametrize("ws", PROTOCOLS)
@pytest.mark.parametrize("cut", [True, False])
async def test_client_closes(cut: bool, ws: str, ledger: Ledger) -> None:
    codes: asyncio.Queue[int | None] = asyncio.Queue()

    async def handler(connection: ServerConnection) -> None:
        with contextlib.suppress(websockets.ConnectionClosed):
            await echo(connection)
        await codes.put(connection.close_code)

    async with bridged(handler, ws, ledger) as (_, url), asyncio.timeout(WAIT_S):
        client = await connect(url)
        await client.send("a")
        await client.recv()
        if cut:
            client.transport.abort()
        else:
            await client.close(4002, "done")
        assert await codes.get() in ((1005, 1006) if cut else (4002,))
        await client.wait_closed()


@pytest.mark.parametrize("ws", PROTOCOLS)
async def test_upstream_that_breaks_off(ws: str, ledger: Ledger) -> None:
    async def handler(connection: ServerConnection) -> None:
        await connection.send("half")
        connection.transport.abort()

    async with bridged(handler, ws, ledger) as (_, url), asyncio.timeout(WAIT_S):
        client = await connect(url)
        assert await client.recv() == "half"
        with pytest.raises(websockets.ConnectionClosedError):
            await client.recv()
        assert client.close_code == 1011


@pytest.mark.parametrize("ws", PROTOCOLS)
async def test_subprotocol_is_negotiated(ws: str, ledger: Ledger) -> None:
    async with (
        bridged(echo, ws, ledger, subprotocols=["b", "c"]) as (_, url),
        asyncio.timeout(WAIT_S),
        connect(url, subprotocols=["a", "b"]) as client,  # type: ignore[list-item]
    ):
        assert client.subprotocol == "b"


@pytest.mark.parametrize("ws", PROTOCOLS)
async def test_refusals_are_told(ws: str, ledger: Ledger) -> None:
    """By the gateway and by the upstream: with their status, since uvicorn can say it."""
    async with origin(OK) as upstream:
        for more, path, status in (("", "none", 404), ("websockets = false", "api/", 501), ("", "api/", 200)):
            async with Gateway(config(upstream.port, more), ledger=ledger) as gateway, served(gateway, ws) as port:
                with pytest.raises(websockets.InvalidStatus) as refused:
                    await connect(f"ws://127.0.0.1:{port}/{path}")
                assert refused.value.response.status_code == status
                assert not len(gateway.app)


@pytest.mark.parametrize("ws", PROTOCOLS)
async def test_larger_message_than_allowed(ws: str, ledger: Ledger) -> None:
    async def handler(connection: ServerConnection) -> None:
        with contextlib.suppress(websockets.ConnectionClosed):
            await connection.send(b"z" * 200_000)
            await connection.recv()

    limit = '[front]\nmax_message_bytes = "100 KiB"'
    async with bridged(handler, ws, ledger, limit) as (gateway, url), asyncio.timeout(WAIT_S):
        client: ClientConnection = await connect(url)
        with pytest.raises(websockets.ConnectionClosed) as closed:
            await client.recv()
        assert closed.value.rcvd is not None
        assert closed.value.rcvd.code == 1009
    assert gateway.history.latest(1)[0].reason == "response_head_too_large"


@pytest.mark.parametrize("ws", PROTOCOLS)
async def test_client_that_reads_nothing_is_not_buffered_for(ws: str, ledger: Ledger) -> None:
    sent = 0

    async def handler(connection: ServerConnection) -> None:
        nonlocal sent
        with contextlib.suppress(websockets.ConnectionClosed):
            while sent < 2**28:
                await connection.send(b"z" * 2**16)
                sent += 2**16

    async with bridged(handler, ws, ledger) as (gateway, url), asyncio.timeout(2 * WAIT_S):
        client = await connect(url, max_queue=1, compression=None)
        client.transport.pause_reading()
        before, same = -1, 0
        while same < 10:  # until nothing moves any more
            await asyncio.sleep(0.05)
            same = same + 1 if sent == before and sent else 0
            before = sent
        assert sent < 2**26, "somebody took what the client does not read"
        held = gateway.statistics().services[0].endpoints[0].pool.bytes or 0
        assert held <= 320 * 1024
        client.transport.abort()
        await client.wait_closed()


@given(
    st.lists(st.tuples(st.sampled_from([TEXT, BINARY, PING]), st.binary(max_size=120)), max_size=5), st.integers(1, 9)
)
def test_frames_come_back_whole(messages: list[tuple[int, bytes]], piece: int) -> None:
    """However they are cut on the way; unmasked, as servers send them."""
    raw = b"".join(bytes([0x80 | opcode, len(data)]) + data for opcode, data in messages)
    frames = Frames(1000)
    found = [message for at in range(0, len(raw), piece) for message in frames.feed(raw[at : at + piece])]
    assert [(message.opcode, message.data) for message in found] == messages


@given(st.one_of(st.binary(max_size=300), st.integers(0, 70_000).map(bytes)), st.binary(min_size=4, max_size=4))
def test_masking_is_its_own_inverse(data: bytes, key: bytes) -> None:
    assert masked(masked(data, key), key) == data
    assert masked(data, key)[:1] == bytes(byte ^ key[0] for byte in data[:1])
    framed = write(BINARY, data)
    head = len(framed) - len(data)
    assert masked(framed[head:], framed[head - 4 : head]) == data


@pytest.mark.parametrize(
    "raw",
    [
        b"\xc1\x00",  # reserved bit
        b"\x81\x80\0\0\0\0",  # masked
        b"\x80\x00",  # continuation of nothing
        b"\x01\x01a\x01\x01b",  # two beginnings
        b"\x09\x00",  # fragmented ping
        b"\x89\x7e\x00\x7e" + bytes(126),  # large ping
        b"\x83\x00",  # unknown
        b"\x8b\x00",
    ],
)
def test_frames_that_no_server_may_send(raw: bytes) -> None:
    with pytest.raises(ResponseError):
        Frames(1000).feed(raw)


def test_close_frames() -> None:
    assert read_close(b"") == (1005, "")
    assert read_close(b"\x03\xe8bye") == (1000, "bye")
    for data in (b"\x03", b"\x03\xed", b"\x00\x00", b"\x03\xe8\xff"):
        with pytest.raises(ResponseError):
            read_close(data)
    assert write_close(1005)[:2] == bytes([0x80 | CLOSE, 0x80])
    assert len(write_close(1000, "é" * 100)) <= 2 + 4 + 125
