"""What to type so that a quarantined task may run again: one form, wherever it is told."""

from __future__ import annotations

import shlex
from contextlib import suppress
from pathlib import Path

import msgspec

from flatwater.guard.presence import Presence


def release_command(task: str, record: str) -> str:
    """A line for a shell, of any folder when ``record`` is an absolute path; "" where it is not known."""
    words = ["flatwater", "guard", *(["--record", record] if record else []), "release"]
    return shlex.join([*words, *(["--"] if task.startswith("-") else []), task])


def release_by_worker(task: str, folder: Path | None) -> str:
    """As a worker tells it, which knows its guard by the guard's folder alone."""
    record = ""
    if folder is not None:
        with suppress(OSError, msgspec.MsgspecError):
            record = msgspec.json.decode((folder / "guard.json").read_bytes(), type=Presence).record
    return release_command(task, record)
