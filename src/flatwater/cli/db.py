"""``flatwater db``: the database, without a server."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

import click

from flatwater.cli import option


@click.group("db")
def command() -> None:
    """Upgrade and check a database."""


@command.command("upgrade")
@option.config
@option.db
def upgrade(config: Path | None, db: str | None) -> None:
    """Bring the tables to this version. Stop the servers that use the database before."""
    from flatwater.store import migrate

    url = option.settings(config, {"--db": ("store.url", db)}).store.url
    migrate.upgrade(url)
    click.echo("the database is at this version")


@command.command("check")
@option.config
@option.db
def check(config: Path | None, db: str | None) -> None:
    """Read the whole database and say what is wrong with it; exit status 1 if anything is."""
    url = option.settings(config, {"--db": ("store.url", db)}).store.url
    from flatwater.store import migrate

    problems = migrate.check(url) or asyncio.run(_check(url))
    for problem in problems:
        click.echo(problem, err=True)
    if not problems:
        click.echo("the database is sound")
    sys.exit(bool(problems))


async def _check(url: str) -> list[str]:
    from flatwater.store import Store

    async with Store.open(url) as store:
        return await store.check()
