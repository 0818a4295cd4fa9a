"""The server as a process: start, signals, drain, and clients that misbehave."""

from __future__ import annotations

import json
import signal
import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest
from tests.server.harness import QUICK, SLOW, block, definition
from tests.server.process import Running, launched, server


def until(true: Callable[[], Any], timeout_s: float = 60.0) -> Any:
    deadline = time.monotonic() + timeout_s
    while not (found := true()):
        assert time.monotonic() < deadline, "it did not come true"
        time.sleep(0.02)
    return found


def connected(running: Running) -> socket.socket:
    return socket.create_connection(("127.0.0.1", running.port), 10)


def state(running: Running, run_id: str) -> str:
    return str(running.ask("GET", f"/api/runs/{run_id}")[1]["state"])


def test_it_starts_in_little_memory_and_leaves_on_sigterm(tmp_path: Path) -> None:
    with server(tmp_path) as running:
        assert running.ask("GET", "/readyz")[0] == 200
        assert psutil.Process(running.process.pid).memory_info().rss < 75_000_000
        running.process.send_signal(signal.SIGTERM)
        assert running.process.wait(60) == 0
    lines = [json.loads(line) for line in running.log.splitlines() if line.startswith("{")]
    assert [line["message"] for line in lines if line["level"] in ("warning", "error")] == []
    assert lines[-1]["message"] == "stopped"


def test_accepted_work_survives_a_stop_and_is_given_back(tmp_path: Path) -> None:
    with server(tmp_path) as running:
        assert running.ask("POST", "/api/definitions", SLOW)[0] == 201
        assert running.ask("POST", "/api/definitions", QUICK)[0] == 201
        slow = running.ask("POST", "/api/runs", {"definition": "slow"})[1]["id"]
        later = running.ask("POST", "/api/runs", {"definition": "quick", "delay_s": 2})[1]["id"]
        until(lambda: state(running, slow) in ("RUNNING", "WAITING"))
        running.process.send_signal(signal.SIGTERM)
        assert running.process.wait(60) == 0
    with server(tmp_path) as running:
        until(lambda: state(running, slow) in ("RUNNING", "WAITING"))
        until(lambda: state(running, later) == "SUCCEEDED")


