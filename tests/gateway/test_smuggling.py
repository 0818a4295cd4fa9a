"""Requests on which two parsers could disagree: refused, over raw sockets, with a look at what reaches the upstream."""

from __future__ import annotations

import asyncio
import contextlib

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.gateway.origin import OK, Origin, answering, config, gate, origin

from flatwater.bounded import Ledger

H = b"host: gate\r\n"
SMUGGLED = b"GET /admin HTTP/1.1\r\nhost: gate\r\n\r\n"
POST = b"POST /api/ HTTP/1.1\r\n" + H

REFUSED = {
    "CL.TE": POST + b"content-length: 6\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\nG",
    "TE.CL": POST + b"transfer-encoding: chunked\r\ncontent-length: 4\r\n\r\n0\r\n\r\n",
    "CL.CL equal": POST + b"content-length: 2\r\ncontent-length: 2\r\n\r\nhi",
    "CL.CL": POST + b"content-length: 2\r\ncontent-length: 30\r\n\r\nhi",
    "CL list": POST + b"content-length: 2, 2\r\n\r\nhi",
    "CL plus": POST + b"content-length: +2\r\n\r\nhi",
    "CL minus": POST + b"content-length: -2\r\n\r\nhi",
    "CL hex": POST + b"content-length: 0x2\r\n\r\nhi",
    "CL empty": POST + b"content-length: \r\n\r\n",
    "CL huge": POST + b"content-length: 99999999999999999999999\r\n\r\nhi",
    "CL underscore": POST + b"content-length: 1_0\r\n\r\n0123456789",
    "TE gzip": POST + b"transfer-encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
    "TE identity": POST + b"transfer-encoding: identity\r\n\r\n",
    "TE unknown": POST + b"transfer-encoding: xchunked\r\n\r\n0\r\n\r\n",
    "TE chunked first": POST + b"transfer-encoding: chunked, identity\r\n\r\n0\r\n\r\n",
    "TE twice": POST + b"transfer-encoding: chunked\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
    "TE identity, TE chunked": POST + b"transfer-encoding: identity\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
    "TE with a tab before the colon": POST + b"transfer-encoding\t: chunked\r\n\r\n0\r\n\r\n",
    "TE with a space before the colon": POST + b"transfer-encoding : chunked\r\n\r\n0\r\n\r\n",
    "TE vertical tab": POST + b"transfer-encoding:\x0bchunked\r\n\r\n0\r\n\r\n",
    "TE quoted": POST + b'transfer-encoding: "chunked"\r\n\r\n0\r\n\r\n',
    "TE folded": POST + b"transfer-encoding:\r\n chunked\r\n\r\n0\r\n\r\n",
    "TE in 1.0": b"POST /api/ HTTP/1.0\r\n" + H + b"transfer-encoding: chunked\r\n\r\n0\r\n\r\n",
    "chunk with LF": POST + b"transfer-encoding: chunked\r\n\r\n2\nhi\n0\n\n",
    "chunk size hex prefix": POST + b"transfer-encoding: chunked\r\n\r\n0x2\r\nhi\r\n0\r\n\r\n",
    "chunk size with space": POST + b"transfer-encoding: chunked\r\n\r\n2 \r\nhi\r\n0\r\n\r\n",
    "chunk size overflow": POST + b"transfer-encoding: chunked\r\n\r\nfffffffffffffffff\r\nhi\r\n0\r\n\r\n",
    "chunk size negative": POST + b"transfer-encoding: chunked\r\n\r\n-1\r\nhi\r\n0\r\n\r\n",
    "chunk longer than its size": POST + b"transfer-encoding: chunked\r\n\r\n2\r\nhigh\r\n0\r\n\r\n",
    "chunk extension with LF": POST + b'transfer-encoding: chunked\r\n\r\n2;a="\n"\r\nhi\r\n0\r\n\r\n',
    "no host": b"GET /api/ HTTP/1.1\r\n\r\n",
    "two hosts": b"GET /api/ HTTP/1.1\r\nhost: a\r\nhost: b\r\n\r\n",
    "two equal hosts": b"GET /api/ HTTP/1.1\r\nhost: a\r\nhost: a\r\n\r\n",
    "empty host": b"GET /api/ HTTP/1.1\r\nhost: \r\n\r\n",
    "host with a space": b"GET /api/ HTTP/1.1\r\nhost: a b\r\n\r\n",
    "host with a path": b"GET /api/ HTTP/1.1\r\nhost: a/b\r\n\r\n",
    "host with a user": b"GET /api/ HTTP/1.1\r\nhost: a@b\r\n\r\n",
    "host list": b"GET /api/ HTTP/1.1\r\nhost: a, b\r\n\r\n",
    "space before the first header": b"GET /api/ HTTP/1.1\r\n host: gate\r\n\r\n",
    "header without colon": b"GET /api/ HTTP/1.1\r\n" + H + b"foo\r\n\r\n",
    "empty header name": b"GET /api/ HTTP/1.1\r\n" + H + b": x\r\n\r\n",
    "header name with a paren": b"GET /api/ HTTP/1.1\r\n" + H + b"a(b): x\r\n\r\n",
    "NUL in a value": b"GET /api/ HTTP/1.1\r\n" + H + b"a: b\0c\r\n\r\n",
    "CR in a value": b"GET /api/ HTTP/1.1\r\n" + H + b"a: b\rc\r\n\r\n",
    "bare LF": b"GET /api/ HTTP/1.1\nhost: gate\n\n",
    "folding": b"GET /api/ HTTP/1.1\r\n" + H + b"a: b\r\n c\r\n\r\n",
    "version 1.2": b"GET /api/ HTTP/1.2\r\n" + H + b"\r\n",
    "version 2.0": b"GET /api/ HTTP/2.0\r\n" + H + b"\r\n",
    "version 0.9": b"GET /api/\r\n\r\n",
    "version 0.9 told": b"GET /api/ HTTP/0.9\r\n\r\n",
    "preface of 2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "unknown method": b"FOO /api/ HTTP/1.1\r\n" + H + b"\r\n",
    "method with a tab": b"GET\t/api/ HTTP/1.1\r\n" + H + b"\r\n",
    "CONNECT": b"CONNECT inner:22 HTTP/1.1\r\nhost: inner:22\r\n\r\n",
    "TRACE": b"TRACE /api/ HTTP/1.1\r\n" + H + b"\r\n",
    "target with a space": b"GET /api/a b HTTP/1.1\r\n" + H + b"\r\n",
    "target with a tab": b"GET /api/a\tb HTTP/1.1\r\n" + H + b"\r\n",
    "target with NUL": b"GET /api/a\0b HTTP/1.1\r\n" + H + b"\r\n",
    "target beyond ASCII": b"GET /api/\xff HTTP/1.1\r\n" + H + b"\r\n",
    "target with a fragment": b"GET /api/#x HTTP/1.1\r\n" + H + b"\r\n",
    "target with a backslash": b"GET /api\\..\\x HTTP/1.1\r\n" + H + b"\r\n",
    "dots": b"GET /api/../admin HTTP/1.1\r\n" + H + b"\r\n",
    "encoded dots": b"GET /api/%2e%2E/admin HTTP/1.1\r\n" + H + b"\r\n",
    "encoded slash and dots": b"GET /api/x%2f..%2fadmin HTTP/1.1\r\n" + H + b"\r\n",
    "target without slash": b"GET api HTTP/1.1\r\n" + H + b"\r\n",
    "asterisk": b"GET * HTTP/1.1\r\n" + H + b"\r\n",
    "no encoding": b"GET /api/%zz HTTP/1.1\r\n" + H + b"\r\n",
    "half an encoding": b"GET /api/%4 HTTP/1.1\r\n" + H + b"\r\n",
    "encoded NUL": b"GET /api/%00 HTTP/1.1\r\n" + H + b"\r\n",
    "bad host beside an absolute target": b"GET http://gate/api/ HTTP/1.1\r\nhost: a/b\r\n\r\n",
    "user in the target": b"GET http://a@gate/api/ HTTP/1.1\r\n" + H + b"\r\n",
    "other scheme": b"GET ftp://gate/api/ HTTP/1.1\r\n" + H + b"\r\n",
    "unknown expectation": POST + b"expect: 200-maybe\r\ncontent-length: 2\r\n\r\nhi",
    "long target": b"GET /api/" + b"x" * 10_000 + b" HTTP/1.1\r\n" + H + b"\r\n",
    "many headers": b"GET /api/ HTTP/1.1\r\n" + H + b"a: b\r\n" * 200 + b"\r\n",
    "large head": b"GET /api/ HTTP/1.1\r\n" + H + b"a: " + b"x" * 60_000 + b"\r\n\r\n",
    "endless head": b"GET /api/ HTTP/1.1\r\n" + H + b"a: " + b"x" * 300_000,
    "endless target": b"GET /" + b"x" * 300_000,
}


