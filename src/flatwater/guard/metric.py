"""The supervisor's figures as Prometheus text (exposition format 0.0.4), on a loopback port. Living processes only."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Self

from flatwater.guard.flight import started
from flatwater.guard.supervisor import Supervisor

Sample = tuple[dict[str, object], float]


def text(supervisor: Supervisor, rows: Iterable[dict[str, Any]]) -> str:
    """All figures; ``rows`` are those of the record, of which dead processes' are left out."""
    living = [row for row in rows if started(row["pid"]) == row["start"]]
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
    ]
    for name, kind, field, about in (
        ("task_calls_total", "counter", "count", "Calls of a task."),
        ("task_failures_total", "counter", "failed", "Calls that failed."),
        ("task_seconds_total", "counter", "total_s", "Time in a task."),
        ("task_peak_bytes", "gauge", "peak", "Highest level of the process in a task."),
        ("task_growth_bytes", "gauge", "per_call", "Growth per call."),
    ):
        samples = [({"task": row["name"], "pid": row["pid"]}, row[field]) for row in living if row[field] is not None]
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
    """Serves ``GET /metrics`` on 127.0.0.1 while entered; ``port`` 0 takes a free one. A ``with``."""

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

        self._server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
        self.port = int(self._server.server_address[1])
        self._thread = threading.Thread(target=self._server.serve_forever, name="flatwater-guard-metrics", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
