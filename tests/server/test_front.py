"""The server's listener: the gateway's own front, with its limits and checks, for API and services alike."""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import signal
import socket
import ssl
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import trustme
from tests.gateway.origin import OK, Reply, origin, reply
from tests.gateway.test_smuggling import REFUSED, SMUGGLED
from tests.server.process import Running, launched, server
from websockets.asyncio.client import connect
from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import ConnectionClosed

import flatwater
from flatwater.cli.client import Client

TRAILERS = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\nx-sum: 42\r\n\r\n"


@contextlib.asynccontextmanager
async def serving(tmp_path: Path, port: int, more: str = "", **variables: str) -> AsyncIterator[Running]:
    """A server whose gateway has one service, ``api``, on ``port``."""
    file = tmp_path / "gateway.toml"
    file.write_text(f'[services.api]\nendpoints = ["http://127.0.0.1:{port}"]\n{more}\n')
    with server(tmp_path, FLATWATER_GATEWAY_CONFIG=str(file), **variables) as running:
        yield running


async def ask(running: Running, data: bytes, *, until_close: bool = False) -> Reply:
    reader, writer = await asyncio.open_connection("127.0.0.1", running.port, limit=2**20)
    try:
        writer.write(data)
        async with asyncio.timeout(90):
            return Reply(await reader.read(-1)) if until_close else await reply(reader)
    finally:
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()


async def test_websockets(tmp_path: Path) -> None:
    async def echo(connection: ServerConnection) -> None:
        with contextlib.suppress(ConnectionClosed):
            async for message in connection:
                await connection.send(message)

    async with serve(echo, "127.0.0.1", 0, max_size=None) as chat:  # noqa: SIM117 its port is not known before
        async with serving(tmp_path, chat.sockets[0].getsockname()[1]) as running:
            url = f"ws://127.0.0.1:{running.port}/gateway/api/chat"
            async with connect(url, max_size=None) as client:
                for message in ("text", b"bytes", "x" * 1_000_000):
                    await client.send(message)
                    assert await client.recv() == message
            for path in ("/api/info", "/nothing"):  # no tunnel where no service is
                found = await ask(
                    running,
                    b"GET %b HTTP/1.1\r\nhost: 127.0.0.1\r\nconnection: upgrade\r\nupgrade: websocket\r\n"
                    b"sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n" % path.encode(),
                    until_close=True,
                )
                assert found.status in (200, 404)
            async with connect(url) as client:
                running.process.send_signal(signal.SIGTERM)
                with pytest.raises(ConnectionClosed):
                    await client.recv()
            assert await asyncio.to_thread(running.process.wait, 30) == 0


async def test_trailers_and_cached_answers(tmp_path: Path) -> None:
    async with origin(TRAILERS) as upstream, serving(tmp_path, upstream.port) as running:
        found = await ask(
            running,
            b"GET /gateway/api/ HTTP/1.1\r\nhost: x\r\nte: trailers\r\nconnection: te, close\r\n\r\n",
            until_close=True,
        )
        assert found.body == b"2\r\nhi\r\n0\r\nx-sum: 42\r\n\r\n"
    fresh = b"HTTP/1.1 200 OK\r\ncache-control: max-age=60\r\ncontent-length: 2\r\n\r\nhi"
    async with origin(fresh) as upstream, serving(tmp_path, upstream.port, "cache = { enabled = true }") as running:
        request = b"GET /gateway/api/page HTTP/1.1\r\nhost: x\r\n\r\n"
        answers = [await ask(running, request) for _ in range(4)]
        assert [answer.body for answer in answers] == [b"hi"] * 4
        assert len(upstream.heads) == 1
        assert "hit" in answers[-1]["cache-status"]
        assert upstream.heads[0].startswith(b"GET /page HTTP/1.1")


async def test_two_parsers_cannot_disagree(tmp_path: Path) -> None:
    """What the gateway refuses is refused here too, whether a service is meant or the API."""
    async with origin(OK) as upstream, serving(tmp_path, upstream.port) as running:
        for prefix in (b"/gateway/api/", b"/livez/"):
            for name, request in REFUSED.items():
                if prefix == b"/livez/" and name in ("long target", "TRACE"):
                    continue  # the API takes 16 KiB, and answers 405
                found = await ask(running, request.replace(b"/api/", prefix) + SMUGGLED, until_close=True)
                assert 400 <= found.status < 506, (name, found.raw)
                assert found.raw.count(b"HTTP/1.1 ") == 1, (name, found.raw)
        assert not any(b"admin" in head for head in upstream.heads)


