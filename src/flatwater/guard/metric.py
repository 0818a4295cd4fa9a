"""The supervisor's figures as Prometheus text (exposition format 0.0.4), on a loopback port. Living processes only."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from flatwater.errors import FlatwaterError, SettingError
from flatwater.guard.flight import started
from flatwater.guard.record import Process, Record
from flatwater.guard.supervisor import Supervisor

Sample = tuple[dict[str, object], float]


def text(supervisor: Supervisor, file: Path) -> str:
    """All figures. Without those of the record while it cannot be read."""
    try:
        with Record(file, create=False) as record:  # a connection belongs to its thread
            processes = [one for one in record.processes() if started(one.pid) == one.start]
            rows = [row for one in processes for row in record.tasks_of(one)]
    except (FlatwaterError, sqlite3.Error):
        processes, rows, readable = [], [], False
    else:
        readable = True
    return _text(supervisor, processes, rows, readable)


def _text(supervisor: Supervisor, processes: list[Process], rows: list[dict[str, Any]], readable: bool) -> str:
    workers = supervisor.instances()
    limits = (("soft", supervisor.limits.soft), ("hard", supervisor.limits.hard))
    families: list[tuple[str, str, str, list[Sample]]] = [
        ("starts_total", "counter", "Workers started.", [({}, supervisor.starts)]),
        ("ends_total", "counter", "Workers ended.", [({"reason": key}, n) for key, n in supervisor.ends.items()]),
        ("limit_bytes", "gauge", "Limits of one worker.", [({"limit": key}, n) for key, n in limits if n is not None]),
        ("worker_bytes", "gauge", "PSS of a worker's tree.", [({"pid": one.pid}, one.level) for one in workers]),
        (
            "worker_leaving",
            "gauge",
            "1 from the warm stop on.",
            [({"pid": one.pid}, bool(one.leaving)) for one in workers],
        ),
        ("record_readable", "gauge", "0 while what follows is missing.", [({}, readable)]),
    ]
    for name, kind, field, about in (
        ("process_bytes", "gauge", "level", "Level of a process that runs tasks, as it last told."),
        ("process_start_bytes", "gauge", "base", "Its level at its start."),
        ("trims_total", "counter", "trims", "Times that it gave back what it could."),
        ("trimmed_bytes_total", "counter", "trimmed", "What that gave back."),
        ("trim_seconds_total", "counter", "trim_s", "What that took."),
    ):
        samples = [({"worker": one.worker, "pid": one.pid}, getattr(one, field)) for one in processes]
        families.append((name, kind, about, samples))
    for name, kind, field, about in (
        ("task_calls_total", "counter", "count", "Calls of a task."),
        ("task_failures_total", "counter", "failed", "Calls that failed."),
        ("task_seconds_total", "counter", "total_s", "Time in a task."),
        ("task_peak_bytes", "gauge", "peak", "Highest level of the process in a task."),
        ("task_growth_bytes", "gauge", "per_call", "Growth per call."),
    ):
        samples = [({"task": row["name"], "pid": row["pid"]}, row[field]) for row in rows if row[field] is not None]
        families.append((name, kind, about, samples))
    return "".join(_family(*family) for family in families)


def _family(name: str, kind: str, about: str, samples: list[Sample]) -> str:
    full = f"flatwater_guard_{name}"
    lines = [f"# HELP {full} {about}", f"# TYPE {full} {kind}"]
    for labels, value in samples:
        inside = ",".join(f'{key}="{_escaped(str(label))}"' for key, label in labels.items())
        lines.append(f"{full}{{{inside}}} {float(value)!r}" if inside else f"{full} {float(value)!r}")
    return "\n".join(lines) + "\n"


def _escaped(label: str) -> str:
    return label.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


class Metrics:
    """Serves ``GET /metrics`` on 127.0.0.1 while entered; ``port`` 0 takes a free one. A ``with``.

    Raises SettingError for a port that cannot be taken.
    """

    def __init__(self, write: Callable[[], str], *, port: int = 0) -> None:
        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                found = self.path == "/metrics"
                data = write().encode() if found else b""
                self.send_response(200 if found else 404)
                self.send_header("Content-Type", "text/plain; version=0.0.4; charset=utf-8")
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, format: str, *arguments: object) -> None:
                """Not a line per scrape."""

        try:
            self._server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
        except OSError as error:
            hint = "give another one, or 0 for a free one"
            raise SettingError(f"{error.strerror}", where=f"--metrics-port {port}", hint=hint) from None
        self.port = int(self._server.server_address[1])
        self._thread = threading.Thread(target=self._server.serve_forever, name="flatwater-guard-metrics", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
