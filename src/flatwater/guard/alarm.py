"""What an operator is told at once: a kill, a quarantine, a worker that ends again and again. With the evidence."""

from __future__ import annotations

import time
from collections.abc import Callable

from flatwater.guard.channel import Killed
from flatwater.guard.hint import release_command
from flatwater.memory.alert import AlertEvent
from flatwater.quantity import size

LOOP = 3  # short lives in a row are a crash loop


class GuardAlert(AlertEvent, frozen=True, kw_only=True):
    """``rule`` is worker killed, task killed, quarantine or crash loop; ``value`` and ``threshold`` are bytes.

    ``task`` and ``id`` name the task, ``holders`` what held the memory; "" where that is not known.
    """

    task: str = ""
    id: str = ""
    reason: str = ""
    holders: str = ""


Alarm = Callable[[GuardAlert], object]


def silent(_: GuardAlert) -> None:
    """Nobody is told."""


def worker_killed(label: str, pid: int, detail: str, level: int, limit: int | None) -> GuardAlert:
    """A worker was killed, by the guard or the kernel."""
    message = f"{label}: pid {pid} {detail}, at {size(level)}"
    return _alert("worker killed", label, pid, message, value=level, threshold=limit, reason=detail)


def task_killed(label: str, pid: int, note: Killed) -> GuardAlert:
    """A task died with its process."""
    return _alert(
        "task killed", label, pid, f"{label}: {note}", value=note.peak, threshold=note.limit, task=note.name,
        id=note.id, reason=note.reason, holders=note.holders,
    )  # fmt: skip


def task_quarantined(label: str, pid: int, note: Killed, record: str) -> GuardAlert:
    """A task is refused from now on."""
    message = f"{label}: {note.name} is quarantined; to release it: {release_command(note.name, record)}"
    return _alert(
        "quarantine", label, pid, message, value=note.peak, threshold=note.limit, task=note.name, id=note.id,
        reason=note.reason, holders=note.holders,
    )  # fmt: skip


def crash_loop(label: str, pid: int, detail: str, wait_s: float) -> GuardAlert:
    """A worker has ended again and again soon after its start."""
    message = f"{label}: ended {LOOP} times in a row soon after its start ({detail}); the next one in {wait_s:.0f} s"
    return _alert("crash loop", label, pid, message, reason=detail)


def _alert(
    rule: str, label: str, pid: int, message: str, *, value: int | None = None, threshold: int | None = None,
    task: str = "", id: str = "", reason: str = "", holders: str = "",
) -> GuardAlert:  # fmt: skip
    return GuardAlert(
        rule=rule, kind="raised", source=str(pid), label=label, at=time.monotonic(), value=value,
        threshold=float(threshold or 0), message=message, task=task, id=id, reason=reason, holders=holders,
    )  # fmt: skip
