"""``flatwater gateway``: the HTTP gateway."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from flatwater.gateway import Config, load

if TYPE_CHECKING:
    from flatwater.bounded import Ledger
    from flatwater.gateway import Gateway
    from flatwater.memory.alarm import Alarm, Figures

COUNTS = ("overload",)
"""Figures of its own that rules of [alert] may name, beside those of every process."""

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
@click.option("-v", "--verbose", is_flag=True, help="Log also what is not a warning, whatever [log] says.")
def command(config: Path, only_check: bool, host: str | None, port: int | None, verbose: bool) -> None:
    """Run the gateway until a signal ends it.

    SIGHUP, or a change of the file, loads it again without dropping a request; a file with mistakes is refused and the
    one in force stays. SIGTERM finishes what is under way; a second one cuts that short.
    """
    found = load(config)
    check_alert(found)
    if only_check:
        click.echo(summary(config, found))
        return
    from msgspec.structs import replace

    from flatwater.gateway.serve import serve
    from flatwater.listener.log import handler, install
    from flatwater.memory import control_group

    if host is not None or port is not None:
        listen = replace(found.listen, host=host or found.listen.host, port=found.listen.port if port is None else port)
        found = replace(found, listen=listen)
    level = "info" if verbose and found.log.level != "debug" else found.log.level
    install(handler(found.log.format), level)
    serve(
        config,
        found,
        read_memory=control_group.own_use,
        alarm=lambda gateway, ledger: alarm(found, gateway, ledger),
        on_ready=_announce,
    )


def check_alert(config: Config) -> None:
    """Raises RuleError or SinkError for what [alert] says wrongly."""
    from flatwater.memory.alert import parse
    from flatwater.memory.alert_delivery import sink

    for rule in config.alert.rules:
        parse(rule, counts=COUNTS)
    for place in config.alert.to:
        sink(place)


def alarm(config: Config, gateway: Gateway, ledger: Ledger) -> Alarm:
    """What watches the process: its memory, and how overloaded the gateway is."""
    from flatwater.memory import procfs
    from flatwater.memory.alarm import Alarm

    def read() -> tuple[Figures, int | None]:
        memory = procfs.memory(shares=False)
        group = procfs.cgroup()
        figures: Figures = {
            "rss": memory.rss,
            "vms": memory.vms,
            "threads": memory.threads,
            "fds": sum(1 for _ in Path("/proc/self/fd").iterdir()),
            "overload": None if gateway.overload is None else int(gateway.overload.level),
        }
        return figures, group.limit if group is not None else None

    rule = config.alert
    return Alarm(
        rule.rules,
        rule.to,
        read,
        rule.every_s,
        source="gateway",
        label="flatwater gateway",
        ledger=ledger,
        counts=COUNTS,
    )


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
