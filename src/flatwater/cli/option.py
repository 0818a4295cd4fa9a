"""Options that several commands share, and what they become."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar

import click

from flatwater.quantity import measure
from flatwater.settings import Flag, Settings, load

if TYPE_CHECKING:
    from flatwater.memory.renderer import Renderer

F = TypeVar("F", bound=Callable[..., Any])


class Measure(click.ParamType[float]):
    """A size or a duration as people write it: 512KiB, 10m."""

    def __init__(self, unit: str) -> None:
        self.name = unit

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        try:
            return float(measure(value, self.name)) if self.name == "seconds" else int(measure(value, self.name))
        except (TypeError, ValueError) as error:
            self.fail(f"{value!r}: {error}", param, ctx)


BYTES = Measure("bytes")
SECONDS = Measure("seconds")

config = click.option("--config", type=click.Path(dir_okay=False, path_type=Path), help="TOML file with settings.")
db = click.option("--db", metavar="URL", help="Database: a path, sqlite:///…, postgresql://…, mysql://….")
blocks = click.option(
    "--blocks", metavar="MODULE", multiple=True, help="Python module whose blocks, functions and triggers to use."
)

reports = click.option(
    "--reports", metavar="MODULE", multiple=True, help="Python module whose @renderer functions --format may name."
)


def rendered(name: str, of: Literal["diagnosis", "recording"], modules: Iterable[str]) -> Renderer:
    """What ``--format`` names. Raises `NotFoundError` with near names, before anything is measured."""
    from flatwater.memory.renderer import renderers

    return renderers(of, modules).require(name)


def settings(path: Path | None, given: dict[str, tuple[str, Any]]) -> Settings:
    """Settings of file, environment and flags; ``given`` maps a flag to its key and value (None: not given)."""
    flags = [Flag(name, key, value) for name, (key, value) in given.items() if value not in (None, ())]
    return load(path, flags=flags).settings


def inputs(pairs: Iterable[str], whole: str | None) -> dict[str, Any]:
    """Inputs from ``--input key=value`` (JSON where it parses, else text) and ``--inputs '{…}'``."""
    found = _object(whole) if whole else {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not key or not equals:
            raise click.UsageError(f"--input {pair!r} must be key=value")
        found[key] = _value(value)
    return found


def _value(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text


def _object(text: str) -> dict[str, Any]:
    try:
        found = json.loads(text)
    except ValueError as error:
        raise click.UsageError(f"--inputs is not JSON: {error}") from None
    if not isinstance(found, dict):
        raise click.UsageError("--inputs must be a JSON object")
    return found


def document(path: Path) -> bytes:
    """The bytes of a definition's file; ``-`` is standard input."""
    if str(path) == "-":
        return sys.stdin.buffer.read()
    try:
        return path.read_bytes()
    except OSError as error:
        raise click.UsageError(f"{path} cannot be read: {error.strerror}") from None
