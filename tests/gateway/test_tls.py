"""TLS on the listening side: real certificates, real clients, and new certificates while clients come and go."""

from __future__ import annotations

import asyncio
import contextlib
import io
import signal
import socket
import ssl
from pathlib import Path

import aiohttp
import pytest
import trustme
from tests.gateway.origin import OK, origin
from tests.gateway.test_process import Running, running
from websockets.asyncio.client import connect
from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import ConnectionClosed

from flatwater.gateway import parse
from flatwater.gateway.document import ConfigError


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def trust(authority: trustme.CA) -> ssl.SSLContext:
    found = ssl.create_default_context()
    authority.configure_trust(found)
    return found


def issue(authority: trustme.CA, folder: Path, *names: str) -> None:
    found = authority.issue_cert("localhost", "127.0.0.1", *names)
    (folder / "key.pem").write_bytes(found.private_key_pem.bytes())
    (folder / "cert.pem").write_bytes(b"".join(blob.bytes() for blob in found.cert_chain_pems))


@pytest.fixture
def files(authority: trustme.CA, tmp_path: Path) -> Path:
    issue(authority, tmp_path)
    return tmp_path


def toml(port: int, more: str = "", listen: str = "") -> str:
    return (
        f"[listen]\nport = 0\ndrain_s = 10.0\n{listen}\n"
        f'[listen.tls]\ncertificate = "cert.pem"\nkey = "key.pem"\n{more}\n'
        f'[services.api]\nendpoints = ["http://127.0.0.1:{port}"]\n'
    )


def port_of(gateway: Running) -> int:
    return int(gateway.url.rpartition(":")[2])


async def names(gateway: Running, trust: ssl.SSLContext) -> set[str]:
    """The names in the certificate that is shown."""
    _, writer = await asyncio.open_connection("127.0.0.1", port_of(gateway), ssl=trust)
    found = writer.get_extra_info("peercert")["subjectAltName"]
    writer.close()
    with contextlib.suppress(ConnectionError, ssl.SSLError):
        await writer.wait_closed()
    return {name for _, name in found}


async def becomes(name: str, gateway: Running, trust: ssl.SSLContext) -> None:
    async with asyncio.timeout(90):
        while name not in await names(gateway, trust):
            await asyncio.sleep(0.05)


async def test_requests_websockets_and_drain(files: Path, trust: ssl.SSLContext) -> None:
    async def echo(connection: ServerConnection) -> None:
        with contextlib.suppress(ConnectionClosed):
            async for message in connection:
                await connection.send(message)

    path = files / "gateway.toml"
    seen = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n" + b"10000\r\n" + b"x" * 65536 + b"\r\n0\r\n\r\n"
    async with origin(seen) as upstream, serve(echo, "127.0.0.1", 0, max_size=None) as chat:
        path.write_text(
            toml(upstream.port)
            + f'[services.chat]\nendpoints = ["http://127.0.0.1:{chat.sockets[0].getsockname()[1]}"]\n'
        )
        async with running(path) as gateway, aiohttp.ClientSession() as session:
            assert gateway.url.startswith("https://")
            for size in (0, 3_000_000):
                async with session.post(f"{gateway.url}/api/", data=io.BytesIO(b"y" * size), ssl=trust) as answer:
                    assert answer.status == 200
                    assert await answer.read() == b"x" * 65536
            assert len(upstream.bodies[-1]) == 3_000_000
            assert b"x-forwarded-proto: https" in upstream.heads[-1].lower()
            url = gateway.url.replace("https", "wss") + "/chat/"
            async with connect(url, ssl=trust, max_size=None) as client:
                await client.send("z" * 1_000_000)
                assert await client.recv() == "z" * 1_000_000
            gateway.process.terminate()
            async with asyncio.timeout(90):
                assert await gateway.process.wait() == 0


