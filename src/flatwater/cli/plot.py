"""``flatwater plot``: a recording as a picture, or in the terminal."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import click

from flatwater.cli import option

FIGURES = ["rss", "pss", "uss", "swap", "vms", "cpu", "threads", "fds"]
FIGURES += ["blocks", "arenas", "malloc_used", "malloc_free", "tasks", "pool_checked_out", "ledger"]  # agents tell


@click.command("plot")
@click.argument("file", type=click.Path(path_type=Path), default=Path("recording.sqlite"))
@click.option(
    "-o",
    "output",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Picture to write, .svg, .png or .html; without it the chart is drawn in the terminal.",
)
@click.option("--figure", type=click.Choice(FIGURES), default="rss", show_default=True, help="What to draw.")
@click.option("--last", "since_s", type=option.SECONDS, help="Only the end of the recording: 10m, 2h.")
@click.option("--named", default=8, show_default=True, help="Lines with a colour and a name; the others are grey.")
def command(file: Path, output: Path | None, figure: str, since_s: float | None, named: int) -> None:
    """Draw a recording: one line per process, the largest named, with trend, restarts, ends and the memory limit.

    The figures from blocks on are those that agents told; ledger has a line for each bounded holder.
    """
    from flatwater.memory import plot
    from flatwater.memory.recording_read import Reader

    with Reader(file) as reader:
        drawn = plot.build(reader, figure=figure, since_s=since_s, max_named=max(0, named))
    if output is not None:
        plot.write(drawn, output)
        click.echo(f"{output}: {len(drawn.series)} {'holders' if figure == 'ledger' else 'processes'}", err=True)
        return
    from flatwater.memory import chart_text

    width, height = shutil.get_terminal_size((100, 30))
    colour = sys.stdout.isatty()
    click.echo(chart_text.render(drawn, width=width, height=max(8, min(height - 8, 24)), colour=colour), nl=False)
