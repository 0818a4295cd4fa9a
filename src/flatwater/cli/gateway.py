"""``flatwater gateway``: the HTTP gateway."""

from __future__ import annotations

import logging
from pathlib import Path

import click

from flatwater.gateway import Config, load

_FILE = click.Path(dir_okay=False, path_type=Path)


@click.command("gateway")
@click.option(
    "-c", "--config", type=_FILE, default=Path("gateway.toml"), show_default=True, help="TOML file of the gateway."
)
@click.option(
    "--check", "only_check", is_flag=True, help="Say what the file means, or what is wrong with it, and stop."
)
@click.option("--host", help="Address to listen on, instead of the file's.")
@click.option("--port", type=click.IntRange(0, 65535), help="TCP port, instead of the file's; 0 takes a free one.")
@click.option("-v", "--verbose", is_flag=True, help="Log also what is not a warning.")
def command(config: Path, only_check: bool, host: str | None, port: int | None, verbose: bool) -> None:
    """Run the gateway until a signal ends it.

    SIGHUP, or a change of the file, loads it again without dropping a request; a file with mistakes is refused and the
    one in force stays. SIGTERM finishes what is under way; a second one cuts that short.
    """
    found = load(config)
    if only_check:
        click.echo(summary(config, found))
        return
    from msgspec.structs import replace

    from flatwater.gateway.serve import serve
    from flatwater.memory import control_group

    if host is not None or port is not None:
        listen = replace(found.listen, host=host or found.listen.host, port=found.listen.port if port is None else port)
        found = replace(found, listen=listen)
    logging.basicConfig(
        level=logging.INFO if verbose else logging.WARNING, format="%(asctime)s %(levelname)s %(name)s: %(message)s"
    )
    serve(config, found, read_memory=control_group.own_use, on_ready=_announce)


def summary(path: Path, config: Config) -> str:
    """What a file says, for people."""
    lines = [f"{path} is right. It listens on {config.listen.host}:{config.listen.port}."]
    for name, service in config.services.items():
        hosts = ", ".join(service.hosts) or "any host"
        endpoints = ", ".join(endpoint.url for endpoint in service.endpoints)
        cached = ", cached" if service.cache.enabled else ""
        lines.append(f"  {name}: {hosts}{service.path or '/'} → {endpoints} ({service.balance}{cached})")
    return "\n".join(lines)


def _announce(address: str) -> None:
    click.secho(f"The gateway is ready: {address}", err=True, bold=True)