async def test_new_certificates_without_a_restart(files: Path, authority: trustme.CA, trust: ssl.SSLContext) -> None:
    path = files / "gateway.toml"
    async with origin(OK) as upstream:
        path.write_text(toml(upstream.port))
        async with running(path) as gateway, aiohttp.ClientSession() as session:
            async with session.get(f"{gateway.url}/api/", ssl=trust) as answer:
                assert await answer.read() == b"hi"
            issue(authority, files, "signal.example")
            gateway.process.send_signal(signal.SIGHUP)
            await becomes("signal.example", gateway, trust)
            (files / "cert.pem").write_text("nothing")
            await gateway.wait_for("the certificate in use stays")
            assert "signal.example" in await names(gateway, trust)
            issue(authority, files, "change.example")
            await becomes("change.example", gateway, trust)
            async with session.get(f"{gateway.url}/api/", ssl=trust) as answer:  # the same connection all the time
                assert await answer.read() == b"hi"


async def test_who_gets_no_connection(files: Path, trust: ssl.SSLContext) -> None:
    """Old versions, strangers to TLS and those who dawdle over the handshake; others are served meanwhile."""
    path = files / "gateway.toml"
    async with origin(OK) as upstream:
        path.write_text(toml(upstream.port, 'min_version = "1.3"', "head_s = 2.0"))
        async with running(path) as gateway, aiohttp.ClientSession() as session:
            reader, writer = await asyncio.open_connection("127.0.0.1", port_of(gateway))
            old = ssl.create_default_context()
            old.check_hostname, old.verify_mode = False, ssl.CERT_NONE
            old.maximum_version = ssl.TLSVersion.TLSv1_2
            with pytest.raises((ssl.SSLError, ConnectionError)):
                await asyncio.open_connection("127.0.0.1", port_of(gateway), ssl=old)
            plain, plainly = await asyncio.open_connection("127.0.0.1", port_of(gateway))
            plainly.write(b"GET /api/ HTTP/1.1\r\nhost: x\r\n\r\n")
            async with asyncio.timeout(90):
                with contextlib.suppress(ConnectionResetError):
                    assert b"HTTP/1.1 200" not in await plain.read()
            async with session.get(f"{gateway.url}/api/", ssl=trust) as answer:
                assert answer.status == 200
            async with asyncio.timeout(90):
                with contextlib.suppress(ConnectionResetError):
                    assert await reader.read() == b""
            for one in (writer, plainly):
                one.close()
                with contextlib.suppress(ConnectionError):
                    await one.wait_closed()
        assert len(upstream.heads) == 1


async def test_the_admin_listener_may_show_it_too(files: Path, trust: ssl.SSLContext) -> None:
    path = files / "gateway.toml"
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    async with origin(OK) as upstream:
        path.write_text(toml(upstream.port, f'[admin]\nport = {port}\ntoken = "t"\ntls = true'))
        async with (
            running(path),
            aiohttp.ClientSession(headers={"authorization": "Bearer t"}) as session,
            session.get(f"https://127.0.0.1:{port}/api/gateway", ssl=trust) as answer,
        ):
            assert (await answer.json())["statistics"]["draining"] is False


@pytest.fixture
def wrong(files: Path) -> Path:
    (files / "other.pem").write_bytes(trustme.CA().issue_cert("x").private_key_pem.bytes())
    return files


@pytest.mark.parametrize(
    ("tls", "line", "told", "hint"),
    [
        ('certificate = "none.pem"', 2, "there is no file", "check the path"),
        ('certificate = "cert.pem"\nkey = "other.pem"', 2, "was not made for the key", "both of one making"),
        ('certificate = "key.pem"', 2, "the file holds none", "begins with"),
        ('certificate = "cert.pem"', 2, "holds no private key", "made for"),
        ('key = "key.pem"', 2, "a key without a certificate", "certificate too"),
        ('certificate = "cert.pem"\nkey = "key.pem"\nmin_version = "1.1"', 4, "1.1", "'1.2' or '1.3'"),
    ],
)
def test_mistakes_have_their_line(tls: str, line: int, told: str, hint: str, wrong: Path) -> None:
    text = f'[listen.tls]\n{tls}\n[services.a]\nendpoints = ["http://h"]\n'
    with pytest.raises(ConfigError) as caught:
        parse(text, name=str(wrong / "gateway.toml"))
    (problem,) = caught.value.problems
    assert problem.path.endswith(f"gateway.toml:{line}")
    assert told in problem.message
    assert hint in problem.hint


def test_admin_tls_needs_a_certificate() -> None:
    with pytest.raises(ConfigError, match="there is no certificate"):
        parse('[admin]\nport = 1\ntls = true\n[services.a]\nendpoints = ["http://h"]\n')
