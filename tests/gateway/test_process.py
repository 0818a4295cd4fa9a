"""``flatwater gateway`` as a process: start, reload, drain, websockets, TLS to upstreams."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import ssl
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest
import trustme
from tests.gateway.origin import OK, Origin, config, gate, origin
from websockets.asyncio.client import connect
from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import ConnectionClosed, InvalidStatus

from flatwater.bounded import Ledger


def toml(*ports: int, more: str = "") -> str:
    endpoints = ", ".join(f'"http://127.0.0.1:{port}"' for port in ports)
    return f"[listen]\nport = 0\ndrain_s = 10.0\n[services.api]\nendpoints = [{endpoints}]\n{more}"


class Running:
    def __init__(self, process: asyncio.subprocess.Process, url: str) -> None:
        self.process = process
        self.url = url
        self.lines: list[str] = []

    async def wait_for(self, text: str) -> str:
        """The line of its log that has ``text``."""
        assert self.process.stderr is not None
        async with asyncio.timeout(60):
            while line := (await self.process.stderr.readline()).decode():
                self.lines.append(line)
                if text in line:
                    return line
        raise AssertionError(f"it ended without {text!r}: {self.lines}")


@contextlib.asynccontextmanager
async def running(path: Path, *words: str, **environment: str) -> AsyncIterator[Running]:
    process = await asyncio.create_subprocess_exec(
        *(*words, sys.executable, "-m", "flatwater.cli", "gateway", "-c", str(path), "-v"),
        stderr=asyncio.subprocess.PIPE,
        env={**os.environ, "PYTHONUNBUFFERED": "1", **environment},
    )
    found = Running(process, "")
    try:
        found.url = (await found.wait_for("is ready: ")).split("ready: ")[1].strip()
        yield found
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()
        process._transport.close()  # type: ignore[attr-defined]


async def test_reload_drops_no_request(tmp_path: Path) -> None:
    """Load while the file goes back and forth between two upstreams, with a bad one in between."""
    path = tmp_path / "gateway.toml"

    def named(name: bytes) -> bytes:
        return b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\n\r\n" + name

    async with origin(named(b"a")) as first, origin(named(b"b")) as second:
        path.write_text(toml(first.port))
        async with running(path) as gateway, aiohttp.ClientSession() as session:
            answers: list[str] = []
            done = False

            async def load() -> None:
                while not done:
                    async with session.get(f"{gateway.url}/api/") as reply:
                        assert reply.status == 200
                        answers.append(await reply.text())

            clients = asyncio.gather(*(load() for _ in range(4)))
            for _ in range(3):
                path.write_text(toml(second.port))
                gateway.process.send_signal(signal.SIGHUP)
                await gateway.wait_for("configuration loaded")
                path.write_text("[services.api]\nendpoints = 3\nbalanse = 'x'")
                gateway.process.send_signal(signal.SIGHUP)
                await gateway.wait_for("the configuration is refused")
                path.write_text(toml(first.port))
                gateway.process.send_signal(signal.SIGHUP)
                await gateway.wait_for("configuration loaded")
            path.write_text(toml(second.port, more="# seen without a signal\n"))
            await gateway.wait_for("configuration loaded")
            count = len(answers)
            while len(answers) < count + 20:
                await asyncio.sleep(0.01)
            done = True
            await clients
            assert {"a", "b"} <= set(answers)
            assert answers[-1] == "b"
            gateway.process.terminate()
            assert await gateway.process.wait() == 0


async def test_drain_finishes_what_is_under_way(tmp_path: Path) -> None:
    release = asyncio.Event()

    async def slow(origin: Origin, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await origin.request(reader)
        await release.wait()
        writer.write(OK)
        await writer.drain()

    path = tmp_path / "gateway.toml"
    async with origin(slow) as upstream:
        path.write_text(toml(upstream.port))
        async with running(path) as gateway:
            port = int(gateway.url.rpartition(":")[2])
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(b"GET /api/ HTTP/1.1\r\nhost: x\r\n\r\n")
            while not upstream.heads:
                await asyncio.sleep(0.01)
            gateway.process.terminate()
            await gateway.wait_for("draining")
            await asyncio.sleep(0.2)
            with pytest.raises(ConnectionError):
                await asyncio.open_connection("127.0.0.1", port)
            release.set()
            async with asyncio.timeout(60):
                raw = await reader.read()
                assert raw.startswith(b"HTTP/1.1 200")
                assert b"connection: close" in raw
                assert await gateway.process.wait() == 0
            writer.close()


async def test_second_signal_ends_it_at_once(tmp_path: Path) -> None:
    async def never(origin: Origin, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await origin.request(reader)
        await asyncio.sleep(3600)

    path = tmp_path / "gateway.toml"
    async with origin(never) as upstream:
        path.write_text(toml(upstream.port).replace("10.0", "600.0"))
        async with running(path) as gateway:
            _, writer = await asyncio.open_connection("127.0.0.1", int(gateway.url.rpartition(":")[2]))
            writer.write(b"GET /api/ HTTP/1.1\r\nhost: x\r\n\r\n")
            while not upstream.heads:
                await asyncio.sleep(0.01)
            gateway.process.terminate()
            await gateway.wait_for("draining")
            gateway.process.terminate()
            async with asyncio.timeout(60):
                assert await gateway.process.wait() == 0
            writer.transport.abort()


@pytest.mark.parametrize(("text", "line"), [("[services.api]\nendpoints = []", 2), ("\nnonsense", 2), ("", 1)])
async def test_bad_file_does_not_start(text: str, line: int, tmp_path: Path) -> None:
    path = tmp_path / "gateway.toml"
    path.write_text(text)
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "flatwater.cli", "gateway", "-c", str(path)), stderr=asyncio.subprocess.PIPE
    )
    _, told = await process.communicate()
    assert process.returncode == 1
    assert f"{path}:{line}: " in told.decode()


async def test_websockets(ledger: Ledger) -> None:
    async def echo(connection: ServerConnection) -> None:
        with contextlib.suppress(ConnectionClosed):
            async for message in connection:
                await connection.send(message)

    async with serve(echo, "127.0.0.1", 0, max_size=None) as server:
        port = server.sockets[0].getsockname()[1]
        async with gate(config(port), ledger) as front:
            url = f"ws://127.0.0.1:{front.port}/api/chat"
            async with connect(url, max_size=None) as client:
                for message in ("text", b"bytes", "x" * 1_000_000):
                    await client.send(message)
                    assert await client.recv() == message
                assert front.gateway.statistics().active == 1
            await front.at_rest()
            record = front.gateway.history.latest(1)[0]
            assert (record.status, record.target) == (101, "/api/chat")
            clients = [await connect(url) for _ in range(5)]
            for client in clients:
                client.transport.abort()
            await front.at_rest()
            for client in clients:
                await client.wait_closed()


async def test_refused_handshake_is_passed_on(ledger: Ledger) -> None:
    async with origin(b"HTTP/1.1 403 No\r\ncontent-length: 0\r\n\r\n") as upstream:
        async with gate(config(upstream.port), ledger) as front:
            with pytest.raises(InvalidStatus) as caught:
                await connect(f"ws://127.0.0.1:{front.port}/api/")
            assert caught.value.response.status_code == 403
        async with gate(config(upstream.port, "websockets = false"), ledger) as front:
            with pytest.raises(InvalidStatus) as caught:
                await connect(f"ws://127.0.0.1:{front.port}/api/")
            assert caught.value.response.status_code == 501


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


async def test_tls_to_upstreams(authority: trustme.CA, tmp_path: Path, ledger: Ledger) -> None:
    """Verified against ca_file by name, with a certificate of ours; strangers and wrong names are refused."""
    server = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("upstream.example").configure_cert(server)
    authority.configure_trust(server)
    server.verify_mode = ssl.CERT_REQUIRED
    names: list[str | None] = []
    server.sni_callback = lambda _, name, __: names.append(name)
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    authority.issue_cert("gateway.example").private_key_and_cert_chain_pem.write_to_path(tmp_path / "own.pem")
    trusted = f'ca_file = "{tmp_path}/ca.pem", certificate = "{tmp_path}/own.pem"'
    async with origin(OK, tls=server) as upstream:
        for tls, status in (
            (f'{trusted}, server_name = "upstream.example"', 200),
            (f'{trusted}, server_name = "other.example"', 502),
            (f'certificate = "{tmp_path}/own.pem", server_name = "upstream.example"', 502),
            (f"{trusted}, verify = false", 200),
        ):
            given = config(upstream.port, f"tls = {{ {tls} }}\nretry = {{ attempts = 1 }}", scheme="https")
            async with gate(given, ledger) as front:
                for _ in range(2):
                    reply = await front.get()
                    assert reply.status == status, (tls, reply.raw)
                    assert status == 200 or reply["x-flatwater-reason"] == "tls_failed"
                await front.at_rest()
        assert "upstream.example" in names
