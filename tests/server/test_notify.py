"""systemd's notification protocol."""

from __future__ import annotations

import os
import socket
from pathlib import Path

from flatwater.bounded.notify import Notifier


def test_nothing_happens_without_systemd() -> None:
    notifier = Notifier({})
    notifier.ready("x")
    assert notifier.watchdog_s is None


def test_messages_and_watchdog(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as supervisor:
        supervisor.bind(str(tmp_path / "notify"))
        supervisor.settimeout(5)
        notifier = Notifier(
            {"NOTIFY_SOCKET": str(tmp_path / "notify"), "WATCHDOG_USEC": "3000000", "WATCHDOG_PID": str(os.getpid())}
        )
        assert notifier.watchdog_s == 3.0
        notifier.ready("listening")
        notifier.alive()
        notifier.stopping("draining")
        assert supervisor.recv(999) == f"READY=1\nSTATUS=listening\nMAINPID={os.getpid()}".encode()
        assert supervisor.recv(999) == b"WATCHDOG=1"
        assert supervisor.recv(999) == b"STOPPING=1\nSTATUS=draining"


def test_abstract_addresses_and_other_processes_watchdogs() -> None:
    name = f"flatwater-test-{os.getpid()}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as supervisor:
        supervisor.bind(f"\0{name}")
        supervisor.settimeout(5)
        notifier = Notifier({"NOTIFY_SOCKET": f"@{name}", "WATCHDOG_USEC": "3000000", "WATCHDOG_PID": "1"})
        notifier.alive()
        assert supervisor.recv(99) == b"WATCHDOG=1"
        assert notifier.watchdog_s is None


def test_a_dead_supervisor_does_no_harm(tmp_path: Path) -> None:
    Notifier({"NOTIFY_SOCKET": str(tmp_path / "gone")}).ready("x")
