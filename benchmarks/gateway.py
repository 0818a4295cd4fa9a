"""The gateway beside nginx, Caddy, aiohttp, Starlette with httpx, and the repaired design of the source document.

    python benchmarks/gateway.py [--rounds 3] [--seconds 6] [--only pass,cache,varied,slope,stall] [--peers nginx,…]

One proxy worker is pinned to one core, load (wrk, 64 connections) and upstream (nginx, 1 KB) to the
other. The figure is the proxy's CPU time per request, from /proc; the systems take turns in each round
and ratios are to nginx in the same round, as medians. Needs nginx and wrk (Debian: nginx-light wrk),
caddy where it is installed, and the packages of the peers in the Python that is told by --python.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import re
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil

HERE = Path(__file__).parent
PROXY_CORE, LOAD_CORE = "0", "1"
CONNECTIONS = 64
STALLED, STALLED_MIB = 16, 64
SLOPE_REQUESTS = 500_000

VARIED = """
local number = 0
request = function()
    number = number + 1
    return wrk.format("GET", nil, {["x-request-id"] = string.format("%016d", number)})
end
"""


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


@contextlib.contextmanager
def program(core: str, command: list[str], port: int) -> Iterator[psutil.Process]:
    """A server on one core, ready when its port answers."""
    log = tempfile.TemporaryFile()  # noqa: SIM115 - closed below
    process = subprocess.Popen(["taskset", "-c", core, *command], stdout=log, stderr=log)
    try:
        for _ in range(300):
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
                break
            if process.poll() is not None:
                log.seek(0)
                raise SystemExit(f"{command} ended:\n{log.read().decode()[-2000:]}")
            time.sleep(0.05)
        yield psutil.Process(process.pid)
    finally:
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
        log.close()


def nginx(folder: Path, port: int, locations: str, extra: str = "") -> list[str]:
    folder.mkdir(parents=True, exist_ok=True)
    config = folder / "nginx.conf"
    config.write_text(
        f"worker_processes 1; daemon off; pid {folder}/pid; error_log {folder}/error.log;\n"
        "events { worker_connections 4096; }\n"
        "http { access_log off; keepalive_requests 1000000;\n"
        f"client_body_temp_path {folder}; proxy_temp_path {folder}/temporary;\n"
        f"{extra}\nserver {{ listen 127.0.0.1:{port} backlog=4096; {locations} }} }}\n"
    )
    return [shutil.which("nginx") or "/usr/sbin/nginx", "-p", str(folder), "-c", str(config)]


@contextlib.contextmanager
def upstream(folder: Path) -> Iterator[int]:
    """nginx with 1 KB at any path (cacheable below /cached), and a file of 64 MiB."""
    port = free_port()
    (folder / "up").mkdir()
    (folder / "up/large").write_bytes(b"x" * (STALLED_MIB << 20))
    body = "x" * 1024
    locations = (
        f'location / {{ return 200 "{body}"; }} '
        f'location /cached {{ add_header Cache-Control "max-age=3600"; return 200 "{body}"; }} '
        f"location /large {{ root {folder}/up; }}"
    )
    with program(LOAD_CORE, nginx(folder / "upstream", port, locations), port):
        yield port


Command = Callable[[Path, int, int], list[str]]


def nginx_proxy(folder: Path, port: int, up: int) -> list[str]:
    extra = (
        f"proxy_cache_path {folder}/cache keys_zone=one:10m; upstream up {{ server 127.0.0.1:{up}; keepalive 100; }} "
        "proxy_http_version 1.1; proxy_set_header Connection '';"
    )
    locations = "location / { proxy_pass http://up; } location /cached { proxy_cache one; proxy_pass http://up; }"
    return nginx(folder, port, locations, extra)


def flatwater(folder: Path, port: int, up: int) -> list[str]:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "gateway.toml").write_text(
        f"[listen]\nport = {port}\n"
        f'[services.cached]\npath = "/cached"\nstrip_prefix = false\nendpoints = ["http://127.0.0.1:{up}"]\n'
        "cache.enabled = true\n"
        f'[services.plain]\npath = "/"\nendpoints = ["http://127.0.0.1:{up}"]\n'
    )
    return [sys.executable, "-m", "flatwater.cli", "gateway", "-c", str(folder / "gateway.toml")]


def caddy(folder: Path, port: int, up: int) -> list[str]:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "Caddyfile").write_text(
        f"{{\nadmin off\nauto_https off\nhttp_port {port}\n}}\n"
        f"http://127.0.0.1:{port} {{\nreverse_proxy 127.0.0.1:{up}\n}}\n"
    )
    return [shutil.which("caddy") or "caddy", "run", "--config", str(folder / "Caddyfile"), "--adapter", "caddyfile"]


def python_peer(name: str, python: str) -> Command:
    return lambda folder, port, up: [
        python,
        str(HERE / f"peers/{name}_gateway.py"),
        str(port),
        f"http://127.0.0.1:{up}",
    ]


def tree(process: psutil.Process) -> list[psutil.Process]:
    return [process, *process.children(recursive=True)]


def cpu_s(process: psutil.Process) -> float:
    return sum(sum(one.cpu_times()[:2]) for one in tree(process))


def rss(process: psutil.Process) -> int:
    return sum(one.memory_info().rss for one in tree(process))


def load(port: int, path: str, seconds: float, script: Path | None = None) -> tuple[int, int]:
    """wrk from the other core: answers, and answers that were not 2xx or 3xx, or socket errors."""
    command = ["taskset", "-c", LOAD_CORE, "wrk", "-t1", f"-c{CONNECTIONS}", f"-d{seconds:g}s", "--timeout", "20s"]
    command += ["-s", str(script)] if script is not None else []
    done = subprocess.run([*command, f"http://127.0.0.1:{port}{path}"], capture_output=True, text=True, check=True)
    answers = int(re.search(r"(\d+) requests in", done.stdout)[1])  # type: ignore[index]
    wrong = re.search(r"Non-2xx or 3xx responses: (\d+)", done.stdout)
    sockets = re.search(r"connect (\d+), read (\d+), write (\d+), timeout (\d+)", done.stdout)
    return answers, (int(wrong[1]) if wrong else 0) + (sum(map(int, sockets.groups())) if sockets else 0)


def cpu_per_request(command: Command, folder: Path, up: int, path: str, seconds: float, script: Path | None) -> float:
    """Microseconds."""
    port = free_port()
    with program(PROXY_CORE, command(folder, port, up), port) as process:
        load(port, path, 1.0, script)
        before = cpu_s(process)
        answers, wrong = load(port, path, seconds, script)
        if wrong:
            print(f"    {wrong} of {answers} answers were wrong", flush=True)
        return (cpu_s(process) - before) / answers * 1e6


def compare(
    title: str,
    path: str,
    peers: dict[str, Command],
    folder: Path,
    up: int,
    rounds: int,
    seconds: float,
    lua: str = "",
) -> None:
    """``lua`` is wrk's script, if there is one."""
    print(f"{title} (CPU per request)", flush=True)
    script = folder / "requests.lua" if lua else None
    if script is not None:
        script.write_text(lua)
    found: dict[str, list[float]] = {name: [] for name in peers}
    for number in range(rounds):
        for name, command in peers.items():
            found[name].append(
                cpu_per_request(command, folder / f"{name}-{path.strip('/')}-{number}", up, path, seconds, script)
            )
    for name, values in found.items():
        ratios = [value / base for value, base in zip(values, found["nginx"], strict=True)]
        low, high = min(ratios), max(ratios)
        print(
            f"  {name:10} {statistics.median(values):8.1f} µs   {statistics.median(ratios):6.2f} × nginx"
            f"   ({low:.2f} to {high:.2f})",
            flush=True,
        )


