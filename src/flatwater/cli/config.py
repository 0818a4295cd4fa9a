"""``flatwater config``: the settings."""

from __future__ import annotations

from pathlib import Path

import click

from flatwater.cli import option
from flatwater.settings import check as check_settings
from flatwater.settings import load


@click.group("config")
def command() -> None:
    """Check the settings."""


@command.command("check")
@option.config
@click.option(
    "--gateway", type=click.Path(dir_okay=False, path_type=Path), help="Check this file of the gateway instead."
)
def check(config: Path | None, gateway: Path | None) -> None:
    """Print the settings in force, each with its origin; every problem with its place."""
    if gateway is None:
        click.echo(check_settings(config))
        from flatwater.listener.certificate import Certificate

        server = load(config).settings.server
        Certificate.given(server.tls_certificate, server.tls_key, server.tls_min_version)  # raises what is wrong
        return
    from flatwater.cli.gateway import check_alert, summary
    from flatwater.gateway import load as load_gateway

    found = load_gateway(gateway)
    check_alert(found)
    click.echo(summary(gateway, found))
