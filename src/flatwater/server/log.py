"""The server's log: one JSON object a line on standard error, or plain text for eyes."""

from __future__ import annotations

import logging
import sys

import msgspec

from flatwater.settings.model import LogSettings

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


def configure(settings: LogSettings) -> None:
    """Send the process's log to standard error. For the process that is the server, not for library use."""
    handler = logging.StreamHandler(sys.stderr)
    plain = logging.Formatter("%(asctime)s %(levelname)-7s %(name)s: %(message)s")
    handler.setFormatter(JsonFormatter() if settings.format == "json" else plain)
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(settings.level.upper())
    logging.getLogger("uvicorn").handlers.clear()