def test_executing_blocks_end_while_it_drains(tmp_path: Path) -> None:
    """Unready, but it answers, ends what executes, refuses what is new, and tells streams that they are over."""
    with server(tmp_path, **blocks(tmp_path)) as running, connected(running) as stream:
        run_id = working(running, file="told")
        stream.sendall(b"GET /api/stream HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert b"200 OK" in stream.recv(65536)
        running.process.send_signal(signal.SIGTERM)
        checks = until(lambda: _unready(running))
        assert (checks["draining"]["ok"], checks["store"]["ok"]) == (False, True)
        assert running.ask("POST", "/api/runs", {"definition": "work", "inputs": {"until": "x"}})[0] == 503
        assert state(running, run_id) == "RUNNING"
        (tmp_path / "told").touch()
        assert running.process.wait(60) == 0
        rest = b""
        while part := stream.recv(65536):
            rest += part
        assert rest.endswith(b"0\r\n\r\n")  # ended, not cut
    with server(tmp_path, **blocks(tmp_path)) as running:
        assert state(running, run_id) == "SUCCEEDED"
        (step,) = [
            step for step in running.ask("GET", f"/api/runs/{run_id}/blocks")[1]["steps"] if step["name"] == "b1"
        ]
        assert step["attempt"] == 1


def _unready(running: Running) -> Any:
    status, answer = running.ask("GET", "/readyz")
    return answer["checks"] if status == 503 else None


@pytest.mark.parametrize("signals", [[signal.SIGTERM, signal.SIGTERM], [signal.SIGINT, signal.SIGINT, signal.SIGINT]])
def test_a_second_signal_cuts_the_draining_short(tmp_path: Path, signals: list[signal.Signals]) -> None:
    with server(tmp_path, FLATWATER_SERVER_DRAIN_S="600", **blocks(tmp_path)) as running:
        run_id = working(running, file="never")
        running.process.send_signal(signals[0])
        until(lambda: _unready(running))
        time.sleep(0.3)
        assert running.process.poll() is None
        for number in signals[1:]:
            running.process.send_signal(number)
        assert running.process.wait(60) in (0, 1)
    with server(tmp_path, **blocks(tmp_path)) as running:
        until(lambda: state(running, run_id) == "RUNNING")


BLOCKS = """
import asyncio
from pathlib import Path
from flatwater.engine.block import block

@block("Work")
async def work(until: str) -> None:
    while not Path(until).exists():
        await asyncio.sleep(0.01)
"""


def blocks(directory: Path) -> dict[str, str]:
    """Variables for a server that has a block which executes until a file is there: one that sleeps only waits."""
    (directory / "work_block.py").write_text(BLOCKS)
    return {"PYTHONPATH": str(directory), "FLATWATER_ENGINE_BLOCKS": "work_block"}


def working(running: Running, file: str) -> str:
    """The id of a run that executes such a block."""
    inputs = [{"name": "until", "type": "String", "required": True}]
    item = definition("work", block(1, "Work", until="=taskInputs.until"), inputParams=inputs)
    status, answer = running.ask("POST", "/api/definitions", item)
    assert status == 201, answer
    run_id = running.ask("POST", "/api/runs", {"definition": "work", "inputs": {"until": file}})[1]["id"]
    until(lambda: state(running, run_id) == "RUNNING")
    return str(run_id)


def test_a_taken_port_is_told(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with launched(tmp_path, FLATWATER_SERVER_PORT=str(port)) as running:
            assert running.process.wait(60) != 0
            assert f"port {port} is taken" in running.log
            assert "--port" in running.log


def test_a_bad_database_is_told(tmp_path: Path) -> None:
    (tmp_path / "flatwater.db").write_bytes(b"this is no database" * 1000)
    with launched(tmp_path) as running:
        assert running.process.wait(60) != 0
        assert "DamagedError" in running.log or "damaged" in running.log


def test_off_loopback_a_token_is_made_and_needed(tmp_path: Path) -> None:
    with server(tmp_path, FLATWATER_SERVER_HOST="0.0.0.0") as running:
        token = running.address.partition("?token=")[2]
        assert len(token) >= 32
        running.address = f"http://127.0.0.1:{running.port}/"
        assert running.ask("GET", "/api/info")[0] == 401
        assert running.ask("GET", "/api/info", headers={"Authorization": f"Bearer {token}"})[0] == 200
        assert [line for line in running.log.splitlines() if token in line and line.startswith("{")] == []


def test_systemd_is_told(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as supervisor:
        supervisor.bind(str(tmp_path / "notify"))
        supervisor.settimeout(60)
        variables = {"NOTIFY_SOCKET": str(tmp_path / "notify"), "WATCHDOG_USEC": "1000000"}
        with server(tmp_path, **variables) as running:
            told = [supervisor.recv(999).split(b"\n")[0] for _ in range(4)]
            assert b"READY=1" in told
            assert b"WATCHDOG=1" in told
            running.process.send_signal(signal.SIGTERM)
            until(lambda: b"STOPPING=1" in supervisor.recv(999))
            assert running.process.wait(60) == 0


def test_a_ten_megabyte_body_is_refused_in_flat_memory(tmp_path: Path) -> None:
    with server(tmp_path) as running:
        process = psutil.Process(running.process.pid)
        running.ask("GET", "/api/status")
        before = process.memory_info().rss
        for _ in range(5):
            status, answer = running.ask("POST", "/api/definitions", {"label": "x" * 10_000_000})
            assert (status, answer["error"]["code"]) == (413, "too-large")
        assert process.memory_info().rss - before < 12_000_000
        assert running.ask("GET", "/api/definitions")[1]["items"] == []


def test_a_client_that_takes_nothing_is_cut_off(tmp_path: Path) -> None:
    """The kernel cuts off who acknowledges nothing (TCP_USER_TIMEOUT); the server's memory and places come back."""
    with server(tmp_path, FLATWATER_SERVER_WRITE_TIMEOUT_S="1", FLATWATER_STREAM_STATUS_S="0.001") as running:

        def streams() -> int:
            items = running.ask("GET", "/api/ledger")[1]["items"]
            return int(next(item["size"] for item in items if item["name"] == "server.streams"))

        with socket.socket() as stalled:
            stalled.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            stalled.connect(("127.0.0.1", running.port))
            stalled.sendall(b"GET /api/stream HTTP/1.1\r\nHost: localhost\r\n\r\n")
            until(lambda: streams() == 1)
            until(lambda: streams() == 0, 60)
            until(lambda: not _established(running, stalled.getsockname()[1]), 60)


def _established(running: Running, port: int) -> list[Any]:
    """The server's connections with the client at ``port``."""
    found = psutil.Process(running.process.pid).net_connections("tcp")
    return [item for item in found if item.status == "ESTABLISHED" and item.raddr and item.raddr.port == port]
