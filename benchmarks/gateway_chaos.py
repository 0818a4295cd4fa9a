"""Chaos for the gateway: upstreams are killed, stopped and restarted, clients leave half-way, the file is reloaded.

    python benchmarks/gateway_chaos.py [--requests 200000] [--seed 1]

Two services: `steady` is left in peace, `shaky` is not. It holds that every request that its client waits for gets an
answer; that steady ones succeed (99.99 %); and that at rest no request, task or busy connection is left. It prints the
slope of the gateway's RSS with its confidence. Exit status 1 when something does not hold.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import random
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

import aiohttp
import psutil

from flatwater.memory.slope import slope

CLIENTS = 48
LEAVING = 0.03  # of the requests are left by their client before the answer is whole
UPSTREAM = """
import asyncio, sys, uvicorn

async def app(scope, receive, send):
    if scope["type"] != "http":
        return
    size = 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            return
        size += len(message.get("body", b""))
        if not message.get("more_body"):
            break
    path = scope["path"]
    if "slow" in path:
        await asyncio.sleep(0.05)
    await send({"type": "http.response.start", "status": 200, "headers": [(b"x-size", b"%d" % size)]})
    parts = 40 if "large" in path else 1
    for _ in range(parts):
        await send({"type": "http.response.body", "body": b"x" * (16384 if parts > 1 else 512), "more_body": True})
    await send({"type": "http.response.body", "body": b""})

uvicorn.run(app, port=int(sys.argv[1]), log_level="critical", access_log=False, lifespan="off", ws="none")
"""


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


class Upstream:
    """A server that can be killed, stopped and started again on its port."""

    def __init__(self, program: Path) -> None:
        self.port = free_port()
        self._program = program
        self.process = self.start()

    def start(self) -> subprocess.Popen[bytes]:
        self.process = subprocess.Popen([sys.executable, str(self._program), str(self.port)])
        return self.process

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()


class Chaos:
    """One run of it."""

    def __init__(self, folder: Path, requests: int, chance: random.Random) -> None:
        program = folder / "upstream.py"
        program.write_text(UPSTREAM)
        self.steady = [Upstream(program) for _ in range(2)]
        self.shaky = [Upstream(program) for _ in range(2)]
        self.file = folder / "gateway.toml"
        self.port, self.desk = free_port(), free_port()
        self.left = requests
        self.chance = chance
        self.counts: dict[str, Counter[str]] = {"steady": Counter(), "shaky": Counter()}
        self.points: list[tuple[float, float]] = []
        self.idle_tasks = 0
        self.done = self.reloads = self.kills = self.stops = 0
        self.write()
        command = [sys.executable, "-m", "flatwater.cli", "gateway", "-c", str(self.file)]
        self.gateway = subprocess.Popen(command, stderr=(folder / "gateway.log").open("wb"))
        self.log = folder / "gateway.log"

    def write(self) -> None:
        """The configuration, a little different each time."""
        text = f"[listen]\nport = {self.port}\n[admin]\nport = {self.desk}\n"
        for name, upstreams in (("steady", self.steady), ("shaky", self.shaky)):
            listed = ", ".join(f'"http://127.0.0.1:{upstream.port}"' for upstream in upstreams)
            pending = 1000 + (self.reloads if name == "shaky" else 0)
            text += (
                f"[services.{name}]\nendpoints = [{listed}]\nconnections.max_pending = {pending}\n"
                "connections.max_connections = 40\ntimeout.connect_s = 2\ntimeout.first_byte_s = 2\n"
                "timeout.idle_s = 2\ntimeout.total_s = 20\n"
            )
        fresh = self.file.with_suffix(".new")
        fresh.write_text(text)
        fresh.replace(self.file)

    async def run(self) -> None:
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:
            await self.answering(session)
            self.idle_tasks = (await self.figures(session))["tasks"]["size"]
            async with asyncio.TaskGroup() as group:
                trouble = [group.create_task(self.disturb()), group.create_task(self.watch())]
                clients = [group.create_task(self.client(session)) for _ in range(CLIENTS)]
                await asyncio.wait(clients)
                for task in trouble:
                    task.cancel()

    async def answering(self, session: aiohttp.ClientSession) -> None:
        for name in ("steady", "shaky"):
            for _ in range(400):
                with contextlib.suppress(aiohttp.ClientError):
                    async with session.get(f"http://127.0.0.1:{self.port}/{name}/") as answer:
                        if answer.status == 200:
                            break
                await asyncio.sleep(0.05)

    async def client(self, session: aiohttp.ClientSession) -> None:
        while self.left > 0:
            self.left -= 1
            name = self.chance.choice(("steady", "shaky"))
            path = self.chance.choices(("", "slow", "large"), (80, 15, 5))[0]
            body = self.chance.choice((None, None, b"x" * self.chance.randrange(1, 100_000)))
            if self.chance.random() < LEAVING:
                await self.leave(name, path)
            else:
                self.counts[name][await self.ask(session, name, path, body)] += 1
            self.done += 1

    async def ask(self, session: aiohttp.ClientSession, name: str, path: str, body: bytes | None) -> str:
        """Status, ``broken`` for an answer that breaks off after its head, or ``none``."""
        status = "none"
        try:
            method = "GET" if body is None else "POST"
            async with asyncio.timeout(60):
                async with session.request(method, f"http://127.0.0.1:{self.port}/{name}/{path}", data=body) as answer:
                    status = "broken"
                    await answer.read()
                    status = str(answer.status)
        except (aiohttp.ClientError, TimeoutError, OSError):
            pass
        return status

    async def leave(self, name: str, path: str) -> None:
        """Ask, read a little or nothing, and go."""
        with contextlib.suppress(OSError):
            reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
            writer.write(f"GET /{name}/{path} HTTP/1.1\r\nHost: h\r\n\r\n".encode())
            if self.chance.random() < 0.5:
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(reader.read(100), 1)
            writer.close() if self.chance.random() < 0.5 else writer.transport.abort()
        self.counts[name]["left"] += 1

    async def disturb(self) -> None:
        while True:
            await asyncio.sleep(self.chance.uniform(0.5, 1.5))
            victim = self.chance.choice(self.shaky)
            what = self.chance.choice(("kill", "stop", "reload", "reload"))
            if what == "kill":
                victim.kill()
                self.kills += 1
                await asyncio.sleep(self.chance.uniform(0, 1))
                victim.start()
            elif what == "stop":
                victim.process.send_signal(signal.SIGSTOP)
                self.stops += 1
                await asyncio.sleep(self.chance.uniform(0, 3))
                victim.process.send_signal(signal.SIGCONT)
            else:
                self.reloads += 1
                self.write()
                self.gateway.send_signal(signal.SIGHUP)

    async def watch(self) -> None:
        process = psutil.Process(self.gateway.pid)
        while True:
            await asyncio.sleep(1)
            self.points.append((float(self.done), float(process.memory_info().rss)))

    async def rest(self) -> dict[str, Any]:
        """The gateway's figures when it has come to rest, or after 30 s."""
        found: dict[str, Any] = {}
        async with aiohttp.ClientSession() as session:
            for _ in range(60):
                await asyncio.sleep(0.5)
                found = await self.figures(session)
                if not problems_at_rest(found, self.idle_tasks):
                    break
        return found

    async def figures(self, session: aiohttp.ClientSession) -> dict[str, Any]:
        async with session.get(f"http://127.0.0.1:{self.desk}/api/gateway") as answer:
            told: dict[str, Any] = (await answer.json())["statistics"]
            return told

    def end(self) -> None:
        self.gateway.terminate()
        try:
            self.gateway.wait(40)
        finally:
            self.gateway.kill()
            for upstream in (*self.steady, *self.shaky):
                upstream.process.send_signal(signal.SIGCONT)
                upstream.kill()


