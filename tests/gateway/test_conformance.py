"""What RFC 9110 and 9112 ask beyond framing: the gateway's own answers, what ends a connection, who may still read."""

from __future__ import annotations

import asyncio
import re

import pytest
from tests.gateway.origin import OK, Origin, config, gate, origin, reply

from flatwater.bounded import Ledger

H = b"host: gate\r\n"
GET = b"GET /api/ HTTP/1.1\r\n" + H + b"\r\n"


async def test_options_of_the_server_are_its_own(ledger: Ledger) -> None:
    async with origin(OK) as upstream, gate(config(upstream.port, 'path = "/"'), ledger) as front:
        found = await front.ask(b"OPTIONS * HTTP/1.1\r\n" + H + b"\r\n")
        assert (found.status, found["content-length"]) == (200, "0")
        assert "OPTIONS" in found["allow"]
        assert upstream.heads == []


@pytest.mark.parametrize(("given", "sent"), [(b"0", b""), (b"1", b"0"), (b"10", b"9"), (b"x", b"")])
async def test_max_forwards_is_counted(given: bytes, sent: bytes, ledger: Ledger) -> None:
    """RFC 9110, 7.6.2."""
    async with origin(OK) as upstream, gate(config(upstream.port), ledger) as front:
        asked = b"OPTIONS /api/ HTTP/1.1\r\n" + H + b"max-forwards: %b\r\n\r\n" % given
        for _ in range(3):  # the third time the head is known by its bytes
            found = await front.ask(asked)
            assert found.status == (400 if given == b"x" else 200)
        assert all(b"max-forwards: %b\r\n" % sent in head for head in upstream.heads)
        assert len(upstream.heads) == (3 if sent else 0)


async def test_what_follows_the_last_request_does_not_spoil_it(ledger: Ledger) -> None:
    """RFC 9112, 9.6: nothing after "close" is looked at, and HTTP/1.0 closes."""
    asked = [GET[:-2] + b"connection: close\r\n\r\n", b"GET /api/ HTTP/1.0\r\n" + H + b"\r\n"]
    async with origin(OK) as upstream, gate(config(upstream.port), ledger) as front:
        for first in asked:
            for rest in (first, b"junk", b"\0\0\0\r\n\r\n"):
                found = await front.ask(first + rest, until_close=True)
                assert (found.status, found.raw.count(b"HTTP/1.1 ")) == (200, 1)
        assert len(upstream.heads) == 6
        await front.at_rest()


@pytest.mark.parametrize(
    "bad",
    [
        b"BAD\r\n\r\n",
        b"GET http:///x HTTP/1.1\r\n\r\n",
        b"POST /api/ HTTP/1.1\r\n" + H + b"transfer-encoding: chunked\r\n\r\nzz\r\n",
    ],
    ids=["no request", "bad authority", "bad chunk"],
)
async def test_requests_before_a_malformed_one_are_answered(bad: bytes, ledger: Ledger) -> None:
    async with origin(OK) as upstream, gate(config(upstream.port), ledger) as front:
        found = await front.ask(GET + bad, until_close=True)
        assert re.findall(rb"HTTP/1.1 (\d+)", found.raw) == [b"200", b"400"]
        await front.at_rest()


