"""A real server process, a browser window at its page, and what is measured in it."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from typing import Any

from playwright.sync_api import Browser, Locator, Page, expect

NAMES = ("chromium", "chromium-browser", "google-chrome")
CHROMIUM = next((found for name in NAMES if (found := shutil.which(name))), None)
ARGUMENTS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
START_S = 60.0
PATIENCE_MS = 20_000
DIAGNOSTIC_TOKEN = "a-token-for-the-instruments"

# Contrast of every visible text with what is behind it, as WCAG 2.1 defines it.
POOR_CONTRAST = """() => {
  const parse = (text) => { const m = text.match(/[\\d.]+/g).map(Number); return { c: m.slice(0, 3), a: m[3] ?? 1 }; };
  const over = (top, under) => ({ c: top.c.map((v, i) => v * top.a + under.c[i] * (1 - top.a)), a: 1 });
  const linear = (v) => (v / 255 <= 0.03928 ? v / 255 / 12.92 : ((v / 255 + 0.055) / 1.055) ** 2.4);
  const light = ({ c: [r, g, b] }) => 0.2126 * linear(r) + 0.7152 * linear(g) + 0.0722 * linear(b);
  const ground = (element) => {
    const layers = [];
    for (let e = element; e; e = e.parentElement) layers.unshift(parse(getComputedStyle(e).backgroundColor));
    return layers.reduce((under, top) => over(top, under), { c: [255, 255, 255], a: 1 });
  };
  const NOT_READ = ":disabled, svg, noscript, option";
  const poor = [];
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  for (let node = walker.nextNode(); node; node = walker.nextNode()) {
    const element = node.parentElement;
    if (!node.data.trim() || !element.checkVisibility() || element.closest(NOT_READ)) continue;
    const under = ground(element);
    const pair = [light(over(parse(getComputedStyle(element).color), under)), light(under)].sort((x, y) => y - x);
    const ratio = (pair[0] + 0.05) / (pair[1] + 0.05);
    if (ratio < 4.5) poor.push(`${element.className}: ${node.data.trim().slice(0, 30)}: ${ratio.toFixed(2)}`);
  }
  return poor;
}"""
OVERFLOW = "document.documentElement.scrollWidth - innerWidth"


class Server:
    """A real server process on a free port, with its own database."""

    def __init__(self, folder: Path, *flags: str, token: str = "") -> None:
        self.folder = folder
        self.flags = flags
        self.token = token
        self.port = _free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        command = [str(Path(sys.executable).with_name("flatwater")), "serve", "--port", str(self.port), *self.flags]
        command += ["--db", f"sqlite:///{self.folder / 'page.db'}"]
        environment = {name: value for name, value in os.environ.items() if not name.startswith("FLATWATER_")}
        environment["FLATWATER_SERVER_DIAGNOSTIC_TOKEN"] = DIAGNOSTIC_TOKEN
        if self.token:
            environment["FLATWATER_SERVER_TOKEN"] = self.token
        with (self.folder / "server.log").open("ab") as log:
            self._process = subprocess.Popen(command, cwd=self.folder, env=environment, stderr=log, stdout=log)
        deadline = time.monotonic() + START_S
        while not self._ready():
            assert self._process.poll() is None, f"the server ended: {self.log()}"
            assert time.monotonic() < deadline, f"the server is not ready after {START_S} s: {self.log()}"
            time.sleep(0.1)

    def kill(self) -> None:
        """End it as a power cut does."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def log(self) -> str:
        return (self.folder / "server.log").read_text()[-2000:]

    def _ready(self) -> bool:
        try:
            return self.call("GET", "/readyz") is not None
        except OSError:
            return False

    def call(self, method: str, path: str, body: Any = None) -> Any:
        headers = {"Content-Type": "application/json", "Authorization": f"Bearer {self.token}"}
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.url + path, data, headers, method=method)
        with urllib.request.urlopen(request, timeout=60) as answer:
            return json.loads(answer.read())

    def submit(self, name: str, **more: Any) -> str:
        return str(self.call("POST", "/api/runs", {"definition": name, **more})["id"])

    def in_state(self, run: str, *states: str) -> dict[str, Any]:
        deadline = time.monotonic() + PATIENCE_MS / 1000
        while True:
            found: dict[str, Any] = self.call("GET", f"/api/runs/{run}")
            if found["state"] in states:
                return found
            assert time.monotonic() < deadline, f"{found['state']}, not {states}: {found['error']}"
            time.sleep(0.05)


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


class Desk:
    """A browser window at the page, ``trusted`` with the instruments' token; what its console complains of fails."""

    def __init__(self, browser: Browser, server: Server, *, trusted: bool = True, **options: Any) -> None:
        self.server = server
        self.complaints: list[str] = []
        self.refusals: set[int] = set()
        self.context = browser.new_context(viewport=options.pop("viewport", {"width": 1280, "height": 720}), **options)
        if trusted:
            self.context.add_cookies([{"name": "flatwater_token", "value": DIAGNOSTIC_TOKEN, "url": server.url}])
        self.page = self.context.new_page()
        self.page.set_default_timeout(PATIENCE_MS)
        self.page.on("console", self._note)
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))

    def _note(self, message: Any) -> None:
        """Chromium writes every refused request into the console; ``refusals`` are those that the test provokes."""
        refused = any(f"status of {status}" in message.text for status in self.refusals)
        if message.type in ("error", "warning") and not refused:
            self.complaints.append(message.text)

    def open(self, place: str = "") -> Page:
        self.page.goto(f"{self.server.url}/#/{place}")
        expect(self.page.locator("h1")).to_be_visible()
        return self.page

    def badge(self) -> Locator:
        return self.page.locator(".run-title .badge")

    def click(self, action: str) -> None:
        self.page.locator(f'[data-action="{action}"]').click()

    def confirm(self) -> None:
        self.page.locator("[data-confirm]").click()