@pytest.mark.parametrize("name", REFUSED)
async def test_refused(name: str, ledger: Ledger) -> None:
    """A 4xx or 5xx, the connection closes, and nothing of it, nor what was hidden behind it, reaches the upstream."""
    async with origin(OK) as upstream, gate(config(upstream.port), ledger) as front:
        reply = await front.ask(REFUSED[name] + SMUGGLED, until_close=True)
        assert 400 <= reply.status < 506, reply.raw
        assert reply["connection"] == "close"
        assert reply.raw.count(b"HTTP/1.1 ") == 1, "the rest was taken for another request"
        assert not any(b"admin" in head for head in upstream.heads)
        if not name.startswith("chunk"):  # a body is only seen to be broken when its head has passed
            assert upstream.heads == []
        await front.at_rest()


HOP = (b"keep-alive", b"proxy-connection", b"te", b"trailer", b"upgrade", b"proxy-authorization", b"x-secret")


async def test_hop_by_hop_headers_stay_here(ledger: Ledger) -> None:
    request = (
        b"GET /api/x?y=z HTTP/1.1\r\nHost: gate\r\nConnection: keep-alive, X-Secret\r\nX-Secret: 1\r\nKeep-Alive: 5\r\n"
        b"Proxy-Connection: x\r\nTE: gzip\r\nTrailer: a\r\nUpgrade: h2c\r\nProxy-Authorization: Basic x\r\n"
        b"Accept: */*\r\n\r\n"
    )
    response = (
        b"HTTP/1.1 200 OK\r\nConnection: close, X-Inner\r\nX-Inner: 1\r\nKeep-Alive: 5\r\nUpgrade: h2c\r\n"
        b"Content-Length: 2\r\nX-Own: 1\r\n\r\nhi"
    )
    async with origin(response) as upstream, gate(config(upstream.port), ledger) as front:
        reply = await front.ask(request)
        assert reply.status == 200
        names = {name for name, _ in reply.headers}
        assert not names & {b"x-inner", b"keep-alive", b"upgrade", b"connection"}
        assert reply["x-own"] == "1"
        sent = upstream.heads[0].lower()
        assert sent.startswith(b"get /x?y=z http/1.1\r\nhost: gate\r\naccept: */*\r\n")
        assert not [name for name in HOP if b"\r\n" + name + b":" in sent]
        assert reply["via"] == "1.1 flatwater"