def slope(name: str, command: Command, folder: Path, up: int) -> None:
    """RSS after each tenth of the requests, from the second on: bytes per 100,000 requests."""
    port = free_port()
    with program(PROXY_CORE, command(folder / f"{name}-slope", port, up), port) as process:
        start = rss(process)
        points, done = [], 0
        while done < SLOPE_REQUESTS:
            done += load(port, "/", 5.0)[0]
            points.append((done, rss(process)))
        points = points[len(points) // 5 :]
        grown = statistics.linear_regression([x for x, _ in points], [y for _, y in points]).slope
        print(
            f"  {name:10} {start / 1e6:6.1f} MB at start, {points[-1][1] / 1e6:6.1f} MB after {done:,},"
            f" {grown * 1e5 / 1e6:+.3f} MB per 100,000",
            flush=True,
        )


def stall(name: str, command: Command, folder: Path, up: int) -> None:
    """16 clients ask for 64 MiB each and read nothing for 4 s."""
    port = free_port()
    with program(PROXY_CORE, command(folder / f"{name}-stall", port, up), port) as process:
        load(port, "/", 1.0)
        before, peak = rss(process), 0
        clients = [socket.create_connection(("127.0.0.1", port)) for _ in range(STALLED)]
        for client in clients:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            client.sendall(b"GET /large HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
        for _ in range(40):
            time.sleep(0.1)
            peak = max(peak, rss(process))
        for client in clients:
            client.close()
        print(f"  {name:10} {(peak - before) / 1e6:+8.1f} MB", flush=True)


def versions(python: str) -> str:
    told = subprocess.run(
        [shutil.which("nginx") or "/usr/sbin/nginx", "-v"], capture_output=True, text=True, check=True
    )
    text = "import importlib.metadata as m, json; print(json.dumps({n: m.version(n) for n in %r}))"
    names = ["aiohttp", "httpx", "starlette", "fastapi", "uvicorn", "uvloop"]
    found = subprocess.run([python, "-c", text % names], capture_output=True, text=True, check=False)
    peers = json.loads(found.stdout) if found.returncode == 0 else {}
    listed = ", ".join(f"{name} {number}" for name, number in peers.items())
    return f"{told.stderr.strip()}, {listed}, Python {sys.version.split()[0]}, {os.cpu_count()} cores"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=6.0)
    parser.add_argument("--only", default="pass,cache,varied,slope,stall")
    parser.add_argument("--peers", default="nginx,flatwater,caddy,aiohttp,document,httpx")
    parser.add_argument("--python", default=sys.executable, help="The Python that has the peers' packages.")
    chosen = parser.parse_args()
    every: dict[str, Command] = {"nginx": nginx_proxy, "flatwater": flatwater, "caddy": caddy}
    every |= {name: python_peer(name, chosen.python) for name in ("aiohttp", "document", "httpx")}
    peers = {name: every[name] for name in chosen.peers.split(",") if name != "caddy" or shutil.which("caddy")}
    only = set(chosen.only.split(","))
    print(versions(chosen.python), flush=True)
    with tempfile.TemporaryDirectory(prefix="flatwater-gateway-") as made:
        folder = Path(made)
        folder.chmod(0o755)  # nginx's workers are another user's
        with upstream(folder) as up:
            if "pass" in only:
                compare("Pass-through of 1 KB", "/", peers, folder, up, chosen.rounds, chosen.seconds)
            hits = {name: peers[name] for name in ("nginx", "flatwater", "document") if name in peers}
            if "cache" in only:
                compare("Cache hit of 1 KB, the same head", "/cached", hits, folder, up, chosen.rounds, chosen.seconds)
            if "varied" in only:
                title = "Cache hit of 1 KB, each head another"
                compare(title, "/cached", hits, folder, up, chosen.rounds, chosen.seconds, VARIED)
                title = "Pass-through of 1 KB, each head another"
                compare(title, "/", peers, folder, up, chosen.rounds, chosen.seconds, VARIED)
            for title, measure in (("slope", slope), ("stall", stall)):
                if title in only:
                    print({"slope": "RSS", "stall": f"{STALLED} clients that read nothing of {STALLED_MIB} MiB"}[title])
                    for name in ("nginx", "flatwater", "aiohttp"):
                        if name in peers:
                            measure(name, peers[name], folder, up)


if __name__ == "__main__":
    main()
