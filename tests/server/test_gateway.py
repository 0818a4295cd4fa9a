"""The gateway inside the server: under its prefix, beside the API, with an upstream of its own."""

from __future__ import annotations

import http.server
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.server.harness import running

from flatwater.errors import FlatwaterError
from flatwater.settings.model import GatewaySettings, ServerSettings


class Echo(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        body = f"{self.path} {self.headers.get('X-Request-Id')}".encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("X-Frame-Options", "SAMEORIGIN")
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def config(tmp_path: Path) -> Iterator[str]:
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Echo)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    file = tmp_path / "gateway.toml"
    file.write_text(f'[services.shop]\npath = "/elsewhere"\nendpoints = ["http://127.0.0.1:{server.server_port}"]\n')
    yield str(file)
    server.shutdown()
    thread.join()
    server.server_close()


async def test_a_service_answers_under_its_name(tmp_path: Path, config: str) -> None:
    token = ServerSettings(token="secret")
    async with running(tmp_path, gateway=GatewaySettings(config=config), server=token) as client:
        answer = await client.get("/gateway/shop/cart?x=1", headers={"host": "any.example", "x-request-id": "r-1"})
        assert (answer.status, answer.body) == (200, b"/cart?x=1 r-1"), "neither the token nor the host name is its own"
        assert answer.headers["x-frame-options"] == "SAMEORIGIN"
        assert (await client.get("/gateway/none/", headers={"x-request-id": "r-2"})).status == 404
        assert (await client.get("/api/gateway")).status == 401
        client.headers["authorization"] = "Bearer secret"
        seen = (await client.get("/api/gateway?limit=5")).json
        assert [row["id"] for row in seen["history"]] == ["r-2", "r-1"]
        assert seen["statistics"]["services"][0]["name"] == "shop"
        metrics = (await client.get("/metrics")).body.decode()
        assert 'flatwater_gateway_answers_total{class="2xx",service="shop"} 1.0' in metrics
        names = {item["name"] for item in (await client.get("/api/ledger")).json["items"]}
        assert "gateway history" in names


async def test_a_server_without_one(tmp_path: Path) -> None:
    async with running(tmp_path) as client:
        answer = await client.get("/api/gateway")
        assert answer.status == 404
        assert "gateway.config" in answer.error["hint"]
        assert (await client.get("/gateway/shop/")).status == 404


async def test_a_wrong_file_stops_the_start(tmp_path: Path) -> None:
    file = tmp_path / "gateway.toml"
    file.write_text("[services.shop]\nendpoint = 1\n")
    with pytest.raises(FlatwaterError, match=r"gateway\.toml:"):
        async with running(tmp_path, gateway=GatewaySettings(config=str(file))):
            pass
