"""Alerts on the server's own memory: to a webhook and a command, into metrics and status."""

from __future__ import annotations

import http.server
import json
import queue
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.server.client import eventually
from tests.server.harness import running

from flatwater.errors import FlatwaterError
from flatwater.settings.model import AlertSettings, GatewaySettings, StatusSettings

QUICK = StatusSettings(sample_s=0.1)


@pytest.fixture
def hook() -> Iterator[tuple[str, queue.Queue[dict[str, Any]]]]:
    told: queue.Queue[dict[str, Any]] = queue.Queue()

    class Hook(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            told.put(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(204)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    server = http.server.HTTPServer(("127.0.0.1", 0), Hook)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/", told
    server.shutdown()
    thread.join()
    server.server_close()


async def test_a_broken_rule_is_told_everywhere(tmp_path: Path, hook: tuple[str, queue.Queue[dict[str, Any]]]) -> None:
    url, told = hook
    note = tmp_path / "note"
    alert = AlertSettings(rules=("rss > 1MiB", "rss > 1GiB"), to=(f"webhook:{url}", f"exec:tee {note}"))
    async with running(tmp_path, alert=alert, status=QUICK) as client:
        await eventually(lambda: not told.empty() and note.exists() and note.read_text().strip())
        seen = told.get()
        assert seen["rule"].startswith("rss > 1MiB")
        assert json.loads(note.read_text())["rule"] == seen["rule"]
        assert (await client.get("/api/status")).json["alerts"] == [seen["rule"]]
        metrics = (await client.get("/metrics")).body.decode()
        assert f'flatwater_alert{{rule="{seen["rule"]}"}} 1.0' in metrics
        assert "flatwater_alerts_raised_total 1.0" in metrics


async def test_nothing_is_told_of_a_calm_server(tmp_path: Path) -> None:
    async with running(tmp_path, status=QUICK) as client:

        async def looked() -> bool:
            entries = (await client.get("/api/ledger")).json["items"]
            return any(entry["name"] == "server alerts" and entry["size"] for entry in entries)

        await eventually(looked)
        assert (await client.get("/api/status")).json["alerts"] == []


@pytest.mark.parametrize("wrong", [AlertSettings(rules=("rss >> 1",)), AlertSettings(to=("pigeon",))])
async def test_wrong_settings_stop_the_start(tmp_path: Path, wrong: AlertSettings) -> None:
    with pytest.raises(FlatwaterError):
        async with running(tmp_path, alert=wrong):
            pass


async def test_the_gateways_overload_may_be_a_rule(tmp_path: Path) -> None:
    file = tmp_path / "gateway.toml"
    file.write_text('[overload]\nlimit_bytes = "1 MiB"\n[services.a]\nendpoints = ["http://127.0.0.1:9"]\n')
    alert, gateway = AlertSettings(rules=("overload > 2",)), GatewaySettings(config=str(file))
    async with running(tmp_path, alert=alert, status=QUICK, gateway=gateway) as client:

        async def told() -> bool:
            return (await client.get("/api/status")).json["alerts"] == ["overload > 2"]

        await eventually(told)
