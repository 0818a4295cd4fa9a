"""``flatwater diagnose``: from a process to an answer."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click

from flatwater.cli import option
from flatwater.errors import FlatwaterError, NotFoundError

if TYPE_CHECKING:
    from flatwater.memory.diagnosis import Diagnosis, Progress

GROWING = 3


@click.command("diagnose")
@click.argument("process")
@click.option("--for", "seconds", type=option.SECONDS, default="10s", show_default=True, help="How long to watch.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON (docs/reference/diagnosis.md).")
@click.option("--format", "form", default="text", show_default=True, help="text, json, or a package's own.")
@option.reports
@click.option("--html", type=click.Path(dir_okay=False, path_type=Path), help="Also write a page with the path drawn.")
@click.option("--svg", type=click.Path(dir_okay=False, path_type=Path), help="Also write the retaining paths as SVG.")
@click.option("--dot", type=click.Path(dir_okay=False, path_type=Path), help="… as a graph for Graphviz.")
@click.option("--values", is_flag=True, help="Show dict keys in paths: data of the process.")
@click.option("--trim", is_flag=True, help="Let malloc give back what is free, and say how much it was.")
@click.option("--no-trace", is_flag=True, help="Do not look for the lines that make and insert the items.")
def command(
    process: str,
    seconds: float,
    as_json: bool,
    form: str,
    reports: tuple[str, ...],
    html: Path | None,
    svg: Path | None,
    dot: Path | None,
    values: bool,
    trim: bool,
    no_trace: bool,
) -> None:
    """Say whether PROCESS leaks memory, what grows, who holds it, which line makes it, and what to do.

    PROCESS is a pid, or a part of one process's command line. Nothing has to be prepared in it. Exit status: 0 nothing
    grows, 3 memory grows or is held without need, 1 no diagnosis.
    """
    from flatwater.memory import report_json, report_text
    from flatwater.memory.heap_model import HeapError

    if seconds < 2:
        raise click.BadParameter("at least 2s: slopes need their time", param_hint="--for")
    chosen = option.rendered("json" if as_json else form, "diagnosis", reports)
    pid = find(process)
    try:
        with _progress() as progress:
            found = _diagnose(pid, seconds, not no_trace, trim, values, progress)
    except HeapError as error:
        raise FlatwaterError(str(error)) from error
    if html is not None:
        from flatwater.memory import report_html

        html.write_text(report_html.write(found), "utf-8")
    _draw(found, svg, dot)
    if chosen.render is not None:
        click.echo(chosen(report_json.document(found)), nl=False)
    elif chosen.name == "json":
        click.echo(report_json.encode(found), nl=False)
    else:
        click.echo(report_text.write(found), nl=False)
    sys.exit(0 if found.verdict.kind == "plateau" else GROWING)


def _draw(found: Diagnosis, svg: Path | None, dot: Path | None) -> None:
    """Write the drawings that were asked for; without a suspect there is nothing to draw, and no file."""
    from flatwater.memory import path_drawing

    suspects = [one.suspect for one in found.findings]
    for path, draw in ((svg, path_drawing.svg), (dot, path_drawing.dot)):
        if path is not None and (text := draw(suspects)):
            path.write_text(text, "utf-8")
        elif path is not None:
            click.echo(f"{path} is not written: no suspect has a retaining path", err=True)


def _diagnose(pid: int, seconds: float, trace: bool, trim: bool, values: bool, progress: Progress) -> Diagnosis:
    from flatwater.memory.attach import attach
    from flatwater.memory.diagnosis import diagnose

    progress("attaching", 0.0)
    with attach(pid) as target:
        return diagnose(target, seconds, trace=trace, trim=trim, values=values, progress=progress)


def find(process: str) -> int:
    """The pid; a text must be part of exactly one process's command line. Raises NotFoundError otherwise."""
    if process.isdigit():
        return int(process)
    from flatwater.memory.scan import Scanner
    from flatwater.memory.selector import parse

    meant, _ = parse(process, children=False).choose(Scanner().look(time.monotonic()))
    if len(meant) == 1:
        return meant.pop()
    if not meant:
        raise NotFoundError(f"no process is named {process!r} or has it in its command line", hint="give a pid")
    shown = ", ".join(str(pid) for pid in sorted(meant)[:10])
    raise NotFoundError(f"{len(meant)} processes match {process!r}", hint=f"choose a pid: {shown}")


@contextmanager
def _progress() -> Iterator[Progress]:
    """A bar on a terminal's standard error; silence elsewhere."""
    if not sys.stderr.isatty():
        yield lambda phase, part: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, TextColumn, TimeElapsedColumn
    from rich.progress import Progress as Bar

    with Bar(
        TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn(), console=Console(stderr=True), transient=True
    ) as bar:
        task = bar.add_task("attaching", total=1.0)
        yield lambda phase, part: bar.update(task, description=phase, completed=part)
