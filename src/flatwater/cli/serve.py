"""``flatwater serve``: the server, with the demo plant on demand."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import Any

import click

from flatwater.cli import option
from flatwater.errors import SettingError
from flatwater.settings import Settings


@click.command("serve")
@option.config
@option.db
@click.option("--host", help="Address to listen on (127.0.0.1).")
@click.option("--port", type=int, help="TCP port (8350); 0 takes a free one.")
@click.option("--demo/--no-demo", default=None, help='Run the demo plant "Small Hall" in the server.')
@click.option("--speed", type=float, help="How many times faster than life the demo's clock goes (1 to 100).")
@option.blocks
def command(
    config: Path | None,
    db: str | None,
    host: str | None,
    port: int | None,
    demo: bool | None,
    speed: float | None,
    blocks: tuple[str, ...],
) -> None:
    """Run the server until a signal ends it.

    Settings come from --config (or flatwater.toml), then FLATWATER_… variables, then these flags.
    """
    found = option.settings(
        config,
        {
            "--db": ("store.url", db),
            "--host": ("server.host", host),
            "--port": ("server.port", port),
            "--demo": ("demo.enabled", demo),
            "--speed": ("demo.speed", speed),
            "--blocks": ("engine.blocks", ",".join(blocks) or None),
        },
    )
    from flatwater.server.log import configure
    from flatwater.server.serve import serve

    configure(found.log)
    serve(found, on_ready=_announce, on_instruments=_instruments, **parts(found))


def parts(settings: Settings) -> dict[str, Any]:
    """The robots' driver, and the demo plant if it is wanted, as `serve` takes them."""
    if settings.demo.enabled:
        from flatwater.demo import attach

        return attach(settings.demo)
    name = settings.robots.driver
    if name == "none":
        return {}
    if name == "simulated":
        from flatwater.demo import fleet

        return {"driver": lambda store: fleet(store, speed=settings.demo.speed, seed=settings.demo.seed)}
    return {"driver": _factory(name)}


def _factory(name: str) -> Any:
    """The callable behind ``module:factory``."""
    module, _, attribute = name.partition(":")
    try:
        return getattr(import_module(module), attribute)
    except (ImportError, AttributeError, ValueError) as error:
        hint = "give simulated, none, or module:factory as in `from module import factory`"
        raise SettingError(f"no driver can be made from {name!r}: {error}", where="robots.driver", hint=hint) from error


def _announce(address: str) -> None:
    click.secho(f"Flatwater is ready: {address}", err=True, bold=True)


def _instruments(address: str) -> None:
    click.secho(f"What holds its memory: {address}", err=True)
