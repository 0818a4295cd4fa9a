"""``flatwater sites``: the storage sites of a server."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from flatwater.cli import option
from flatwater.cli.client import Client, options, show, table


@click.group("sites")
def command() -> None:
    """List, import and change sites."""


def owner(site: dict[str, Any]) -> str:
    locked = site.get("locked_by")
    return f"{locked['run']}" if locked else site.get("locked_text") or ""


@command.command("list")
@click.option("--group", help="Only this group.")
@options
def list_(url: str, token: str | None, group: str | None) -> None:
    """List sites."""
    found = Client(url, token).call("GET", "/api/sites", group=group)["items"]
    table(iter(found), {"id": "id", "group": "group", "filled": "filled", "content": "content", "locked by": owner})


@command.command("import")
@click.argument("file", type=click.Path(path_type=Path))
@options
def import_(url: str, token: str | None, file: Path) -> None:
    """Insert or change the sites of a JSON list: [{"id": "A-1", "group": "A", …}]."""
    try:
        listed = json.loads(option.document(file))
    except ValueError as error:
        raise click.UsageError(f"{file} is not JSON: {error}") from None
    Client(url, token).call("PUT", "/api/sites", listed)
    click.echo(f"{len(listed)} sites")


@command.command("set")
@click.argument("site")
@click.argument("changes", nargs=-1, required=True, metavar="FIELD=VALUE...")
@options
def set_(url: str, token: str | None, site: str, changes: tuple[str, ...]) -> None:
    """Change a site: filled, content, enabled, tags, attrs, or locked=false."""
    show(Client(url, token).call("PATCH", f"/api/sites/{site}", option.inputs(changes, None)))


@command.command("changes")
@click.option("--limit", default=50, show_default=True, help="How many at most.")
@options
def changes(url: str, token: str | None, limit: int) -> None:
    """List the latest changes of sites."""
    for change in Client(url, token).pages("/api/sites/changes", limit):
        click.echo(json.dumps(change, ensure_ascii=False))
