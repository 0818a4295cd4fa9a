"""The command line: one file per command family, imported when it is used."""

from __future__ import annotations

import sys
from importlib import import_module

import click

from flatwater import __version__
from flatwater.errors import FlatwaterError

FAMILIES = {
    "serve": "Run the server.",
    "gateway": "Run the HTTP gateway.",
    "run": "Run one definition to its end.",
    "runs": "List and steer the runs of a server.",
    "definitions": "List, check and save definitions.",
    "sites": "List, import and change sites.",
    "db": "Upgrade and check a database.",
    "guard": "Supervise any worker by memory; report which task grows.",
    "config": "Check the settings.",
    "top": "Watch processes, what grows in them, and who holds it.",
    "diagnose": "Say whether a process leaks memory, what grows, who holds it, and what to do.",
    "allocations": "Say which lines allocated what is alive, from a sample.",
    "record": "Record the memory of processes over time.",
    "plot": "Draw a recording as SVG, PNG, HTML or in the terminal.",
    "report": "Say which recorded processes grow, and when they reach their limit.",
    "exec": "Run a program that can be examined.",
}


class Families(click.Group):
    """Commands by name; their modules are imported only when asked for, so that each starts fast."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(FAMILIES)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in FAMILIES:
            return None
        command: click.Command = import_module(f"flatwater.cli.{cmd_name}").command
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(FAMILIES.items()))


@click.command(cls=Families, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="flatwater")
def flatwater() -> None:
    """Durable block flows in flat memory."""


def main() -> None:
    """The ``flatwater`` command. Exit status 2 for wrong usage, 1 for anything else that went wrong."""
    try:
        # click gives the status of an Exit back instead of raising it.
        status = flatwater(standalone_mode=False)
        sys.exit(status if isinstance(status, int) else 0)
    except click.Abort:
        sys.exit(130)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except FlatwaterError as error:
        click.echo(f"flatwater: {error}", err=True)
        sys.exit(1)
    except BrokenPipeError:
        sys.exit(0)
