"""Report formats of users' packages: found, chosen, and their errors."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from tests.engine.package import install

from flatwater.cli import flatwater
from flatwater.errors import ConflictError, NotFoundError
from flatwater.memory.recording import Recording
from flatwater.memory.renderer import RenderError, renderer, renderers

SOURCE = '''
from flatwater.memory.renderer import renderer


@renderer("markdown", of="recording")
@renderer("markdown")
def markdown(document):
    """For a wiki."""
    return "# " + ", ".join(sorted(document))
'''
POINTS = "[flatwater.reports]\nmarkdown = fw_reports\n"


@pytest.fixture
def recording(tmp_path: Path) -> Path:
    file = tmp_path / "r.sqlite"
    with Recording(file):
        pass
    return file


def test_an_installed_package_brings_a_format(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, recording: Path) -> None:
    install(tmp_path, "fw_reports", SOURCE, POINTS, monkeypatch)
    assert renderers("diagnosis").require("markdown").description == "For a wiki."
    shown = CliRunner().invoke(flatwater, ["report", str(recording), "--format", "markdown"], catch_exceptions=False)
    document = json.loads(CliRunner().invoke(flatwater, ["report", str(recording), "--format", "json"]).output)
    assert shown.output == "# " + ", ".join(sorted(document))


def test_a_named_module_brings_a_format_and_unknown_ones_are_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, recording: Path
) -> None:
    install(tmp_path, "fw_wiki", SOURCE.replace("markdown", "wiki"), "", monkeypatch)
    shown = CliRunner().invoke(flatwater, ["report", str(recording), "--reports", "fw_wiki", "--format", "wiki"])
    assert shown.output.startswith("# ")
    with pytest.raises(NotFoundError, match="did you mean json"):
        renderers("diagnosis").require("jsn")


def test_a_name_is_ones_own() -> None:
    with pytest.raises(ConflictError, match="report format text is declared by Flatwater"):
        renderers("diagnosis", [__name__])


@renderer("text")
def text(document: dict[str, Any]) -> str:
    return ""


def broken(document: dict[str, Any]) -> Any:
    return document["nothing"]


@pytest.mark.parametrize(
    ("render", "wrong"),
    [(broken, "broken raised KeyError: 'nothing'"), (lambda document: 3, "gave a int"),
     (lambda document: b"x" * (65 << 20), "at most 67,108,864")],
)  # fmt: skip
def test_what_a_renderer_may_not_do(render: Any, wrong: str) -> None:
    ((_, made),) = renderer("mine")(render).__flatwater_renderer__
    with pytest.raises(RenderError, match=wrong):
        made({})


async def waiting(document: dict[str, Any]) -> str:
    return ""


@pytest.mark.parametrize(("name", "of"), [("No Name", "diagnosis"), ("x", "guard"), ("x", "diagnosis")])
def test_what_cannot_be_a_renderer(name: str, of: Any) -> None:
    with pytest.raises(TypeError, match="format"):
        renderer(name, of=of)(waiting)
