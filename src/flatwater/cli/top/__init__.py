"""``flatwater top``: processes, what grows in one of them, and who holds it, live."""

from __future__ import annotations

import sys

import click

from flatwater.cli import option


@click.command("top")
@click.argument("selector", nargs=-1, required=True)
@click.option("--no-children", is_flag=True, help="Leave out the descendants.")
@click.option(
    "-i", "--interval", "interval_s", type=option.SECONDS, default="1s", show_default=True, help="Between looks."
)
def command(selector: tuple[str, ...], no_children: bool, interval_s: float) -> None:
    """Watch the processes that SELECTOR means: a pid, a name, a part of the command line, or a JSONPath.

    Enter on a process shows its types and containers with their histories (it is attached to for that long); Enter on a
    container shows who holds it and what it holds. d diagnoses, g collects garbage, t trims, q leaves.
    """
    from flatwater.memory.selector import parse

    chosen = parse(selector, children=not no_children)
    if not sys.stdout.isatty():
        raise click.UsageError("top draws on a terminal; for files and pipes use `flatwater record` and `report`")
    try:
        from flatwater.cli.top.app import Top
    except ImportError as error:
        raise click.UsageError(f"top needs textual ({error}): pip install 'flatwater[live]'") from None
    Top(chosen, interval_s=interval_s).run()