async def test_the_api_keeps_its_connections_and_says_the_date(tmp_path: Path) -> None:
    async with origin(OK) as upstream, serving(tmp_path, upstream.port) as running:
        one = b"GET /livez HTTP/1.1\r\nhost: localhost\r\n\r\n"
        last = one.replace(b"\r\n\r\n", b"\r\nconnection: close\r\n\r\n")
        found = await ask(running, one + one + last, until_close=True)
        assert found.raw.count(b"HTTP/1.1 200 ") == found.raw.lower().count(b"\r\ndate: ") == 3
        old = await ask(running, one.replace(b"1.1", b"1.0"), until_close=True)
        assert old.status == 200
        assert b"chunked" not in old.raw
        assert (await ask(running, last.replace(b"GET", b"HEAD"), until_close=True)).body == b""
        passed = await ask(running, one.replace(b"/livez", b"/gateway/api/"))
        assert [name for name, _ in passed.headers].count(b"date") == 1
        assert running.ask("GET", "/api/ledger")[0] == 200


async def test_the_gateways_file_is_read_again(tmp_path: Path) -> None:
    def named(name: bytes) -> bytes:
        return b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\n\r\n" + name

    async def becomes(running: Running, name: bytes) -> None:
        request = b"GET /gateway/api/ HTTP/1.1\r\nhost: x\r\n\r\n"
        async with asyncio.timeout(90):
            while (await ask(running, request)).body != name:
                await asyncio.sleep(0.05)

    async with origin(named(b"a")) as first, origin(named(b"b")) as second, serving(tmp_path, first.port) as running:
        await becomes(running, b"a")
        file = tmp_path / "gateway.toml"
        file.write_text(file.read_text().replace(str(first.port), str(second.port)))
        await becomes(running, b"b")
        file.write_text("[services.api]\nendpoints = 3\n")
        running.process.send_signal(signal.SIGHUP)
        async with asyncio.timeout(90):
            while "the configuration is refused" not in running.log:
                await asyncio.sleep(0.05)
        await becomes(running, b"b")


async def test_tls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    authority = trustme.CA()
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.pem"))  # for the commands

    def issue(*names: str) -> None:
        found = authority.issue_cert("127.0.0.1", *names)
        (tmp_path / "both.pem").write_bytes(found.private_key_and_cert_chain_pem.bytes())

    issue()
    async with origin(OK) as upstream:
        variables = {"FLATWATER_SERVER_TLS_CERTIFICATE": "both.pem", "FLATWATER_SERVER_TOKEN": "secret"}
        async with serving(tmp_path, upstream.port, **variables) as running:
            running.trust = ssl.create_default_context()
            authority.configure_trust(running.trust)
            assert running.address.startswith("https://127.0.0.1:")
            assert running.ask("GET", "/livez")[0] == 200
            assert running.ask("GET", "/api/info", headers={"Authorization": "Bearer secret"})[0] == 200
            assert Client(running.address, "secret").call("GET", "/api/info")["version"] == flatwater.__version__
            assert await asyncio.to_thread(told, running, "/gateway/api/") == (200, b"hi", "")
            status, _, cookie = await asyncio.to_thread(told, running, "/?token=secret")
            assert status == 303
            assert "; Secure" in cookie
            assert b"x-forwarded-proto: https" in upstream.heads[0].lower()
            issue("new.example")
            running.process.send_signal(signal.SIGHUP)
            async with asyncio.timeout(90):
                while "new.example" not in await asyncio.to_thread(names, running):
                    await asyncio.sleep(0.05)


def told(running: Running, path: str) -> tuple[int, bytes, str]:
    """Status, body and cookie of an answer, redirections not followed."""
    connection = http.client.HTTPSConnection("127.0.0.1", running.port, timeout=90, context=running.trust)
    with contextlib.closing(connection):
        connection.request("GET", path)
        answer = connection.getresponse()
        return answer.status, answer.read(), answer.headers.get("set-cookie", "")


def names(running: Running) -> set[str]:
    """The names in the server's certificate."""
    assert running.trust is not None
    with (
        socket.create_connection(("127.0.0.1", running.port), 30) as plain,
        running.trust.wrap_socket(plain, server_hostname="127.0.0.1") as wrapped,
    ):
        found: Any = wrapped.getpeercert()
        return {name for _, name in found["subjectAltName"]}


def test_a_certificate_that_does_not_serve_is_told(tmp_path: Path) -> None:
    (tmp_path / "cert.pem").write_text("nothing")
    with launched(tmp_path, FLATWATER_SERVER_TLS_CERTIFICATE="cert.pem") as running:
        assert running.process.wait(90) != 0
        assert "the file holds none [cert.pem]" in running.log


async def test_dawdlers_are_cut_off_and_others_refused(tmp_path: Path) -> None:
    """Without any gateway: a head must come in time, and connections are counted."""
    with server(tmp_path, FLATWATER_SERVER_HEAD_TIMEOUT_S="3", FLATWATER_SERVER_MAX_CONNECTIONS="3") as running:
        slow = [socket.create_connection(("127.0.0.1", running.port), 30) for _ in range(3)]
        for one in slow:
            one.sendall(b"GET /livez HTTP/1.1\r\nhost: localhost\r\n")
        found = await ask(running, b"", until_close=True)
        assert found.status == 503
        for one in slow:
            with contextlib.suppress(ConnectionResetError):
                assert await asyncio.to_thread(one.recv, 1) == b""
            one.close()
        assert running.ask("GET", "/livez")[0] == 200
