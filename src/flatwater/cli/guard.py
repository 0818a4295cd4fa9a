"""``flatwater guard``: supervise a worker command by memory; report; release quarantined tasks."""

from __future__ import annotations

import logging
import signal
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import click

from flatwater.cli import option

_RECORD = "flatwater-guard.db"


class _Guard(click.Group):
    """What is no command of its own is the worker's command line."""

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and args[0] in self.commands and args[0] != "run":
            return super().resolve_command(ctx, args)
        return "run", _run, args


@click.group("guard", cls=_Guard, subcommand_metavar="-- COMMAND… | report | release")
@click.option("--soft", type=option.BYTES, help="At this level a worker is asked to stop and replaced (600MiB).")
@click.option("--hard", type=option.BYTES, help="At this level, for two seconds, a worker is killed (900MiB).")
@click.option("--grace", type=option.SECONDS, default=600.0, help="How long a warm stop may take (10m).")
@click.option("--overlap", is_flag=True, help="Start the replacement before the old worker stops, if there is room.")
@click.option("-n", "--workers", type=click.IntRange(1, 256), default=1, help="How many to keep running (1).")
@click.option("--quarantine", type=click.IntRange(1), default=3, help="Refuse a task after it was killed so often (3).")
@click.option("--stop-signal", help="The worker's warm stop: TERM, INT, …; else told from the command line.")
@click.option("--record", type=click.Path(dir_okay=False, path_type=Path), default=_RECORD, help=f"File ({_RECORD}).")
@click.option("--metrics-port", type=click.IntRange(0, 65535), help="Serve Prometheus metrics on 127.0.0.1.")
@click.pass_context
def command(ctx: click.Context, /, **options: Any) -> None:
    """Supervise a worker command by memory: flatwater guard --soft 600MiB -- celery -A app worker.

    Limits that are not given follow from the control group's: 80 and 92 percent of it.
    """
    ctx.obj = options


@command.command(
    "run", hidden=True, context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False}
)
@click.argument("words", nargs=-1, type=click.UNPROCESSED)
@click.pass_obj
def _run(options: dict[str, Any], words: tuple[str, ...]) -> None:
    if not words:
        raise click.UsageError("give the worker's command after --")
    from flatwater.guard.metric import Metrics, text
    from flatwater.guard.policy import Limits
    from flatwater.guard.record import Record
    from flatwater.guard.supervisor import Supervisor

    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    limits = Limits(soft=options["soft"], hard=options["hard"], grace_s=options["grace"])
    with Record(options["record"]) as record, ExitStack() as stack:
        guard = Supervisor(
            words, record=record, limits=limits, count=options["workers"], overlap=options["overlap"],
            quarantine_after=options["quarantine"], warm=_signal(options["stop_signal"]),
        )  # fmt: skip
        if options["metrics_port"] is not None:

            def write() -> str:
                with Record(options["record"]) as mine:  # a connection belongs to its thread
                    return text(guard, mine.tasks())

            metrics = stack.enter_context(Metrics(write, port=options["metrics_port"]))
            click.echo(f"metrics: http://127.0.0.1:{metrics.port}/metrics", err=True)
        status = guard.run()
    sys.exit(status)


def _signal(name: str | None) -> signal.Signals | None:
    if name is None:
        return None
    full = f"SIG{name.upper().removeprefix('SIG')}"
    if full not in signal.Signals.__members__:
        raise click.UsageError(f"--stop-signal {name!r} is no signal")
    return signal.Signals[full]


@command.command("report")
@click.argument("file", type=click.Path(dir_okay=False, path_type=Path), default=_RECORD)
@click.option("--json", "as_json", is_flag=True, help="The figures as JSON.")
def report(file: Path, as_json: bool) -> None:
    """Which task grows, per call; what recycling gave back; what was killed, and what held its memory."""
    import msgspec

    from flatwater.guard.record import Record
    from flatwater.guard.report import summary, text

    with Record(file, create=False) as record:
        click.echo(msgspec.json.encode(summary(record)).decode() if as_json else text(record))


@command.command("release")
@click.argument("task")
@click.option("--record", type=click.Path(dir_okay=False, path_type=Path), default=_RECORD, help=f"File ({_RECORD}).")
def release(task: str, record: Path) -> None:
    """Let a quarantined task run again; a running guard tells its workers within a second."""
    from flatwater.guard.record import Record

    with Record(record, create=False) as found:
        found.release(task)
    click.echo(f"{task} may run again")
