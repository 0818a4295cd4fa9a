"""The server's log: that of :mod:`flatwater.listener.log`, with the run that each message is about."""

from __future__ import annotations

import logging
from typing import TextIO

from flatwater.engine.current import RUN_ID
from flatwater.listener.log import JsonFormatter, install
from flatwater.listener.log import handler as plain_handler
from flatwater.settings.model import LogSettings

__all__ = ["JsonFormatter", "RunFilter", "configure", "handler"]


class RunFilter(logging.Filter):
    """Adds ``run_id`` to what is logged while a run is advanced, by its blocks and what they call; drops nothing."""

    def filter(self, record: logging.LogRecord) -> bool:
        if not hasattr(record, "run_id") and (run_id := RUN_ID.get()):
            record.run_id = run_id
        return True


def handler(settings: LogSettings, stream: TextIO | None = None) -> logging.Handler:
    """What writes the log, to standard error unless told otherwise."""
    found = plain_handler(settings.format, stream)
    found.addFilter(RunFilter())  # of the handler: a logger's own filters do not see what comes from loggers below it
    return found


def configure(settings: LogSettings) -> None:
    """Send the process's log to standard error. For the process that is the server, not for library use."""
    install(handler(settings), settings.level)
