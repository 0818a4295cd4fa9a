"""``flatwater record``: what processes use, over time, in a SQLite file."""

from __future__ import annotations

import logging
import signal
import sys
import threading
import time
from pathlib import Path
from typing import Any

import click

from flatwater.cli import option
from flatwater.errors import FlatwaterError, InputError, NotFoundError
from flatwater.memory.alert import Observation
from flatwater.quantity import duration, measure, size


@click.command("record")
@click.argument("selector", nargs=-1, required=True)
@click.option(
    "-o",
    "-d",
    "output",
    type=click.Path(dir_okay=False, path_type=Path),
    default=Path("recording.sqlite"),
    show_default=True,
    help="The recording; an existing one is continued.",
)
@click.option(
    "-i", "interval_s", type=option.SECONDS, default="1s", show_default=True, help="Between looks, from 50ms."
)
@click.option(
    "--shares",
    "shares_s",
    type=option.SECONDS,
    default="10s",
    show_default=True,
    help="Between looks at PSS, USS, swap.",
)
@click.option("--for", "for_s", type=option.SECONDS, help="Stop after this time.")
@click.option("--children/--no-children", default=True, help="The descendants of what is selected, too (the default).")
@click.option("--max-processes", default=1000, show_default=True, help="Followed at once.")
@click.option("--keep", "keep_s", type=option.SECONDS, default="400d", show_default=True, help="Older samples go.")
@click.option("--alert", "rules", multiple=True, metavar="RULE", help="For example 'rss > 600MiB', 'oom_kill'.")
@click.option(
    "--on-alert", "sinks", multiple=True, metavar="SINK", help="log (the default), exec:COMMAND, webhook:URL."
)
@click.option("--alerts", "alert_file", type=click.Path(path_type=Path), help="TOML file with [[alert]] tables.")
@click.option("-q", "--quiet", is_flag=True, help="Print problems and alerts only.")
def command(
    selector: tuple[str, ...],
    output: Path,
    interval_s: float,
    shares_s: float,
    for_s: float | None,
    children: bool,
    max_processes: int,
    keep_s: float,
    rules: tuple[str, ...],
    sinks: tuple[str, ...],
    alert_file: Path | None,
    quiet: bool,
) -> None:
    """Record the memory of processes until Ctrl-C, --for, or the end of the pids selected.

    SELECTOR is a pid (or several: 12,15), a name or a part of the command line, name:NAME, command:TEXT,
    regex:PATTERN, or procpath's JSONPath: "$..children[?('celery' in @.cmdline)]". Several mean any of them.
    Processes that match are followed from when they appear to their end.
    """
    from flatwater.memory import scan
    from flatwater.memory import selector as selection
    from flatwater.memory.recorder import MIN_INTERVAL_S, Recorder
    from flatwater.memory.recording import Recording
    from flatwater.memory.recording_thin import Retention

    if interval_s < MIN_INTERVAL_S:
        raise click.UsageError(f"-i must be at least {MIN_INTERVAL_S:g} s")
    logging.basicConfig(format="%(asctime)s %(message)s", datefmt="%H:%M:%S", level=logging.INFO)
    chosen = selection.parse(selector, children=children)
    if chosen.pids and not any(scan.read(pid) for pid in chosen.pids):
        raise NotFoundError(f"no process has the pid {chosen.text}")
    watch = Watch(rules, sinks, alert_file)
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    with watch, Recording(output, retention=Retention(keep_s=keep_s)) as recording:
        limits = {"interval_s": interval_s, "shares_s": shares_s, "max_processes": max_processes}
        with Recorder(recording, chosen, **limits) as recorder:  # type: ignore[arg-type]
            progress = Progress(recorder, watch, quiet)
            recorder.run(stop, for_s=for_s, on_tick=progress.tick)
            progress.end(output)
        lost = recording.close()
    if lost is not None:
        raise FlatwaterError(f"the last rows were lost: {lost}", where=str(output))


