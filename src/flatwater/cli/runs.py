"""``flatwater runs``: what a server runs, and how to steer it."""

from __future__ import annotations

import time
from typing import Any

import click

from flatwater.cli import option
from flatwater.cli.client import Client, options, show, table

ENDED = ("SUCCEEDED", "FAILED", "CANCELED")
LOOK_S = 0.5


@click.group("runs")
def command() -> None:
    """List and steer the runs of a server."""


def age(run: dict[str, Any]) -> str:
    return f"{time.time() - run['created_at']:.0f} s"


def about(run: dict[str, Any]) -> str:
    """Why the run stands where it stands."""
    waits = run.get("wait") or ()
    return run.get("error") or "; ".join(wait["reason"] for wait in waits) or run.get("state_message") or ""


@command.command("list")
@click.option("--state", multiple=True, help="Only these states; may be given several times.")
@click.option("--definition", help="Only runs of this definition.")
@click.option("--limit", default=50, show_default=True, help="How many at most.")
@options
def list_(url: str, token: str | None, state: tuple[str, ...], definition: str | None, limit: int) -> None:
    """List runs, newest first."""
    found = Client(url, token).pages("/api/runs", limit, state=",".join(state).upper(), definition=definition)
    table(found, {"id": "id", "definition": "label", "state": "state", "age": age, "about": about})


@command.command("show")
@click.argument("run_id")
@options
def show_(url: str, token: str | None, run_id: str) -> None:
    """Print one run as JSON."""
    show(Client(url, token).call("GET", f"/api/runs/{run_id}"))


@command.command("log")
@click.argument("run_id")
@click.option("--limit", default=200, show_default=True, help="How many lines at most.")
@options
def log(url: str, token: str | None, run_id: str, limit: int) -> None:
    """Print what the blocks of a run have logged."""
    found = Client(url, token).pages(f"/api/runs/{run_id}/log", limit)
    table(found, {"at": lambda line: f"{line['at']:.3f}", "level": "level", "block": "path", "message": "message"})


@command.command("submit")
@click.argument("definition")
@click.option(
    "--input", "pairs", multiple=True, metavar="KEY=VALUE", help="One input; JSON where it parses, else text."
)
@click.option("--inputs", "whole", metavar="JSON", help="All inputs as one JSON object.")
@click.option("--priority", default=0, help="Higher is sooner.")
@click.option("--delay", "delay_s", type=float, help="Seconds to wait before it may start.")
@click.option("--key", "idempotency_key", help="The same key again names the same run.")
@click.option("--wait", is_flag=True, help="Wait for its end; exit status as of `flatwater run`.")
@options
def submit(
    url: str, token: str | None, definition: str, pairs: tuple[str, ...], whole: str | None, wait: bool, **wish: Any
) -> None:
    """Start a run of DEFINITION and print its id."""
    client = Client(url, token)
    body = {key: value for key, value in wish.items() if value is not None}
    run_id = client.call(
        "POST", "/api/runs", {"definition": definition, "inputs": option.inputs(pairs, whole), **body}
    )["id"]
    click.echo(run_id)
    if wait:
        while (run := client.call("GET", f"/api/runs/{run_id}"))["state"] not in ENDED:
            time.sleep(LOOK_S)
        show(run.get("outputs"))
        raise click.exceptions.Exit({"SUCCEEDED": 0, "FAILED": 1}.get(run["state"], 3))


def steering(verb: str, text: str) -> None:
    """A command that sends ``verb`` to each run named."""

    @command.command(verb, help=text)
    @click.argument("run_ids", nargs=-1, required=True)
    @options
    def steer(url: str, token: str | None, run_ids: tuple[str, ...]) -> None:
        client = Client(url, token)
        for run_id in run_ids:
            run = client.call("POST", f"/api/runs/{run_id}/{verb}")
            click.echo(f"{run_id}\t{run['state']}")


steering("cancel", "End runs as CANCELED; their sites and robots are released.")
steering("pause", "Let executing blocks end, then hold the runs.")
steering("resume", "Go on with paused runs; for NEEDS_OPERATOR: the call did happen.")
steering("retry", "Go on at the block that failed; for NEEDS_OPERATOR: the call did not happen.")
