"""``flatwater gateway`` as a service: what systemd hears, the log in JSON, alerts, the listener for operators."""

from __future__ import annotations

import asyncio
import json
import signal
import socket
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from queue import Queue
from typing import Any

import aiohttp
import pytest
from tests.gateway.origin import LATE, OK, origin
from tests.gateway.test_process import running, toml

from flatwater.bounded import Ledger, TaskGroup
from flatwater.cli.gateway import alarm, check_alert
from flatwater.errors import FlatwaterError
from flatwater.gateway import Gateway, parse
from flatwater.gateway.exposition import exposition
from flatwater.listener.address import bound

# systemd names the main process in WATCHDOG_PID: the shell's number, which becomes the gateway's.
WATCHED = ("sh", "-c", 'WATCHDOG_PID=$$ exec "$@"', "sh")


async def heard(systemd: socket.socket, what: str) -> dict[str, str]:
    """The next message that has this key."""
    loop = asyncio.get_running_loop()
    async with asyncio.timeout(60):
        while True:
            text = (await loop.sock_recv(systemd, 4096)).decode()
            message = dict(line.split("=", 1) for line in text.splitlines())
            if what in message:
                return message


async def test_a_life_as_systemd_sees_it(tmp_path: Path) -> None:
    """And what the log says of it, in JSON; the configuration is loaded by signal and over HTTP."""
    path = tmp_path / "gateway.toml"
    with bound("127.0.0.1", 0, section="admin") as free:
        port = free.getsockname()[1]
    more = f'[log]\nformat = "json"\n[admin]\nport = {port}\n'
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind(str(tmp_path / "notify"))
        systemd.setblocking(False)
        environment = {"NOTIFY_SOCKET": str(tmp_path / "notify"), "WATCHDOG_USEC": "600000"}
        async with origin(OK) as upstream:
            path.write_text(more + toml(upstream.port))
            async with running(path, *WATCHED, **environment) as gateway:
                ready = await heard(systemd, "READY")
                assert ready["MAINPID"] == str(gateway.process.pid)
                assert ready["STATUS"] == f"listening on {gateway.url}"
                for _ in range(3):
                    await heard(systemd, "WATCHDOG")
                gateway.process.send_signal(signal.SIGHUP)
                assert "MONOTONIC_USEC" in await heard(systemd, "RELOADING")
                assert (await heard(systemd, "READY"))["STATUS"] == f"listening on {gateway.url}"
                path.write_text("nonsense")
                async with (
                    aiohttp.ClientSession(f"http://127.0.0.1:{port}") as session,
                    session.post("/api/gateway/reload", json={}) as reply,
                ):
                    assert reply.status == 422
                await heard(systemd, "RELOADING")
                assert "the configuration is refused" in (await heard(systemd, "READY"))["STATUS"]
                line = json.loads(await gateway.wait_for('"audit"'))
                assert (line["level"], line["audit"], line["client"]) == ("warning", "reload", "127.0.0.1")
                gateway.process.terminate()
                assert (await heard(systemd, "STOPPING"))["STATUS"] == "draining"
                assert await gateway.process.wait() == 0
                assert all("at" in json.loads(line) for line in gateway.lines if "is ready: " not in line)


class Hook(BaseHTTPRequestHandler):
    told: Queue[dict[str, Any]] = Queue()

    def do_POST(self) -> None:
        self.told.put(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
        self.send_response(204)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


async def heard_by_hook() -> dict[str, Any]:
    return await asyncio.to_thread(Hook.told.get, timeout=60)


BROKEN = ("overload > 1", "rss > 1 MiB")


async def test_alerts_go_to_webhook_and_metric(ledger: Ledger) -> None:
    """Of memory, and of overload as the gateway itself finds it."""
    hook = HTTPServer(("127.0.0.1", 0), Hook)
    thread = threading.Thread(target=hook.serve_forever)
    thread.start()
    try:
        config = parse(
            "[alert]\n"
            'rules = ["overload > 1", "rss > 1 MiB", "rss > 99%"]\n'
            f'to = ["webhook:http://127.0.0.1:{hook.server_port}/"]\n'
            'every_s = "20ms"\n'
            f'[overload]\nevery_s = "20ms"\n{LATE}'
            '[services.a]\nendpoints = ["http://127.0.0.1:9"]\n'
        )
        used = 930
        gateway = Gateway(config, ledger=ledger, read_memory=lambda: (used, 1000))
        watch = alarm(config, gateway, ledger)
        async with watch, gateway, TaskGroup("test", max_tasks=1, ledger=ledger) as tasks:
            tasks.start(watch.run(), name="alarm")
            told = {alert["rule"]: alert for alert in [await heard_by_hook(), await heard_by_hook()]}
            assert {rule: alert["kind"] for rule, alert in told.items()} == dict.fromkeys(BROKEN, "raised")
            overload, memory = (told[rule] for rule in BROKEN)
            assert overload["value"] == 2.0
            assert overload["message"].startswith("flatwater gateway: overload is 2")
            assert memory["value"] > 1 << 20
            assert set(watch.active()) == set(BROKEN)
            shown = exposition(gateway, watch)
            assert b'flatwater_alert{rule="overload > 1"} 1.0' in shown
            assert b"rss > 99%" not in shown
            used = 100
            cleared = await heard_by_hook()
            assert (cleared["rule"], cleared["kind"]) == ("overload > 1", "cleared")
            assert watch.active() == ["rss > 1 MiB"]
    finally:
        hook.shutdown()
        thread.join()
        hook.server_close()


@pytest.mark.parametrize("wrong", ['rules = ["overload >> 1"]', 'rules = ["pressure > 1"]', 'to = ["pigeon"]'])
def test_wrong_alerts_are_refused(wrong: str) -> None:
    config = parse(f'[alert]\n{wrong}\n[services.a]\nendpoints = ["http://127.0.0.1:9"]\n')
    with pytest.raises(FlatwaterError):
        check_alert(config)
