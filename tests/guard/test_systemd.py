"""What systemd hears of a guard, on a real datagram socket in its place."""

from __future__ import annotations

import os
import select
import signal
import socket
import subprocess
import sys
import time
import urllib.request
import uuid
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.guard.guarding import GUARD, SLEEP, Guarded, guarding, python

# systemd names the main process in WATCHDOG_PID: the shell's number, which becomes the guard's.
WATCHED = ("sh", "-c", 'WATCHDOG_PID=$$ exec "$@"', "sh")


class Systemd:
    """The other end of NOTIFY_SOCKET, and what was said there."""

    def __init__(self, address: str, *, watchdog_s: float | None = None) -> None:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(address.replace("@", "\0", 1))
        self.environment = {**os.environ, "NOTIFY_SOCKET": address}
        if watchdog_s is not None:
            self.environment["WATCHDOG_USEC"] = str(int(watchdog_s * 1e6))
        self.heard: list[dict[str, str]] = []

    def wait(self, what: Callable[[dict[str, str]], bool], timeout_s: float = 100) -> dict[str, str]:
        """The next message for which this holds."""
        deadline = time.monotonic() + timeout_s
        while True:
            ready, _, _ = select.select([self._socket], [], [], max(deadline - time.monotonic(), 0))
            assert ready, f"heard so far: {self.heard}"
            text = self._socket.recv(4096).decode()
            self.heard.append(dict(line.split("=", 1) for line in text.splitlines()))
            if what(self.heard[-1]):
                return self.heard[-1]

    def said(self, key: str) -> int:
        return sum(key in message for message in self.heard)

    def close(self) -> None:
        self._socket.close()


@pytest.mark.parametrize("kind", ["path", "abstract"])
def test_a_life_as_systemd_sees_it(kind: str, tmp_path: Path) -> None:
    name = f"@flatwater-{uuid.uuid4().hex}" if kind == "abstract" else str(tmp_path / "notify")
    systemd = Systemd(name, watchdog_s=1.0)
    tell = "import os; open('told', 'a').write(str(sorted(key for key in os.environ if 'NOTIFY' in key)))\n"
    words = ["-n", "2", *python(tell + SLEEP)]
    try:
        with guarding(tmp_path, *words, prefix=WATCHED, environment=systemd.environment) as guard:
            ready = systemd.wait(lambda message: "READY" in message)
            assert ready["MAINPID"] == str(guard.process.pid)
            assert ready["STATUS"] == "2 workers"
            assert len(guard.events("start")) == 2, "ready means that the workers are there"
            for _ in range(3):
                systemd.wait(lambda message: "WATCHDOG" in message)
            replaced(guard, systemd)
            guard.process.send_signal(signal.SIGTERM)
            assert "stopping" in systemd.wait(lambda message: "STOPPING" in message)["STATUS"]
            assert guard.process.wait(90) == 0
        told = (tmp_path / "told").read_text()
        assert told
        assert set(told) == set("[]"), "a worker must not speak for the guard"
    finally:
        systemd.close()


def replaced(guard: Guarded, systemd: Systemd) -> None:
    guard.process.send_signal(signal.SIGHUP)
    reloading = systemd.wait(lambda message: "RELOADING" in message)
    assert 0 < int(reloading["MONOTONIC_USEC"]) <= time.monotonic_ns() // 1000
    again = systemd.wait(lambda message: "READY" in message)
    assert again["MAINPID"] == str(guard.process.pid), "the main process is the same"
    assert len(guard.events("start")) == 4
    assert [event.body["reason"] for event in guard.events("end")] == ["recycled"] * 2


def test_without_a_watchdog_nobody_asks_for_signs_of_life(tmp_path: Path) -> None:
    systemd = Systemd(str(tmp_path / "notify"))
    try:
        with guarding(tmp_path, *python(SLEEP), environment=systemd.environment) as guard:
            systemd.wait(lambda message: "READY" in message)
            guard.process.send_signal(signal.SIGTERM)
            systemd.wait(lambda message: "STOPPING" in message)
        assert systemd.said("WATCHDOG") == 0
        assert systemd.said("STOPPING") == 1
    finally:
        systemd.close()


def test_a_command_that_cannot_be_started_is_never_ready_and_systemd_is_told_why(tmp_path: Path) -> None:
    systemd = Systemd(str(tmp_path / "notify"))
    try:
        with guarding(tmp_path, "--", str(tmp_path / "missing"), environment=systemd.environment):
            status = systemd.wait(lambda message: "STATUS" in message)["STATUS"]
            assert "missing cannot be started" in status
        assert systemd.said("READY") == 0
    finally:
        systemd.close()


def test_more_time_is_asked_for_while_a_worker_ends_its_work(tmp_path: Path) -> None:
    systemd = Systemd(str(tmp_path / "notify"))
    slow = (
        "import signal, sys, time\n"
        "signal.signal(signal.SIGTERM, lambda *_: (time.sleep(0.5), sys.exit())); open('up', 'w').close()\n"
    )
    try:
        with guarding(tmp_path, *python(slow + SLEEP), environment=systemd.environment) as guard:
            guard.wait((tmp_path / "up").exists)
            guard.process.send_signal(signal.SIGTERM)
            systemd.wait(lambda message: "STOPPING" in message)
            asked = systemd.wait(lambda message: "EXTEND_TIMEOUT_USEC" in message)
            assert int(asked["EXTEND_TIMEOUT_USEC"]) == 30_000_000
            assert guard.process.wait(90) == 0
    finally:
        systemd.close()


# What systemd does before it runs a command.
ACTIVATE = """
import os, sys
os.dup2(int(sys.argv[1]), 3)
os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS="1")
os.execvp(sys.argv[2], sys.argv[2:])
"""
APP = """
import os
async def app(scope, receive, send):
    if scope["type"] != "http": return
    await send({"type": "http.response.start", "status": 200, "headers": [(b"connection", b"close")]})
    told = " ".join([str(os.getpid()), os.environ["LISTEN_PID"], os.environ["LISTEN_FDS"]])
    await send({"type": "http.response.body", "body": told.encode()})
"""


def test_sockets_that_systemd_opened_are_passed_on_and_no_connection_is_refused(tmp_path: Path) -> None:
    """uvicorn --fd 3, replaced under load: connections wait in the socket's queue."""
    (tmp_path / "shop.py").write_text(APP)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port, descriptor = listener.getsockname()[1], listener.fileno()
        activated = (sys.executable, "-c", ACTIVATE, str(descriptor))
        os.set_inheritable(descriptor, True)
        words = [*activated, *GUARD, "--", sys.executable, "-m", "uvicorn", "--fd", "3", "shop:app"]
        with (tmp_path / "log").open("wb") as output:
            guard = subprocess.Popen(words, cwd=tmp_path, close_fds=False, stdout=output, stderr=output)
    try:
        pids = [_ask(port)]
        guard.send_signal(signal.SIGHUP)
        deadline = time.monotonic() + 90
        while len(set(pids)) < 2:
            assert time.monotonic() < deadline, (tmp_path / "log").read_text()
            pids.append(_ask(port))
    finally:
        guard.send_signal(signal.SIGTERM)
        assert guard.wait(90) == 0


def _ask(port: int) -> str:
    """Who answers; it must be told that the socket is meant for it.

    uvicorn's own stop resets a connection that has not asked yet (which the guard inside an app prevents).
    """
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=60) as answer:
            pid, meant, count = answer.read().decode().split()
    except ConnectionResetError:
        return _ask(port)
    assert (meant, count) == (pid, "1")
    return str(pid)