async def test_forwarded_fields_of_strangers_are_replaced(ledger: Ledger) -> None:
    extra = (
        b"x-forwarded-for: 1.2.3.4\r\nforwarded: for=1.2.3.4\r\nx-forwarded-proto: https\r\nx-request-id: mine-1\r\n"
    )
    async with origin(OK) as upstream:
        async with gate(config(upstream.port), ledger) as front:
            reply = await front.get(extra=extra)
            assert reply["x-request-id"] == "mine-1"
        trusting = config(upstream.port, '[front]\ntrusted_proxies = ["127.0.0.0/8"]')
        async with gate(trusting, ledger) as front:
            await front.get(extra=extra)
        strange, trusted = (head.decode() for head in upstream.heads)
        assert "x-forwarded-for: 127.0.0.1\r\n" in strange
        assert 'forwarded: for=127.0.0.1;proto=http;host="gate"\r\n' in strange
        assert "x-forwarded-proto: http\r\n" in strange
        assert "1.2.3.4" not in strange
        assert "x-forwarded-for: 1.2.3.4, 127.0.0.1\r\n" in trusted
        assert "forwarded: for=1.2.3.4, for=127.0.0.1" in trusted
        assert "x-forwarded-proto: https\r\n" in trusted


async def test_trailers_of_requests_do_not_become_headers(ledger: Ledger) -> None:
    request = POST + b"transfer-encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\nauthorization: admin\r\nhost: evil\r\n\r\n"
    async with origin(OK) as upstream, gate(config(upstream.port), ledger) as front:
        assert (await front.ask(request)).status == 200
        assert b"authorization" not in upstream.heads[0]
        assert b"evil" not in upstream.heads[0]
        assert upstream.bodies == [b"hi"]


