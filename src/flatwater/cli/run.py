"""``flatwater run FILE``: one definition, to its end, without a server."""

from __future__ import annotations

import asyncio
import json
import sys
import tempfile
import time
from contextlib import AsyncExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import msgspec

from flatwater.cli import option

if TYPE_CHECKING:
    from flatwater.engine import Engine
    from flatwater.engine.result import Outcome
    from flatwater.store.site import SiteSpec

STATUS = {"SUCCEEDED": 0, "FAILED": 1, "CANCELED": 3}
LOOK_S = 0.2


@click.command("run")
@click.argument("file", type=click.Path(path_type=Path))
@click.option(
    "--input", "pairs", multiple=True, metavar="KEY=VALUE", help="One input; JSON where it parses, else text."
)
@click.option("--inputs", "whole", metavar="JSON", help="All inputs as one JSON object.")
@click.option("--timeout", "timeout_s", type=float, help="Fail the run after so many seconds.")
@click.option("--quiet", is_flag=True, help="Print the outputs only.")
@click.option(
    "--sites",
    "site_file",
    type=click.Path(path_type=Path),
    help="JSON list of sites to set up before, as `sites import` takes it.",
)
@click.option("--speed", type=float, default=1.0, show_default=True, help="Speed of the simulated robots' clock.")
@option.db
@option.blocks
def command(
    file: Path,
    pairs: tuple[str, ...],
    whole: str | None,
    timeout_s: float | None,
    quiet: bool,
    site_file: Path | None,
    speed: float,
    db: str | None,
    blocks: tuple[str, ...],
) -> None:
    """Run the definition in FILE (- is standard input) and print its outputs as JSON.

    Exit status 0 when it succeeded, 1 when it failed, 3 when it was canceled. With --db it is durable:
    stopped in between, the run goes on with the next server or `flatwater run` on that database.
    Robots are simulated.
    """
    data = option.document(file)
    inputs = option.inputs(pairs, whole)
    sites = _sites(site_file)
    outcome = asyncio.run(_run(data, inputs, timeout_s, quiet, sites, speed, db, blocks))
    if outcome.error:
        click.secho(f"{outcome.state}: {outcome.error}" + (f" [{outcome.error_path}]" if outcome.error_path else ""),
                    fg="red", err=True)  # fmt: skip
    click.echo(json.dumps(outcome.outputs, ensure_ascii=False, indent=2))
    sys.exit(STATUS[outcome.state])


def _sites(file: Path | None) -> list[SiteSpec]:
    if file is None:
        return []
    from flatwater.server.api.site import site_spec
    from flatwater.server.type.site import SiteInput

    try:
        return [site_spec(each) for each in msgspec.json.decode(option.document(file), type=list[SiteInput])]
    except msgspec.MsgspecError as error:
        raise click.UsageError(f"{file}: {error}") from None


async def _run(
    data: bytes, inputs: dict[str, Any], timeout_s: float | None, quiet: bool, sites: list[SiteSpec], speed: float,
    db: str | None, blocks: tuple[str, ...],
) -> Outcome:  # fmt: skip
    from flatwater.demo import fleet
    from flatwater.engine import Engine
    from flatwater.engine.blocks import functions, load
    from flatwater.store import Store
    from flatwater.store import site as site_store

    async with AsyncExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="flatwater-run-"))
        store = await stack.enter_async_context(Store.open(db or f"sqlite:///{folder}/run.db"))
        robots = await stack.enter_async_context(fleet(store, speed=speed))
        engine = await stack.enter_async_context(
            Engine(store, driver=robots, registry=load(blocks), functions=functions(blocks))
        )
        if sites:
            engine.services.granted(await store.writer.call(site_store.save, sites, time.time()))
        saved = await engine.save(data)
        run_id = await engine.submit(saved.id, inputs, timeout_s=timeout_s)
        return await _watched(engine, run_id, saved.label, quiet)


async def _watched(engine: Engine, run_id: str, label: str, quiet: bool) -> Outcome:
    """The outcome, with a line of progress on a terminal meanwhile."""
    if quiet or not sys.stderr.isatty():
        return await engine.result(run_id)
    from rich.console import Console

    from flatwater.store import run as runs
    from flatwater.store import step as steps

    began = time.monotonic()
    with Console(stderr=True).status(label) as status:
        while True:
            try:
                return await engine.result(run_id, LOOK_S)
            except TimeoutError:
                row = await engine.store.read(runs.get, run_id)
                done = await engine.store.read(steps.load, [run_id])
                ended = sum(step.ended_at is not None for step in done[run_id])
                waits = [wait["reason"] for wait in json.loads(row.wait or "[]")]
                about = f" · waits for {waits[0]}" if waits else f" · {row.state_message}" if row.state_message else ""
                status.update(f"{label} · {row.state} · {ended} blocks · {time.monotonic() - began:.0f} s{about}")
