"""The public cache conformance suite (https://cache-tests.fyi, github.com/http-tests/cache-tests) against the gateway.

    git clone https://github.com/http-tests/cache-tests; cd cache-tests; npm install undici
    python benchmarks/conformance.py cache-tests                # against `flatwater gateway`
    python benchmarks/conformance.py cache-tests --bare         # against the cache in the smallest proxy there is
    python benchmarks/conformance.py cache-tests --base URL     # against whatever listens there, in front of --origin
    python benchmarks/conformance.py cache-tests --id ID        # one test, with its messages

Starts the suite's origin and the gateway on free ports, runs the suite's own client, and prints the counts as the
suite's page does: required tests that pass and fail, optimal ones, and those left out because one they depend on
did not pass. ``--targets`` makes it fail below 132 pass or above 12 fail (required), or below 70 (optimal).
Needs node ≥ 20; takes about two minutes.
"""

from __future__ import annotations

import argparse
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
WAIT_S = 30.0

CLASSIFY = """
import fs from 'node:fs'
const suite = process.argv[1]
const { default: suites } = await import(suite + '/tests/index.mjs')
const { determineTestResult, resultTypes } = await import(suite + '/test-engine/lib/results.mjs')
const results = JSON.parse(fs.readFileSync(0, 'utf8'))
const named = Object.entries(resultTypes)
const out = []
for (const group of suites) for (const test of group.tests) {
  if (test.browser_only) continue
  const type = determineTestResult(suites, test.id, results)
  const name = named.find(([, value]) => value === type)[0]
  out.push({ id: test.id, suite: group.id, kind: test.kind || 'required', result: name, detail: results[test.id] })
}
console.log(JSON.stringify(out))
"""

CONFIG = """\
[listen]
port = {port}

[services.origin]
path = "/"
endpoints = ["http://127.0.0.1:{origin}"]
cache = { enabled = true }
retry = { statuses = [] } # the suite takes a second request for one that it must not count
"""


def main() -> None:
    options = parsed()
    suite = options.suite.resolve()
    with ExitStack() as stack:
        base = options.base
        if base is None:
            origin = stack.enter_context(running_origin(suite))
            base = stack.enter_context(
                running_bare(origin) if options.bare else running_gateway(origin, options.config)
            )
        if options.id:
            print(run_client(suite, base, options.id))
            return
        tests = classified(suite, run_client(suite, base, ""))
    report(tests, options.verbose)
    if options.output:
        options.output.write_text(json.dumps(tests, indent=1))
    if options.targets and not held(tests):
        sys.exit("below the targets")


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("suite", type=Path, help="where the suite was cloned to")
    parser.add_argument("--bare", action="store_true", help="the smallest proxy instead of the gateway")
    parser.add_argument("--base", help="the address of a cache that runs already")
    parser.add_argument("--config", type=Path, help="a template of the gateway's configuration with {port}, {origin}")
    parser.add_argument("--id", default="", help="one test only")
    parser.add_argument("--output", type=Path, help="write all results to this file")
    parser.add_argument("--targets", action="store_true", help="fail below the targets")
    parser.add_argument("-v", "--verbose", action="store_true", help="list the tests of kind check, too")
    return parser.parse_args()


@contextmanager
def running_origin(suite: Path) -> Iterator[int]:
    port = free_port()
    environment = node_environment(npm_config_protocol="http", npm_config_port=str(port))
    with tempfile.TemporaryDirectory() as folder:
        environment["npm_config_pidfile"] = f"{folder}/pid"
        with running(["node", "test-engine/server/server.mjs"], port, cwd=suite, env=environment):
            yield port


@contextmanager
def running_bare(origin: int) -> Iterator[str]:
    port = free_port()
    command = [sys.executable, "-m", "tests.gateway.cachingproxy", f"http://127.0.0.1:{origin}", str(port)]
    with running(command, port, cwd=ROOT):
        yield f"http://127.0.0.1:{port}"


@contextmanager
def running_gateway(origin: int, template: Path | None) -> Iterator[str]:
    port = free_port()
    text = template.read_text() if template else CONFIG
    with tempfile.TemporaryDirectory() as folder:
        config = Path(folder) / "gateway.toml"
        config.write_text(text.replace("{port}", str(port)).replace("{origin}", str(origin)))
        command = [sys.executable, "-m", "flatwater.cli", "gateway", "-c", str(config)]
        with running(command, port, cwd=ROOT):
            yield f"http://127.0.0.1:{port}"


@contextmanager
def running(command: list[str], port: int, **options: Any) -> Iterator[None]:
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, **options) as process:
        try:
            wait_for(port, process)
            yield
        finally:
            process.terminate()


def wait_for(port: int, process: subprocess.Popen[bytes]) -> None:
    until = time.monotonic() + WAIT_S
    while time.monotonic() < until:
        if process.poll() is not None:
            sys.exit(f"{process.args} ended with {process.returncode}")
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.05)
    sys.exit(f"{process.args} does not listen on {port}")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def node_environment(**settings: str) -> dict[str, str]:
    return {**os.environ, "npm_package_config_id": "", **settings}


def run_client(suite: Path, base: str, test: str) -> str:
    environment = node_environment(npm_config_base=base, npm_config_id=test)
    command = ["node", "--no-warnings", "test-engine/cli.mjs"]
    return subprocess.run(command, cwd=suite, env=environment, stdout=subprocess.PIPE, text=True, check=True).stdout


def classified(suite: Path, results: str) -> list[dict[str, Any]]:
    command = ["node", "--input-type=module", "-e", CLASSIFY, str(suite)]
    text = results[results.index("{") :]
    done = subprocess.run(command, input=text, stdout=subprocess.PIPE, text=True, check=True)
    return list(json.loads(done.stdout))


def report(tests: list[dict[str, Any]], verbose: bool) -> None:
    for kind in ("required", "optimal", "check"):
        of_kind = [test for test in tests if test["kind"] == kind]
        counts = Counter(test["result"] for test in of_kind)
        print(f"{kind}: {len(of_kind)} tests: " + ", ".join(f"{count} {name}" for name, count in counts.most_common()))
        if kind == "check" and not verbose:
            continue
        for test in of_kind:
            if test["result"] != "pass":
                detail = test["detail"] if test["detail"] is not True else ""
                print(f"    {test['result']:16} {test['id']}: {detail[1] if detail else ''}")


def held(tests: list[dict[str, Any]]) -> bool:
    required = Counter(test["result"] for test in tests if test["kind"] == "required")
    optimal = Counter(test["result"] for test in tests if test["kind"] == "optimal")
    return required["pass"] >= 132 and required["fail"] <= 12 and optimal["pass"] >= 70


if __name__ == "__main__":
    main()
