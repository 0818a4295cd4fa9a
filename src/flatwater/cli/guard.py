"""``flatwater guard``: supervise a worker command by memory; report; release quarantined tasks."""

from __future__ import annotations

import logging
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from flatwater.cli import option

if TYPE_CHECKING:
    from flatwater.guard.alarm import GuardAlert
    from flatwater.guard.record import Record

_RECORD = "flatwater-guard.db"
_LEAST = 1 << 20  # bytes: a smaller limit is one whose unit was forgotten
_NO_STOPS = ("SIGKILL", "SIGSTOP", "SIGCONT", "SIGCHLD")


class _Guard(click.Group):
    """What is no command of its own is the worker's command line."""

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and args[0] in self.commands and args[0] != "run":
            return super().resolve_command(ctx, args)
        return "run", _run, args


@click.group(
    "guard",
    cls=_Guard,
    subcommand_metavar="-- COMMAND… | report | release",
    invoke_without_command=True,
    no_args_is_help=True,
)
@click.option("--soft", type=option.BYTES, help="At this level a worker is asked to stop and replaced (600MiB).")
@click.option("--hard", type=option.BYTES, help="At this level, for two seconds, a worker is killed (900MiB).")
@click.option("--grace", type=option.SECONDS, default=600.0, help="How long a warm stop may take (10m).")
@click.option("--overlap", is_flag=True, help="Start the replacement before the old worker stops, if there is room.")
@click.option("-n", "--workers", type=click.IntRange(1, 256), default=1, help="How many to keep running (1).")
@click.option(
    "--quarantine",
    type=click.IntRange(0),
    default=3,
    help="Refuse a task after so many kills for memory (3); 0: never.",
)
@click.option("--quarantine-within", type=option.SECONDS, default=86_400.0, help="How long a kill counts (1d).")
@click.option("--stop-signal", help="The worker's warm stop: TERM, INT, …; else told from the command line.")
@click.option(
    "--record", type=click.Path(dir_okay=False, path_type=Path, resolve_path=True), default=_RECORD,
    help=f"File ({_RECORD}).",
)  # fmt: skip
@click.option("--alert-url", metavar="URL", help="POST JSON there at a kill, a quarantine, a crash loop.")
@click.option("--metrics-port", type=click.IntRange(0, 65535), help="Serve Prometheus metrics on 127.0.0.1.")
@click.pass_context
def command(ctx: click.Context, /, **options: Any) -> None:
    """Supervise a worker command by memory: flatwater guard --soft 600MiB -- celery -A app worker.

    Limits that are not given follow from the control group's: 80 and 92 percent of it.
    """
    ctx.obj = options
    if ctx.invoked_subcommand is None:
        raise click.UsageError("give the worker's command after --")


@command.command(
    "run", hidden=True, context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False}
)
@click.argument("words", nargs=-1, type=click.UNPROCESSED)
@click.pass_context
def _run(ctx: click.Context, words: tuple[str, ...]) -> None:
    options, outer = ctx.obj, ctx.parent  # errors tell the usage of the command as it is typed
    for name in ("soft", "hard"):
        if (level := options[name]) is not None and level < _LEAST:
            raise click.UsageError(f"--{name} is {level} bytes: no worker is so small; write 600MiB, 2GiB", outer)
    from flatwater.guard.metric import Metrics, text
    from flatwater.guard.policy import Limits
    from flatwater.guard.record import Record
    from flatwater.guard.supervisor import Supervisor

    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    limits = Limits(soft=options["soft"], hard=options["hard"], grace_s=options["grace"])
    warm, port = _signal(options["stop_signal"], outer), options["metrics_port"]
    with Record(options["record"]) as record, ExitStack() as stack:
        metrics = None if port is None else Metrics(lambda: text(guard, options["record"]), port=port)
        alarm = _alarm(options["alert_url"], stack)
        guard = Supervisor(
            words, record=record, limits=limits, count=options["workers"], overlap=options["overlap"],
            quarantine_after=options["quarantine"], quarantine_s=options["quarantine_within"], warm=warm, alarm=alarm,
        )  # fmt: skip
        if metrics is not None:
            stack.enter_context(metrics)
            click.echo(f"metrics: http://127.0.0.1:{metrics.port}/metrics", err=True)
        status = guard.run()
    sys.exit(status)


def _alarm(url: str | None, stack: ExitStack) -> Callable[[GuardAlert], object]:
    """A thread of its own delivers, of at most 100 that wait: a place that hangs holds up nothing but its alerts."""
    from flatwater.guard.alarm import silent
    from flatwater.memory.alert_delivery import Delivery, sink

    if url is None:
        return silent
    place = sink(f"webhook:{url}", timeout_s=5.0)
    return stack.enter_context(Delivery([place], close_s=5.0, name="guard alerts")).send


def _signal(name: str | None, ctx: click.Context | None) -> signal.Signals | None:
    if name is None:
        return None
    full = f"SIG{name.upper().removeprefix('SIG')}"
    if full not in signal.Signals.__members__:
        raise click.UsageError(f"--stop-signal {name!r} is no signal's name: TERM, INT, QUIT, …", ctx)
    if full in _NO_STOPS:
        raise click.UsageError(f"--stop-signal {name}: no program can end its work at that", ctx)
    return signal.Signals[full]


@command.command("report")
@click.argument("file", type=click.Path(dir_okay=False, path_type=Path), required=False)
@click.option("--json", "as_json", is_flag=True, help="The figures as JSON.")
@click.pass_obj
def report(options: dict[str, Any], file: Path | None, as_json: bool) -> None:
    """Which task grows, per call; what recycling gave back; what was killed, and what held its memory.

    FILE is the record, as in: flatwater guard --record FILE report.
    """
    import msgspec

    from flatwater.guard.report import summary
    from flatwater.guard.report_text import text

    with _written(file or options["record"]) as record:
        click.echo(msgspec.json.encode(summary(record)).decode() if as_json else text(record))


@command.command("release")
@click.argument("task")
@click.option("--record", type=click.Path(dir_okay=False, path_type=Path), hidden=True)  # as it once was given
@click.pass_obj
def release(options: dict[str, Any], task: str, record: Path | None) -> None:
    """Let a quarantined task run again: flatwater guard --record FILE release TASK.

    A running guard tells its workers within a second.
    """
    with _written(record or options["record"]) as found:
        found.release(task)
    click.echo(f"{task} may run again")


@contextmanager
def _written(file: Path) -> Iterator[Record]:
    """The record that a guard has written."""
    import sqlite3

    from flatwater.guard.record import Record, RecordError

    try:
        with Record(file, create=False) as record:
            yield record
    except sqlite3.Error as error:
        raise RecordError(str(error), where=str(file)) from None
