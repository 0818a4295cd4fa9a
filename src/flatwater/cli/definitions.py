"""``flatwater definitions``: what a server can run."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from flatwater.cli import option
from flatwater.cli.client import Client, options, show, table
from flatwater.errors import DefinitionError


@click.group("definitions")
def command() -> None:
    """List, check and save definitions."""


@command.command("list")
@click.option("--limit", default=100, show_default=True, help="How many at most.")
@options
def list_(url: str, token: str | None, limit: int) -> None:
    """List the definitions of a server."""
    found = Client(url, token).pages("/api/definitions", limit)
    table(found, {"id": "id", "label": "label", "version": "version", "enabled": "enabled", "remark": "remark"})


@command.command("show")
@click.argument("definition")
@options
def show_(url: str, token: str | None, definition: str) -> None:
    """Print one definition as JSON."""
    show(Client(url, token).call("GET", f"/api/definitions/{definition}"))


@command.command("save")
@click.argument("files", nargs=-1, required=True, type=click.Path(path_type=Path))
@options
def save(url: str, token: str | None, files: tuple[Path, ...]) -> None:
    """Save definitions in a server; a new content makes a new version."""
    client = Client(url, token)
    for file in files:
        saved = client.call("POST", "/api/definitions", option.document(file))
        click.echo(f"{saved['id']}\tversion {saved['version']}")


@command.command("check")
@click.argument("files", nargs=-1, required=True, type=click.Path(path_type=Path))
@option.blocks
def check(files: tuple[Path, ...], blocks: tuple[str, ...]) -> None:
    """Check definitions without a server: every problem with its path. Sub-tasks are not looked up."""
    from flatwater.engine.blocks import load
    from flatwater.engine.definition import parse

    registry = load(blocks)
    wrong = False
    for file in files:
        try:
            flow = parse(option.document(file), registry)
        except DefinitionError as error:
            wrong = True
            for problem in error.problems:
                click.echo(f"{file}: {problem}", err=True)
            continue
        for warning in flow.warnings:
            click.echo(f"{file}: warning: {warning}", err=True)
        click.echo(f"{file}: {flow.label}, {len(flow.nodes)} blocks, {flow.depth} deep")
    sys.exit(wrong)


@command.command("delete")
@click.argument("definition")
@options
def delete(url: str, token: str | None, definition: str) -> None:
    """Delete a definition that no run needs."""
    Client(url, token).call("DELETE", f"/api/definitions/{definition}")


@command.command("blocks")
@click.option("--json", "as_json", is_flag=True, help="The whole palette with JSON schemas.")
@option.blocks
def palette(as_json: bool, blocks: tuple[str, ...]) -> None:
    """List the block types that definitions may use.

    Functions of expressions and kinds of triggers that packages and modules have added are listed below them.
    """
    from flatwater.engine.blocks import load

    registry = load(blocks)
    if as_json:
        show(registry.palette())
        return
    added = [
        {"type": f"{name}()", "family": "function", "description": each.description}
        for name, each in sorted(registry.functions.added.items())
    ] + [
        {"type": name, "family": "trigger", "description": each.description}
        for name, each in sorted(registry.triggers.added.items())
    ]
    columns = {"type": "type", "family": "family", "recovery": "recovery", "description": "description"}
    table(iter([*registry.palette(), *added]), columns)


@command.command("functions")
@click.option("--json", "as_json", is_flag=True, help="With the number of arguments.")
@option.blocks
def functions(as_json: bool, blocks: tuple[str, ...]) -> None:
    """List the functions that expressions may call."""
    from flatwater.engine.blocks import load

    found = load(blocks).function_palette()
    columns = {"name": "name", "description": "description", "example": "example", "origin": "from"}
    show(found) if as_json else table(iter(found), columns)


@command.command("triggers")
@click.option("--json", "as_json", is_flag=True, help="As JSON.")
@option.blocks
def triggers(as_json: bool, blocks: tuple[str, ...]) -> None:
    """List the kinds of triggers that may start runs."""
    from flatwater.engine.blocks import load

    found = load(blocks).trigger_palette()
    columns = {"name": "name", "how": "how", "description": "description", "origin": "from"}
    show(found) if as_json else table(iter(found), columns)
