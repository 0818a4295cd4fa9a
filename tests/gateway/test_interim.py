"""What comes before the final answer (1xx), and what follows a body (trailers), both ways."""

from __future__ import annotations

import asyncio

import pytest
from tests.gateway.origin import OK, Origin, body, config, gate, origin, reply

from flatwater.bounded import Ledger

H = b"host: gate\r\n"
GET = b"GET /api/ HTTP/1.1\r\n" + H + b"connection: close\r\n\r\n"
EARLY = b"HTTP/1.1 103 Early Hints\r\nlink: </a.css>\r\nkeep-alive: 5\r\n\r\n"


def chunked(data: bytes, trailers: bytes) -> bytes:
    return b"%x\r\n%b\r\n0\r\n%b\r\n" % (len(data), data, trailers)


SEQUENCES = {
    "100": (b"HTTP/1.1 100 Continue\r\n\r\n", [b"100 Continue"]),
    "102": (b"HTTP/1.1 102 Processing\r\n\r\n", [b"102 Processing"]),
    "103 twice": (EARLY * 2, [b"103 Early Hints"] * 2),
    "unknown": (b"HTTP/1.1 199 Whatever\r\nx-a: b\r\n\r\n", [b"199 "]),
    "all": (
        b"HTTP/1.1 100 C\r\n\r\n" + EARLY + b"HTTP/1.1 199 X\r\n\r\n",
        [b"100 Continue", b"103 Early Hints", b"199 "],
    ),
    "sixteen": (EARLY * 16, [b"103 Early Hints"] * 16),
}