def problems_at_rest(figures: dict[str, Any], idle_tasks: int) -> list[str]:
    """What is left although nobody asks any more."""
    wrong = [f"{figures['active']} requests are under way"] if figures["active"] else []
    if figures["tasks"]["size"] > idle_tasks:  # those of the gateway itself
        wrong.append(f"{figures['tasks']['size'] - idle_tasks} tasks of requests live")
    for service in figures["services"]:
        for endpoint in service["endpoints"]:
            pool = endpoint["pool"]
            if pool["busy"] or pool["pending"] or endpoint["active"]:
                wrong.append(f"{endpoint['url']}: {pool['busy']} busy, {pool['pending']} pending, {endpoint['active']}")
    return wrong


def judge(chaos: Chaos, figures: dict[str, Any]) -> list[str]:
    """What does not hold."""
    wrong = problems_at_rest(figures, chaos.idle_tasks)
    for name, counts in chaos.counts.items():
        asked = counts.total() - counts["left"]
        good = 100 * counts["200"] / max(1, asked)
        print(
            f"  {name:7} {asked:,} asked, {counts['left']:,} left by their clients, {good:.4f} % good: {dict(counts)}"
        )
        if counts["none"]:
            wrong.append(f"{counts['none']} requests to {name} got no answer")
        if name == "steady" and good < 99.99:
            wrong.append(f"only {good:.4f} % of the steady service's requests succeeded")
    found = slope([(x / 1e5, y / 1e6) for x, y in chaos.points[len(chaos.points) // 4 :]])
    if found is not None:
        print(f"  RSS {found.per_s:+.2f} MB per 100,000 requests ({found.low:+.2f} to {found.high:+.2f})")
    return wrong


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--requests", type=int, default=200_000)
    parser.add_argument("--seed", type=int, default=1)
    chosen = parser.parse_args()
    begun = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="flatwater-chaos-") as folder:
        chaos = Chaos(Path(folder), chosen.requests, random.Random(chosen.seed))
        try:
            asyncio.run(chaos.run())
            figures = asyncio.run(chaos.rest())
            told = (
                f"{chaos.kills} kills, {chaos.stops} stops, {chaos.reloads} reloads in {time.monotonic() - begun:.0f} s"
            )
            print(f"{chaos.done:,} requests (seed {chosen.seed}), {told}", flush=True)
            wrong = judge(chaos, figures)
        finally:
            chaos.end()
        if chaos.gateway.returncode:
            wrong.append(f"the gateway ended with {chaos.gateway.returncode}: {chaos.log.read_text()[-2000:]}")
        for line in chaos.log.read_text().splitlines():
            if "Traceback" in line or "ERROR" in line:
                wrong.append(f"in the log: {line}")
    for line in wrong[:20]:
        print(f"  WRONG: {line}")
    sys.exit(bool(wrong))


if __name__ == "__main__":
    os.environ.pop("FLATWATER_CONFIG", None)
    main()
