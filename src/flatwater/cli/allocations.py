"""``flatwater allocations``: which lines allocated what is alive, from a sample."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from typing import Any

import click

from flatwater.cli import option
from flatwater.cli.diagnose import find
from flatwater.errors import FlatwaterError


@click.command("allocations")
@click.argument("process")
@click.option("--for", "seconds", type=option.SECONDS, default="10s", show_default=True, help="How long to sample.")
@click.option("--interval", type=option.BYTES, default="64KiB", show_default=True, help="Note one allocation each …")
@click.option("--top", default=20, show_default=True, help="How many lines at most.")
@click.option("--json", "as_json", is_flag=True, help="With stacks, for programs.")
def command(process: str, seconds: float, interval: float, top: int, as_json: bool) -> None:
    """Say which lines of PROCESS allocated the Python memory that is alive, estimated from a sample.

    A process that samples always (FLATWATER_SAMPLE_BYTES, server.sample_allocations_bytes) answers at once, for all the
    time since its start. In another the sampler runs for as long as --for says, and what was there before is not seen.
    """
    from flatwater.memory.attach import attach
    from flatwater.memory.heap_model import HeapError

    try:
        with attach(find(process)) as target:
            found = target.ask("allocations", max_lines=top)
            if found is None:
                target.ask("sample_allocations", interval_bytes=int(interval))
                time.sleep(seconds)
                found = target.ask("allocations", max_lines=top)
    except HeapError as error:
        raise FlatwaterError(str(error)) from error
    click.echo(json.dumps(found, indent=2) if as_json else "\n".join(lines(found)))


def lines(found: dict[str, Any]) -> Iterator[str]:
    """The answer as text."""
    from flatwater.memory.report_text import place
    from flatwater.quantity import duration, size

    yield (
        f"{size(found['bytes'])} alive of what was allocated in {duration(found['seconds'])}, estimated from"
        f" {found['alive']:,} samples, one each {size(found['interval_bytes'])}"
    )
    if not found["complete"]:
        yield "incomplete: something else has replaced Python's allocators meanwhile; start the sampler again"
    for row in found["lines"]:
        where = "(stacks that found no room)" if row["place"] is None else place(row["place"])
        share = row["bytes"] / found["bytes"] if found["bytes"] else 0.0
        age = duration(row["oldest_s"])
        yield f"{size(row['bytes']):>12}  {share:>4.0%}  {row['count']:>12,}  up to {age}  {where}"
