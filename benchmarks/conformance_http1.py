"""Public HTTP/1.1 conformance suites against `flatwater gateway` in front of an origin that echoes.

    H1SPEC=git+https://github.com/dropseed/h1spec
    python benchmarks/conformance_http1.py -- uvx --from $H1SPEC h1spec --strict {address}

    git clone https://github.com/uNetworking/h1spec
    python benchmarks/conformance_http1.py -- deno run --allow-net h1spec/http_test.ts {host} {port}

    git clone https://github.com/MDA2AV/Http11Probe; cd Http11Probe/src/Http11Probe.Cli
    python ../../../benchmarks/conformance_http1.py -- dotnet run -- --host {host} --port {port}

Starts the origin and the gateway on free ports, runs the command with ``{host}``, ``{port}`` and ``{address}`` filled
in, and ends with its exit code. The origin gives back what it is sent; ``/echo`` the fields and ``/cookie`` the cookies
that have reached it, one a line, which Http11Probe asks for. ``--origin`` leaves the gateway out.
"""

from __future__ import annotations

import argparse
import logging
import subprocess
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path

from conformance import ROOT, free_port, running, running_gateway

CONFIG = """\
[listen]
port = {port}

[services.origin]
path = "/"
endpoints = ["http://127.0.0.1:{origin}"]
"""


def main() -> None:
    options = parsed()
    with ExitStack() as stack:
        port = free_port()
        stack.enter_context(running([sys.executable, __file__, "--serve", str(port)], port, cwd=ROOT))
        if not options.origin:
            template = Path(stack.enter_context(tempfile.TemporaryDirectory())) / "gateway.toml"
            template.write_text(CONFIG)
            base = stack.enter_context(running_gateway(port, template))
            port = int(base.rpartition(":")[2])
        filled = {"host": "127.0.0.1", "port": port, "address": f"127.0.0.1:{port}"}
        sys.exit(subprocess.run([word.format(**filled) for word in options.command], check=False).returncode)


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--origin", action="store_true", help="leave the gateway out")
    parser.add_argument("--serve", type=int, help=argparse.SUPPRESS)
    parser.add_argument("command", nargs="*", help="the suite's own command")
    options = parser.parse_args()
    if options.serve:
        serve(options.serve)
    if not options.command:
        parser.error("say which suite to run, after --")
    return options


def serve(port: int) -> None:
    """The origin."""
    from aiohttp import web

    async def echo(request: web.Request) -> web.Response:
        body = await request.read()
        if request.path == "/echo":
            body = b"".join(b"%b: %b\n" % item for item in request.raw_headers)
        elif request.path == "/cookie":
            body = "".join(f"{name}={value}\n" for name, value in request.cookies.items()).encode()
        return web.Response(body=body or b"OK", content_type="text/plain")

    app = web.Application(client_max_size=2**26)
    app.router.add_route("*", "/{path:.*}", echo)
    logging.getLogger("aiohttp").setLevel(logging.CRITICAL)  # suites send what it does not like
    web.run_app(app, host="127.0.0.1", port=port, print=None, access_log=None)
    sys.exit()


if __name__ == "__main__":
    main()
