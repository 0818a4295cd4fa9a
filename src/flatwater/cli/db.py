"""``flatwater db``: the database, without a server."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

import click

from flatwater.cli import option
from flatwater.cli.client import show, table

OLD_S = 300
"""A connection that has done nothing for so long has probably been forgotten by its program."""


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


@command.command("connections")
@click.argument("url")
@click.option("--older", "older_s", type=option.SECONDS, default="0s", help="Only those unchanged for so long (300s).")
@click.option("--json", "as_json", is_flag=True, help="A JSON list.")
def connections(url: str, older_s: float, as_json: bool) -> None:
    """Count and list the connections that any database has.

    URL is a path, sqlite:///…, postgresql://… or mysql://…; of a SQLite file, the processes that
    have it open are listed.
    """
    import msgspec

    from flatwater.store.connection import connections as listed

    found = [msgspec.to_builtins(row) for row in listed(url, older_than_s=older_s)]
    if as_json:
        show(found)
        return
    table(iter(found), {"who": "who", "seconds": lambda row: f"{row['seconds']:.0f}", "what": "what"})
    old = sum(row["seconds"] > OLD_S for row in found)
    click.echo(f"{len(found)} connections, {old} of them unchanged for more than {OLD_S} s", err=True)


async def _check(url: str) -> list[str]:
    from flatwater.store import Store

    async with Store.open(url) as store:
        return await store.check()
