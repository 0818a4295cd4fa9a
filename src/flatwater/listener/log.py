"""The log of a process that serves, on standard error: one JSON object a line, or plain text for eyes."""

from __future__ import annotations

import logging
import sys
from typing import Literal, TextIO

import msgspec

Format = Literal["json", "text"]
Level = Literal["debug", "info", "warning", "error"]

# What a record has by itself; anything more came with ``extra=`` and is shown.
_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "color_message"}


class JsonFormatter(logging.Formatter):
    """``{"at", "level", "logger", "message", …extra, "error"?}``; ``at`` in seconds since the epoch."""

    def format(self, record: logging.LogRecord) -> str:
        line = {
            "at": round(record.created, 6),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **{name: value for name, value in vars(record).items() if name not in _STANDARD},
        }
        if record.exc_info:
            line["error"] = self.formatException(record.exc_info)
        return msgspec.json.encode(line, enc_hook=str).decode()


def handler(format: Format, stream: TextIO | None = None) -> logging.Handler:
    """What writes the log, to standard error unless told otherwise."""
    found = logging.StreamHandler(stream or sys.stderr)
    plain = logging.Formatter("%(asctime)s %(levelname)-7s %(name)s: %(message)s")
    found.setFormatter(JsonFormatter() if format == "json" else plain)
    return found


def install(found: logging.Handler, level: Level) -> None:
    """Make it the process's only one. For processes that are servers, not for library use."""
    root = logging.getLogger()
    root.handlers[:] = [found]
    root.setLevel(level.upper())
    logging.getLogger("uvicorn").handlers.clear()