class Watch:
    """The alert rules given on the command line and in a file, each with where its alerts go."""

    def __init__(self, rules: tuple[str, ...], sinks: tuple[str, ...], file: Path | None) -> None:
        self._groups: list[tuple[Any, Any]] = []
        self._sources: set[str] = set()
        self._given = [({"rule": rule}, sinks) for rule in rules]
        if file is not None:
            self._given += [(table, sinks) for table in _tables(file)]
        for table, fallback in self._given:
            self._add(table, fallback)

    def __enter__(self) -> Watch:
        return self

    def __exit__(self, *_: object) -> None:
        for _, delivery in self._groups:
            delivery.close()

    def tick(self, recorder: Any, observations: list[Observation]) -> None:
        sources = {observation.source for observation in observations if "rss" in observation.values}
        gone, self._sources = self._sources - sources, sources
        for alerts, delivery in self._groups:
            for source in gone:
                alerts.forget(source)
            for event in alerts.observe(observations):
                process = int(event.source) if event.source.isdigit() else None
                recorder.log("alert", f"{event.kind}: {event.message}", process)
                delivery.send(event)

    def active(self) -> int:
        return sum(len(alerts.active()) for alerts, _ in self._groups)

    def _add(self, table: dict[str, Any], fallback: tuple[str, ...]) -> None:
        from flatwater.memory.alert import Alerts, parse
        from flatwater.memory.alert_delivery import Delivery, sink

        unknown = table.keys() - {"rule", "on", "cooldown", "hysteresis"}
        if unknown or not isinstance(table.get("rule"), str):
            raise InputError(f"an alert has rule, on, cooldown, hysteresis; not {', '.join(sorted(unknown)) or 'none'}")
        cooldown_s = float(measure(table.get("cooldown", 300.0), "seconds"))
        rule = parse(table["rule"], hysteresis=float(table.get("hysteresis", 0.05)), cooldown_s=cooldown_s)
        places = table.get("on", fallback) or ("log",)
        chosen = [sink(text) for text in ((places,) if isinstance(places, str) else places)]
        self._groups.append((Alerts([rule]), Delivery(chosen)))


def _tables(file: Path) -> list[dict[str, Any]]:
    import tomllib

    try:
        found = tomllib.loads(file.read_text("utf-8")).get("alert", [])
    except (OSError, ValueError) as error:
        raise InputError(str(error), where=str(file)) from None
    if not isinstance(found, list) or not all(isinstance(table, dict) for table in found):
        raise InputError("alerts are [[alert]] tables", where=str(file))
    return found


class Progress:
    """What the terminal shows meanwhile: one line that changes, and problems."""

    def __init__(self, recorder: Any, watch: Watch, quiet: bool) -> None:
        self._recorder = recorder
        self._watch = watch
        self._quiet = quiet
        self._live = sys.stderr.isatty() and not quiet
        self._begin = self._shown = time.monotonic()
        self._problem = ""
        self._waiting = False

    def tick(self, observations: list[Observation]) -> None:
        self._watch.tick(self._recorder, observations)
        if self._recorder.problem != self._problem:
            self._problem = self._recorder.problem
            state = f"cannot be written, rows wait: {self._problem}" if self._problem else "is written again"
            click.echo(f"the recording {state}", err=True)
        processes = [one for one in observations if "rss" in one.values]
        if not processes and not self._waiting and not self._quiet and not self._recorder.statistics().seen:
            self._waiting = True
            click.echo("nothing matches yet; waiting", err=True)
        now = time.monotonic()
        if self._live and now - self._shown >= 1:
            self._shown = now
            rss = size(sum(one.values["rss"] for one in processes))
            alerts = f" · {count} alerts" if (count := self._watch.active()) else ""
            click.echo(
                f"\r\033[K{len(processes)} processes · {rss} · {duration(now - self._begin)}{alerts}",
                err=True,
                nl=False,
            )

    def end(self, output: Path) -> None:
        found = self._recorder.statistics()
        if self._live:
            click.echo("\r\033[K", err=True, nl=False)
        if found.seen == 0:
            click.echo("no process matched", err=True)
        if found.refused:
            click.echo(f"{found.refused} times a process was above --max-processes and not followed", err=True)
        if not self._quiet:
            click.echo(
                f"{output}: {found.samples} samples of {found.seen} process{'' if found.seen == 1 else 'es'}", err=True
            )
