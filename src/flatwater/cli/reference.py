"""The page ``docs/reference/cli.md``, written from the commands' help: ``python -m flatwater.cli.reference``."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import click

from flatwater.cli import flatwater

WIDTH: Final = 100
_HEAD: Final = """# Command line

Written from the commands (`python -m flatwater.cli.reference` prints it; a test compares).

Exit status: 0 when it went well, 2 for wrong usage, 1 for anything else that went wrong; `flatwater run` and
`flatwater runs submit --wait` give 1 for a run that failed and 3 for one that was canceled. Errors and progress go to
standard error, results to standard output.

The commands that talk to a server (`runs`, `sites`, `definitions` but for `check` and `blocks`) take its address from
`--url` or `FLATWATER_URL`, and its token from `--token` or `FLATWATER_SERVER_TOKEN`. The others need no server.
"""


def reference() -> str:
    """The text of the page."""
    root = click.Context(flatwater, info_name="flatwater", **flatwater.context_settings)
    return "\n".join([_HEAD, *_sections(flatwater, root)])


def _sections(command: click.Command, context: click.Context) -> Iterator[str]:
    context.terminal_width = context.max_content_width = WIDTH
    level = "#" * min(3, 1 + len(context.command_path.split()))
    yield f"{level} {context.command_path}\n\n```text\n{command.get_help(context).strip()}\n```\n"
    if isinstance(command, click.Group):
        for name in command.list_commands(context):
            child = command.get_command(context, name)
            if child is not None and not child.hidden:
                yield from _sections(child, click.Context(child, info_name=name, parent=context))


if __name__ == "__main__":
    click.echo(reference(), nl=False)