@pytest.mark.parametrize("at_once", [True, False])
@pytest.mark.parametrize("name", SEQUENCES)
async def test_interim_answers_pass_in_order(name: str, at_once: bool, ledger: Ledger) -> None:
    """RFC 9110, 15.2: a proxy forwards them; none goes to HTTP/1.0."""
    sent, expected = SEQUENCES[name]

    async def handle(found: Origin, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            await found.request(reader)
            parts = [part + b"\r\n\r\n" for part in sent.split(b"\r\n\r\n")[:-1]]
            for part in [sent + OK] if at_once else [*parts, OK]:
                writer.write(part)
                await asyncio.sleep(0.005)

    async with origin(handle) as upstream, gate(config(upstream.port), ledger) as front:
        for _ in range(2):  # the second goes over the same connection
            raw = (await front.ask(GET, until_close=True)).raw
            heads = raw.split(b"HTTP/1.1 ")[1:]
            assert [head.partition(b"\r\n")[0] for head in heads] == [*expected, b"200 OK"]
            assert raw.endswith(b"\r\n\r\nhi")
            assert b"keep-alive" not in raw
            assert raw.count(b"</a.css>") == expected.count(b"103 Early Hints")
        old = (await front.ask(GET.replace(b"1.1", b"1.0"), until_close=True)).raw
        assert old.startswith(b"HTTP/1.1 200 OK")
        assert old.count(b"HTTP/1.1 ") == 1
        assert upstream.accepted == 1


async def test_interim_answers_pass_while_the_body_is_sent(ledger: Ledger) -> None:
    async def handle(found: Origin, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await found.head(reader)
        writer.write(EARLY)
        found.bodies.append(await body(reader, head))
        writer.write(EARLY + OK)
        await writer.drain()

    async with origin(handle) as upstream, gate(config(upstream.port), ledger) as front:
        reader, writer = await asyncio.open_connection("127.0.0.1", front.port)
        writer.write(b"POST /api/ HTTP/1.1\r\n" + H + b"content-length: 10\r\n\r\nhello")
        async with asyncio.timeout(90):
            assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 103 ")
            writer.write(b"world")
            assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 103 ")
            assert (await reply(reader)).status == 200
        assert upstream.bodies == [b"helloworld"]
        writer.close()
        await front.at_rest()


@pytest.mark.parametrize("status", [200, 417, 413])
async def test_final_answer_to_an_expectation_saves_the_body(status: int, ledger: Ledger) -> None:
    """Without a 100 the client is not asked for the body, and the connection closes: nobody knows whether it comes."""

    async def handle(found: Origin, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await found.head(reader)
        writer.write(b"HTTP/1.1 %d No\r\ncontent-length: 2\r\n\r\nhi" % status)
        await writer.drain()
        await reader.read(1)

    async with origin(handle) as upstream, gate(config(upstream.port), ledger) as front:
        asked = b"PUT /api/ HTTP/1.1\r\n" + H + b"content-length: 5\r\nexpect: 100-continue\r\n\r\n"
        found = await front.ask(asked, until_close=True)
        assert (found.status, found["connection"], found.body) == (status, "close", b"hi")
        assert found.raw.count(b"HTTP/1.1 ") == 1
        assert upstream.bodies == []
        await front.at_rest()


async def test_one_continue_for_one_expectation(ledger: Ledger) -> None:
    async def handle(found: Origin, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await found.head(reader)
        writer.write(b"HTTP/1.1 100 Continue\r\n\r\n" * 3 + EARLY)
        found.bodies.append(await body(reader, head))
        writer.write(OK)
        await writer.drain()

    async with origin(handle) as upstream, gate(config(upstream.port), ledger) as front:
        reader, writer = await asyncio.open_connection("127.0.0.1", front.port)
        writer.write(b"PUT /api/ HTTP/1.1\r\n" + H + b"content-length: 5\r\nexpect: 100-continue\r\n\r\n")
        heads = b""
        async with asyncio.timeout(90):
            while b" 100 " not in heads:
                heads += await reader.readuntil(b"\r\n\r\n")
            writer.write(b"hello")
            while b" 200 " not in heads:
                heads += await reader.readuntil(b"\r\n\r\n")
        assert (heads.count(b" 100 "), heads.count(b" 103 ")) == (1, 1)
        assert upstream.bodies == [b"hello"]
        writer.close()


async def test_switch_to_another_protocol_is_refused(ledger: Ledger) -> None:
    switch = b"HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: h2c\r\n\r\nPRI"
    asked = b"GET /api/ HTTP/1.1\r\n" + H + b"connection: upgrade\r\nupgrade: websocket\r\n\r\n"
    async with origin(switch) as upstream, gate(config(upstream.port), ledger) as front:
        found = await front.ask(asked)
        assert (found.status, found["x-flatwater-reason"]) == (502, "bad_response")
        await front.at_rest()


@pytest.mark.parametrize("size", [5, 300_000])
@pytest.mark.parametrize("wanted", [True, False])
async def test_trailers_of_requests(wanted: bool, size: int, ledger: Ledger) -> None:
    """Only where the service wants them, and only those that are harmless, short bodies or long."""
    ends: list[bytes] = []

    async def handle(found: Origin, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            await found.head(reader)
            await reader.readuntil(b"\r\n0\r\n")
            ends.append(await trailer(reader))
            writer.write(OK)

    async def trailer(reader: asyncio.StreamReader) -> bytes:
        found = b""
        while (line := await reader.readuntil(b"\r\n")) != b"\r\n":
            found += line
        return found

    sent = b"X-Sum: 42\r\nAuthorization: me\r\nHost: evil\r\nX-Forwarded-For: 1.2.3.4\r\nX-Done: yes\r\n"
    request = b"POST /api/ HTTP/1.1\r\n" + H + b"trailer: X-Sum, Host, X-Done\r\ntransfer-encoding: chunked\r\n\r\n"
    async with origin(handle) as upstream:
        given = config(upstream.port, f"request_trailers = {str(wanted).lower()}")
        async with gate(given, ledger) as front:
            assert (await front.ask(request + chunked(b"z" * size, sent))).status == 200
            assert ends == [b"x-sum: 42\r\nx-done: yes\r\n" if wanted else b""]
            assert (b"trailer: x-sum, x-done\r\n" in upstream.heads[0]) == wanted
            assert b"evil" not in upstream.heads[0]
            await front.at_rest()


async def test_too_many_trailers_are_refused(ledger: Ledger) -> None:
    request = b"POST /api/ HTTP/1.1\r\n" + H + b"transfer-encoding: chunked\r\n\r\n"
    async with origin(OK) as upstream, gate(config(upstream.port, "request_trailers = true"), ledger) as front:
        found = await front.ask(request + chunked(b"hi", b"a: b\r\n" * 200), until_close=True)
        assert found.status == 431
        assert upstream.bodies == []
        large = await front.ask(request + chunked(b"hi", b"a: " + b"x" * 300_000 + b"\r\n"), until_close=True)
        assert large.status == 431
        await front.at_rest()


async def test_trailers_of_answers_are_announced_and_sifted(ledger: Ledger) -> None:
    head = b"HTTP/1.1 200 OK\r\ntrailer: X-Sum, Set-Cookie\r\ntransfer-encoding: chunked\r\n\r\n"
    answer = head + chunked(b"hi", b"X-Sum: 42\r\nSet-Cookie: a=b\r\nConnection: close\r\n")
    asked = b"GET /api/ HTTP/1.1\r\n" + H + b"te: trailers\r\nconnection: te, close\r\n\r\n"
    async with origin(answer) as upstream, gate(config(upstream.port), ledger) as front:
        for _ in range(3):
            found = await front.ask(asked, until_close=True)
            assert found["trailer"] == "x-sum"
            assert found.raw.endswith(b"hi\r\n0\r\nx-sum: 42\r\n\r\n")
        plain = await front.ask(GET, until_close=True)
        assert plain["trailer"] == ""
        assert plain.raw.endswith(b"hi\r\n0\r\n\r\n")
