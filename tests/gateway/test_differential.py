"""Own client against aiohttp's: the same requests, the same answers byte for byte from upstreams of all shapes."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from hypothesis import given, settings
from hypothesis import strategies as st
from tests.gateway.client_aiohttp import AiohttpClient
from tests.gateway.origin import Origin, origin

from flatwater.bounded import Ledger
from flatwater.gateway.client import Client, HttpClient
from flatwater.gateway.error import GatewayError
from flatwater.gateway.exchange import Timeouts
from flatwater.gateway.message import RequestHead
from flatwater.gateway.pool import Origin as Where
from flatwater.gateway.sweeper import Sweeper

TOKEN = st.text("abcdefghijklmnopqrstuvwxyz-", min_size=1, max_size=8).map(lambda text: f"x-{text}".encode())
VALUE = st.text("ab=;,/\"' 0", max_size=12).map(lambda text: text.strip().encode())
HEADERS = st.lists(st.tuples(TOKEN, VALUE), max_size=4)
BODY = st.one_of(st.just(b""), st.binary(max_size=40), st.integers(1, 200_000).map(lambda size: b"z" * size))


@dataclass(frozen=True)
class Case:
    method: bytes
    target: bytes
    headers: list[tuple[bytes, bytes]]
    body: bytes
    chunked: bool
    status: int
    answer_headers: list[tuple[bytes, bytes]]
    answer: bytes
    framing: str  # sized, chunked, close
    cut: int  # pieces into which the answer is cut
    truncated: bool


CASES = st.builds(
    Case,
    method=st.sampled_from([b"GET", b"HEAD", b"POST", b"PUT", b"DELETE", b"PATCH", b"OPTIONS"]),
    target=st.sampled_from([b"/", b"/a/b?c=d&e=%20", b"/%7Ex/;p=1", b"/a//b", b"/'()*"]),
    headers=HEADERS,
    body=BODY,
    chunked=st.booleans(),
    status=st.sampled_from([200, 201, 204, 206, 301, 304, 404, 500, 503]),
    answer_headers=HEADERS,
    answer=BODY,
    framing=st.sampled_from(["sized", "chunked", "close"]),
    cut=st.integers(1, 6),
    truncated=st.booleans(),
)


def raw_answer(case: Case) -> bytes:
    bodyless = case.method == b"HEAD" or case.status in (204, 304)
    lines = [b"HTTP/1.1 %d Because" % case.status, *(b"%b: %b" % item for item in case.answer_headers)]
    body = case.answer
    if bodyless:
        body = b""
    elif case.framing == "sized":
        lines.append(b"content-length: %d" % len(body))
    elif case.framing == "chunked":
        lines.append(b"transfer-encoding: chunked")
        pieces = [body[at : at + 7000] for at in range(0, len(body), 7000)]
        body = b"".join(b"%x;e=1\r\n%b\r\n" % (len(piece), piece) for piece in pieces) + b"0\r\n\r\n"
    else:
        lines.append(b"connection: close")
    data = b"\r\n".join(lines) + b"\r\n\r\n" + body
    return data[: len(data) * 2 // 3] if case.truncated else data


async def exchange(client: Client, case: Case) -> tuple[object, ...]:
    """What a client makes of it: status, headers and body; ``broken`` when it finds the answer broken."""
    head = RequestHead(case.method, case.target, [(b"host", b"up"), *case.headers])
    try:
        found = await client.begin(head, length=None if case.chunked else len(case.body))
        try:
            for at in range(0, len(case.body), 30_000):
                await found.write(case.body[at : at + 30_000])
            await found.end()
            answer = await found.head()
            body = b""
            while data := await found.read():
                body += data
            return answer.status, sorted(answer.headers), body
        finally:
            found.release()
    except GatewayError:
        return ("broken",)


async def compare(case: Case) -> None:
    data = raw_answer(case)

    async def handle(upstream: Origin, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await upstream.request(reader)
        size = len(data) // case.cut + 1
        for at in range(0, len(data), size):
            writer.write(data[at : at + size])
            await writer.drain()
            await asyncio.sleep(0)
        if case.truncated or case.framing == "close":
            return
        await reader.read(1)

    ledger = Ledger()
    async with origin(handle) as upstream, Sweeper() as sweeper:
        where = Where("http", "127.0.0.1", upstream.port)
        times = Timeouts(first_byte_s=20.0, idle_s=20.0)
        async with (
            HttpClient(where, ledger=ledger, timeouts=times) as own,
            AiohttpClient(where, ledger=ledger, timeouts=times) as other,
        ):
            sweeper.add(own)
            ours = await exchange(own, case)
            theirs = await exchange(other, case)
            busy = own.statistics().busy
        if case.truncated and case.framing == "close":
            return  # whether that is a whole answer cannot be told
        assert ours == theirs
        assert busy == 0
        assert upstream.bodies[0] == upstream.bodies[-1] == case.body  # aiohttp may ask twice when it is cut off
        mine, his = upstream.heads[0], upstream.heads[-1]
        assert mine.split(b"\r\n")[0] == his.split(b"\r\n")[0]
        assert set(case.headers) <= {
            (name, value) for name, _, value in (line.partition(b": ") for line in mine.split(b"\r\n"))
        }


@settings(max_examples=40, deadline=None)
@given(CASES)
def test_same_as_aiohttp(case: Case) -> None:
    with asyncio.Runner() as runner:
        runner.run(compare(case))
