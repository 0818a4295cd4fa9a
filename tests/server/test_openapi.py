"""The description is true: whatever it allows, or forbids, is answered as it says, and never by a 5xx."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, settings
from schemathesis.specs.openapi import checks as openapi_checks
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
        assert "503" in operation["responses"], path


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
        sites = [{"id": f"A-{number}", "group": "A"} for number in range(3)]
        assert found.ask("PUT", "/api/sites", sites)[0] == 200
        KNOWN["run_id"] = [
            found.ask("POST", "/api/runs", {"definition": name})[1]["id"] for name in KNOWN["definition_id"]
        ]
        KNOWN["task_record_id"] = KNOWN["run_id"]
        yield found


KNOWN: dict[str, list[str]] = {
    "definition_id": ["quick", "slow", "failing", "site"],
    "site_id": ["A-0", "A-1", "A-2", "changes"],
}


@pytest.fixture(scope="module")
def described(running: Running) -> Any:
    schema = schemathesis.openapi.from_url(running.address + "openapi.json")

    @schema.hook
    def map_path_parameters(context: Any, path_parameters: Any) -> Any:
        """Half of the paths name things that exist."""
        for name, value in (path_parameters or {}).items():
            if isinstance(value, str) and len(value) % 2 and name in KNOWN:
                path_parameters[name] = KNOWN[name][len(value) // 2 % len(KNOWN[name])]
        return path_parameters

    # The stream never ends; test_stream.py and test_serve.py listen to it.
    return schema.exclude(path="/api/stream")


schema = schemathesis.pytest.from_fixture("described")


@schema.parametrize()
@settings(
    max_examples=12,
    deadline=None,
    derandomize=True,
    database=None,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=list(HealthCheck),
)
def test_every_answer_is_as_described(running: Running, case: schemathesis.Case) -> None:
    # What the types cannot say (expressions, keys given twice) is refused with 422 although the types allow it.
    case.call_and_validate(excluded_checks=[openapi_checks.positive_data_acceptance])
    assert running.process.poll() is None


def test_nothing_unforeseen_was_logged(running: Running) -> None:
    assert "Traceback" not in running.log
