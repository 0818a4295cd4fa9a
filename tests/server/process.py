"""The server as users run it: a process on a free port."""

from __future__ import annotations

import json
import os
import ssl
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any


class Running:
    """A started server: its address, its process and its log."""

    def __init__(self, process: subprocess.Popen[bytes], log: Path) -> None:
        self.process = process
        self.trust: ssl.SSLContext | None = None  # for a server that speaks TLS
        self._log = log
        self.address = ""

    @property
    def log(self) -> str:
        return self._log.read_text("utf-8", "replace")

    @property
    def port(self) -> int:
        return int(self.address.rpartition(":")[2].partition("/")[0])

    def ask(
        self, method: str, path: str, body: Any = None, headers: Mapping[str, str] | None = None
    ) -> tuple[int, Any]:
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.address.partition("?")[0].rstrip("/") + path, data, method=method)
        for name, value in {**({"Content-Type": "application/json"} if data else {}), **(headers or {})}.items():
            request.add_header(name, value)
        try:
            with urllib.request.urlopen(request, timeout=60, context=self.trust) as answer:
                text = answer.read()
                return answer.status, json.loads(text) if text else None
        except urllib.error.HTTPError as error:
            with error:
                return error.code, json.loads(error.read())

    def await_ready(self, timeout_s: float = 60.0) -> None:
        deadline = time.monotonic() + timeout_s
        while time.monotonic() < deadline:
            for line in self.log.splitlines():
                if line.startswith("Flatwater listens on "):
                    self.address = line.removeprefix("Flatwater listens on ").strip()
                    return
            if self.process.poll() is not None:
                break
            time.sleep(0.02)
        raise AssertionError(f"the server did not start:\n{self.log}")


@contextmanager
def server(directory: Path, **variables: str) -> Iterator[Running]:
    """Start a server on a free port over a database in ``directory``; it is killed at the end if it still runs."""
    with launched(directory, **variables) as running:
        running.await_ready()
        yield running


@contextmanager
def launched(directory: Path, **variables: str) -> Iterator[Running]:
    """As ``server``, but without waiting until it answers."""
    environ = {name: value for name, value in os.environ.items() if not name.startswith(("FLATWATER_", "NOTIFY_"))}
    environ |= {
        "FLATWATER_SERVER_PORT": "0",
        "FLATWATER_STORE_URL": f"sqlite:///{directory / 'flatwater.db'}",
        "FLATWATER_LOG_FORMAT": "json",
        **variables,
    }
    log = directory / f"server-{len(list(directory.glob('server-*.log')))}.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "flatwater.server.serve"], env=environ, stderr=output, stdout=output, cwd=directory
        )
        try:
            yield Running(process, log)
        finally:
            if process.poll() is None:
                process.kill()
            process.wait(90)
