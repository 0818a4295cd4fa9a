"""``@pytest.mark.watch_loop``: asyncio's debug mode, and a failure for whatever blocks the loop.

Two detectors: calls that block by their nature, made by Flatwater on the loop's thread, whatever time they took; and
callbacks that held the loop longer than ``max_block_s`` (default 1 s: the machines of CI are noisy).
"""

from __future__ import annotations

import asyncio
import logging
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

import flatwater

SOURCES = str(Path(flatwater.__file__).parent)
TESTS = str(Path(__file__).parent)
BLOCKING = frozenset(
    {"time.sleep", "sqlite3.connect", "subprocess.Popen", "os.system", "socket.getaddrinfo", "socket.gethostbyname"}
)

_watchers: dict[int, list[str]] = {}  # by thread: what blocked it


def _note_blocking(event: str, arguments: tuple[Any, ...]) -> None:
    if event in BLOCKING and (found := _watchers.get(threading.get_ident())) is not None and arguments != (0,):
        caller = _nearest_caller()
        if caller.startswith(SOURCES):
            found.append(f"{event}{arguments!r} from {caller}")


sys.addaudithook(_note_blocking)


def _audited_sleep(seconds: float, _sleep: Callable[[float], None] = time.sleep) -> None:
    sys.audit("time.sleep", seconds)
    _sleep(seconds)


def _nearest_caller() -> str:
    """The innermost line of Flatwater or of a test on the stack."""
    frame: FrameType | None = sys._getframe()
    while frame is not None:
        name = frame.f_code.co_filename
        if name.startswith((SOURCES, TESTS)) and name != __file__:
            return f"{name}:{frame.f_lineno}"
        frame = frame.f_back
    return ""


class SlowCallbacks(logging.Handler):
    """Collects what asyncio's debug mode says about callbacks that took long."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.found: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        if "took" in (message := record.getMessage()):
            self.found.append(message)


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "watch_loop(max_block_s=1.0): asyncio's debug mode; fail when the loop blocks")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if isinstance(item, pytest.Function) and item.get_closest_marker("watch_loop"):
            item.fixturenames.insert(0, "watched_loop")


@pytest.fixture
async def watched_loop(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[list[str]]:
    """The list of what blocked the loop so far; not empty at the end of the test: it fails."""
    mark = request.node.get_closest_marker("watch_loop")
    loop = asyncio.get_running_loop()
    loop.set_debug(True)
    loop.slow_callback_duration = mark.kwargs.get("max_block_s", 1.0) if mark else 1.0
    if sys.version_info < (3, 13):  # from there on the interpreter audits it
        monkeypatch.setattr(time, "sleep", _audited_sleep)
    handler = SlowCallbacks()
    logging.getLogger("asyncio").addHandler(handler)
    blocked = _watchers[threading.get_ident()] = handler.found
    try:
        yield blocked
    finally:
        del _watchers[threading.get_ident()]
        logging.getLogger("asyncio").removeHandler(handler)
        loop.set_debug(False)
    if blocked:
        pytest.fail("the loop was blocked:\n  " + "\n  ".join(blocked), pytrace=False)
