"""``flatwater config``: the settings."""

from __future__ import annotations

from pathlib import Path

import click

from flatwater.cli import option
from flatwater.settings import check as check_settings


@click.group("config")
def command() -> None:
    """Check the settings."""


@command.command("check")
@option.config
def check(config: Path | None) -> None:
    """Print the settings in force, each with its origin; every problem with its place."""
    click.echo(check_settings(config))
