"""One JSON object a line, with what was given beside the message."""

from __future__ import annotations

import logging
import sys

import msgspec

from flatwater.server.log import JsonFormatter


def line(level: int, message: str, *args: object, error: bool = False, **extra: object) -> dict[str, object]:
    logger = logging.getLogger("flatwater.test")
    try:
        if error:
            raise ValueError("why")
        info = None
    except ValueError:
        info = sys.exc_info()
    record = logger.makeRecord(logger.name, level, __file__, 1, message, args, info, extra=extra or None)
    text = JsonFormatter().format(record)
    assert "\n" not in text
    found: dict[str, object] = msgspec.json.decode(text)
    return found


def test_lines() -> None:
    plain = line(logging.INFO, "run %s ended", "7", run_id="7", seconds=1.5)
    assert {name: plain[name] for name in ("level", "logger", "message", "run_id", "seconds")} == {
        "level": "info",
        "logger": "flatwater.test",
        "message": "run 7 ended",
        "run_id": "7",
        "seconds": 1.5,
    }
    assert "error" not in plain
    failed = line(logging.ERROR, "broken\nline", error=True, thing=object())
    assert "ValueError: why" in str(failed["error"])
    assert str(failed["thing"]).startswith("<object")