async def test_absolute_target_replaces_host(ledger: Ledger) -> None:
    async with origin(OK) as upstream, gate(config(upstream.port), ledger) as front:
        assert (await front.ask(b"GET http://other/api/x HTTP/1.1\r\nhost: gate\r\n\r\n")).status == 200
        assert upstream.heads[0].startswith(b"GET /x HTTP/1.1\r\nhost: other\r\n")


async def test_loop_is_cut(ledger: Ledger) -> None:
    """A service that points back at the gateway."""
    async with origin(OK) as upstream, gate(config(upstream.port), ledger) as front:
        via = b"via: " + b", ".join([b"1.1 flatwater"] * 10) + b"\r\n"
        assert (await front.get(extra=via)).status == 508
        assert upstream.heads == []


async def test_pipelined_requests_are_answered_in_order(ledger: Ledger) -> None:
    async def echo(origin: Origin, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            target = (await origin.head(reader)).split(b" ")[1]
            await asyncio.sleep(0.05 if target == b"/1" else 0)
            writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%b" % (len(target), target))

    async with origin(echo) as upstream, gate(config(upstream.port), ledger) as front:
        requests = b"".join(b"GET /api/%d HTTP/1.1\r\n" % n + H + b"\r\n" for n in range(1, 4))
        last = b"GET /api/4 HTTP/1.1\r\n" + H + b"connection: close\r\n\r\n"
        reply = await front.ask(requests + last, until_close=True)
        assert [part.rpartition(b"\r\n\r\n")[2] for part in reply.raw.split(b"HTTP/1.1 ")[1:]] == [
            b"/1",
            b"/2",
            b"/3",
            b"/4",
        ]


PIECES = [
    *(b"GET /api/ HTTP/1.1\r\n", b"POST /api/ HTTP/1.1\r\n", H, b"content-length: 3\r\n", b"content-length: 0\r\n"),
    *(
        b"transfer-encoding: chunked\r\n",
        b"\r\n",
        b"3\r\nabc\r\n",
        b"0\r\n\r\n",
        b"abc",
        b"\n",
        b"\r",
        b"\0",
        b" ",
        b"\t",
    ),
    *(b"connection: upgrade\r\nupgrade: websocket\r\n", b"expect: 100-continue\r\n", b";x=y", b": ", b"0\r\n"),
]


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.sampled_from(PIECES), max_size=14).map(b"".join))
def test_whatever_comes_the_upstream_sees_whole_requests(data: bytes) -> None:
    """What reaches the upstream parses there into as many requests as the gateway forwarded, never more."""

    async def run() -> None:
        async with origin(answering(OK)) as upstream, gate(config(upstream.port), Ledger()) as front:
            reader, writer = await asyncio.open_connection("127.0.0.1", front.port)
            writer.write(data)
            writer.write_eof()
            async with asyncio.timeout(60):
                with contextlib.suppress(ConnectionResetError):
                    await reader.read(-1)
            writer.close()
            await front.at_rest()
            assert len(upstream.heads) <= front.gateway.statistics().requests
            assert all(head.startswith((b"GET / HTTP/1.1\r\n", b"POST / HTTP/1.1\r\n")) for head in upstream.heads)

    asyncio.run(run())