async def test_client_that_has_closed_its_side_is_answered(ledger: Ledger) -> None:
    async def handle(found: Origin, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            slow = b"/slow" in await found.request(reader)
            await asyncio.sleep(3600 if slow else 0.05)
            writer.write(OK)

    async with origin(handle) as upstream, gate(config(upstream.port), ledger) as front:
        for asked, answers in ((GET, 1), (GET * 3, 3), (GET.replace(b"GET", b"HEAD"), 1), (GET + b"GET /api/", 0)):
            assert (await _half_closed(front.port, asked)).count(b"HTTP/1.1 200") == answers
        assert await _half_closed(front.port, GET.replace(b"/api/", b"/api/slow")) == b""
        await front.at_rest()
        assert front.gateway.history.latest(1)[0].status == 499


async def _half_closed(port: int, data: bytes) -> bytes:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(data)
    writer.write_eof()
    async with asyncio.timeout(60):
        found = await reader.read(-1)
    writer.close()
    return found


async def test_answers_are_dated(ledger: Ledger) -> None:
    """RFC 9110, 6.6.1: those of the upstream that are not, and those of the gateway."""
    theirs = OK.replace(b"\r\n\r\n", b"\r\ndate: Sat, 21 Nov 2020 07:28:00 GMT\r\n\r\n")
    now = r"[A-Z][a-z]{2}, \d\d [A-Z][a-z]{2} \d{4} \d\d:\d\d:\d\d GMT"
    for answer in (OK, theirs):
        async with origin(answer) as upstream, gate(config(upstream.port), ledger) as front:
            found = await front.get()
            assert [name for name, _ in found.headers].count(b"date") == 1
            assert re.fullmatch(now, found["date"])
            assert (found["date"] == "Sat, 21 Nov 2020 07:28:00 GMT") == (answer is theirs)
            for asked in (
                b"GET /none HTTP/1.1\r\n" + H + b"\r\n",
                b"BAD\r\n\r\n",
                b"OPTIONS * HTTP/1.1\r\n" + H + b"\r\n",
            ):
                assert re.fullmatch(now, (await front.ask(asked))["date"])


async def test_refused_head_tells_the_length_of_what_get_would_get(ledger: Ledger) -> None:
    async with origin(OK) as upstream, gate(config(upstream.port), ledger) as front:
        got = await front.get("/none")
        asked = b"HEAD /none HTTP/1.1\r\n" + H + b"\r\n"
        head = await front.ask(asked[:-2] + b"connection: close\r\n\r\n", until_close=True)
        assert (head.status, head["content-length"], head.body) == (404, got["content-length"], b"")


@pytest.mark.parametrize("target", [b"/?", b"/?a", b"/", b"/x?", b"/x??"])
@pytest.mark.parametrize("body", [b"", b"hello"])
async def test_query_that_is_empty_is_kept(target: bytes, body: bytes, ledger: Ledger) -> None:
    """RFC 9112, 3.2: a gateway does not rewrite the query; "/?" and "/" are two resources (RFC 3986, 6.2.3)."""
    async with origin(OK) as upstream, gate(config(upstream.port), ledger) as front:
        length = b"content-length: %d\r\n" % len(body) if body else b""
        asked = b"POST /api%b HTTP/1.1\r\n" % target + H + length + b"\r\n" + body
        for _ in range(3):
            assert (await front.ask(asked)).status == 200
        assert {head.split(b" ")[1] for head in upstream.heads} == {target}


async def test_expectation_of_http_1_0_is_ignored(ledger: Ledger) -> None:
    """RFC 9110, 10.1.1; and no 1xx goes to such a client (15.2)."""
    asked = b"POST /api/ HTTP/1.0\r\n" + H + b"expect: 100-continue\r\ncontent-length: 5\r\n\r\nhello"
    async with origin(OK) as upstream, gate(config(upstream.port), ledger) as front:
        found = await front.ask(asked, until_close=True)
        assert found.raw.startswith(b"HTTP/1.1 200")
        assert b"expect" not in upstream.heads[0]
        assert upstream.bodies == [b"hello"]


@pytest.mark.parametrize(
    ("line", "status"),
    [(b"GET /api/ HTTP/1.2", 505), (b"GET /api/ HTTP/3.0", 505), (b"GET /api/", 400), (b"GET /api/ ", 400)],
)
async def test_versions(line: bytes, status: int, ledger: Ledger) -> None:
    async with origin(OK) as upstream, gate(config(upstream.port), ledger) as front:
        assert (await front.ask(line + b"\r\n" + H + b"\r\n")).status == status
        assert upstream.heads == []


WEBSOCKET = b"connection: upgrade\r\nupgrade: websocket\r\n"
UPGRADE = b"connection: upgrade, http2-settings\r\nupgrade: h2c\r\nhttp2-settings: AAMAAABkAAQAAP__\r\n"


@pytest.mark.parametrize("pieces", [1, 2, 9])
@pytest.mark.parametrize("framing", ["sized", "chunked", "none"])
@pytest.mark.parametrize("upgrade", [UPGRADE, WEBSOCKET], ids=["h2c", "websocket"])
async def test_body_of_a_request_for_an_upgrade_arrives(
    upgrade: bytes, framing: str, pieces: int, ledger: Ledger
) -> None:
    """RFC 9110, 7.8: an upgrade need not be heeded, and then the request is one like any other (Java's client asks for
    h2c with its first POST)."""
    head = b"POST /api/ HTTP/1.1\r\n" + H + upgrade
    request = {
        "sized": head + b"content-length: 5\r\n\r\nhello",
        "chunked": head + b"transfer-encoding: chunked\r\n\r\n2\r\nhe\r\n3\r\nllo\r\n0\r\n\r\n",
        "none": head + b"\r\n",
    }[framing]
    async with origin(OK) as upstream, gate(config(upstream.port), ledger) as front:
        reader, writer = await asyncio.open_connection("127.0.0.1", front.port)
        data = request + GET
        size = len(data) // pieces + 1
        for at in range(0, len(data), size):
            writer.write(data[at : at + size])
            await asyncio.sleep(0.005)
        async with asyncio.timeout(90):
            first = await reply(reader)
            assert first.status == 200
            second = await reply(reader)
        assert second.status == (200 if framing == "none" else 0), "after such a body the connection closes"
        writer.close()
        assert upstream.bodies[0] == (b"" if framing == "none" else b"hello")
        assert b"h2c" not in upstream.heads[0]


async def test_answer_survives_what_the_client_sends_after_it(ledger: Ledger) -> None:
    """RFC 9112, 9.6: the connection closes in stages, or a reset would overtake the answer."""
    large = b"HTTP/1.1 200 OK\r\ncontent-length: 300000\r\n\r\n" + bytes(300_000)
    async with origin(large) as upstream, gate(config(upstream.port), ledger) as front:
        reader, writer = await asyncio.open_connection("127.0.0.1", front.port)
        writer.write(GET.replace(b"1.1", b"1.0"))
        for _ in range(20):
            writer.write(b"x" * 1000)
            await asyncio.sleep(0.005)
        async with asyncio.timeout(90):
            found = await reader.read(-1)
        assert found.startswith(b"HTTP/1.1 200")
        assert len(found.partition(b"\r\n\r\n")[2]) == 300_000
        writer.close()
        await front.at_rest()
