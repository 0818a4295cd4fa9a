"""``flatwater report``: what a recording says."""

from __future__ import annotations

import json
from pathlib import Path

import click

from flatwater.cli import option


@click.command("report")
@click.argument("file", type=click.Path(path_type=Path), default=Path("recording.sqlite"))
@click.option("--json", "as_json", is_flag=True, help="Everything, for programs.")
@click.option("--format", "form", default="text", show_default=True, help="text, json, or a package's own.")
@option.reports
@click.option(
    "--figure",
    type=click.Choice(["rss", "pss", "uss"]),
    default="rss",
    show_default=True,
    help="Take the trend of this.",
)
def command(file: Path, as_json: bool, form: str, reports: tuple[str, ...], figure: str) -> None:
    """Say of each process in a recording whether it grows, how fast, and when it reaches its limit.

    The first line is the verdict. The slope is that of the last part of the recording, after the warm-up, with its
    95 % confidence interval; a recording that is being written can be read, too.
    """
    from flatwater.memory import summary
    from flatwater.memory.recording_read import Reader

    chosen = option.rendered("json" if as_json else form, "recording", reports)
    with Reader(file) as reader:
        report = summary.summarize(reader, figure=figure)
    if chosen.render is not None:
        click.echo(chosen(summary.document(report)), nl=False)
    elif chosen.name == "json":
        click.echo(json.dumps(summary.document(report), ensure_ascii=False, indent=2))
    else:
        click.echo(summary.text(report), nl=False)
