"""The description is true: whatever it allows, or forbids, is answered as it says, and never by a 5xx."""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.long import often
from tests.server.harness import FAILING, QUICK, SITE, SLOW
from tests.server.process import Running, server

from flatwater.server.api import routes
from flatwater.server.openapi import document

DOCS = Path(__file__).parents[2] / "docs" / "reference"


def test_every_route_is_described_with_types_and_errors() -> None:
    described = document(routes())
    operations = [(path, method) for path, methods in described["paths"].items() for method in methods]
    assert sorted(operations) == sorted((route.template, route.method.lower()) for route in routes())
    names = [described["paths"][path][method]["operationId"] for path, method in operations]
    assert len(names) == len(set(names))
    for path, method in operations:
        operation = described["paths"][path][method]
        assert operation["summary"], path
        assert {"401", "403", "503", "504"} <= set(operation["responses"]) or path in ("/livez", "/readyz")


def test_every_list_has_a_limit() -> None:
    for path, methods in document(routes())["paths"].items():
        if "get" not in methods:
            continue
        limits = [item for item in methods["get"]["parameters"] if item["name"] == "limit"]
        assert all(item["schema"]["maximum"] == 500 for item in limits), path


def test_every_route_is_in_the_reference_pages() -> None:
    text = (DOCS / "http.md").read_text("utf-8") + (DOCS / "compatibility.md").read_text("utf-8")
    assert [
        f"{route.method} {route.template}" for route in routes() if f"`{route.method} {route.template}`" not in text
    ] == []


# ---- against the real server -----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def running() -> Iterator[Running]:
    """A server with definitions, sites and runs in several states, for the requests to meet."""
    with tempfile.TemporaryDirectory() as directory, server(Path(directory), FLATWATER_LOG_LEVEL="warning") as found:
        for item in (QUICK, SLOW, FAILING, SITE):
            assert found.ask("POST", "/api/definitions", item)[0] == 201
        assert found.ask("PUT", "/api/sites", [{"id": "A-1", "group": "A"}])[0] == 200
        for name in ("quick", "failing", "slow", "site"):
            assert found.ask("POST", "/api/runs", {"definition": name, "idempotency_key": name})[0] == 201
        yield found


def explore(running: Running, directory: Path, config: str, phases: str) -> None:
    """Run schemathesis over the server: thousands of requests, right and wrong ones, and all its checks."""
    (directory / "schemathesis.toml").write_text(config)
    command = [
        *(sys.executable, "-m", "schemathesis.cli", "run", running.address + "openapi.json", "--no-color"),
        *("--exclude-path", "/api/stream"),  # it never ends; test_stream.py and test_serve.py listen to it
        *("--phases", phases, "--max-examples", str(often(16)), "--seed", "1", "--generation-database", "none"),
        # What types cannot say (expressions, references to other things) is refused although the types allow it.
        *("--exclude-checks", "positive_data_acceptance"),
    ]
    done = subprocess.run(command, cwd=directory, capture_output=True, text=True, timeout=280, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    (count,) = re.findall(r"(\d+) generated, \1 passed", done.stdout)
    assert int(count) > 1000
    assert running.process.poll() is None


@pytest.mark.timeout(300)
def test_every_answer_is_as_described_for_anything(running: Running, tmp_path: Path) -> None:
    """Each limit of each field. (Random requests, too, would be about runs and sites that are not there.)"""
    explore(running, tmp_path, "", "coverage")


@pytest.mark.timeout(300)
def test_every_answer_is_as_described_for_things_that_exist(running: Running, tmp_path: Path) -> None:
    (run,) = running.ask("GET", "/api/runs?out_order_no=slow")[1]["items"]
    known = {
        "run_id": run["id"],
        "definition_id": "slow",
        "site_id": "A-1",
        "task_id": "slow",
        "task_record_id": run["id"],
    }
    config = "[parameters]\n" + "".join(f'"path.{key}" = "{value}"\n' for key, value in known.items())
    explore(running, tmp_path, config, "coverage,fuzzing")


def test_nothing_unforeseen_was_logged(running: Running) -> None:
    assert "Traceback" not in running.log
