"""Traces of a short window: where containers change (:class:`Lines`) and where objects are made (:class:`Allocations`).

Standard library and the C extension ``_watch``; runs in the process that is examined, and leaves it as it was.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import os
import sys
import tracemalloc
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any

from flatwater.memory.heap_model import HeapError, HeapMissing
from flatwater.memory.site import Place

MISSING = (
    "the C extension flatwater.memory._watch was not built (no C compiler when Flatwater was installed): no insertion"
    " lines; install a compiler and the Python headers (Debian: gcc python3-dev), then reinstall Flatwater"
)
_NAME = "flatwater"
_TOOLS = 4, 3, 5, 2, 1, 0  # of sys.monitoring: those without a customary owner first


@functools.cache
def extension() -> ModuleType:
    """The C part. Raises HeapMissing where it was not built."""
    try:
        return importlib.import_module("flatwater.memory._watch")
    except ImportError as error:
        raise HeapMissing(MISSING) from error


@contextlib.contextmanager
def at_fork(function: Callable[[], object]) -> Iterator[None]:
    """Call the function in every child that is forked meanwhile: a child inherits traces, and must not keep them."""
    watch = extension()
    if watch.in_fork(function):
        os.register_at_fork(after_in_child=watch.after_fork)
    try:
        yield
    finally:
        watch.in_fork(None)


class Lines:
    """Books every change of the containers' lengths to the line that was running, while it is :meth:`on`.

    The containers are held until :meth:`close`. Other tracers (debuggers, coverage) go on undisturbed: from Python 3.12
    on this is one more tool of ``sys.monitoring``; before, threads that have a trace function are left alone, and
    ``left`` counts them. :meth:`open` raises HeapError when another window is open, or every tool id is taken.
    """

    def __init__(self) -> None:
        self._watch = extension()
        self._tool = -1
        self._opened = False
        self.left = 0

    def open(self, containers: list[Any], frames: int) -> None:
        """Begin a window; stacks have at most ``frames`` places."""
        self._opened = True
        try:
            self._watch.open(containers, frames)
        except RuntimeError as error:
            self._opened = False  # it is another's
            raise HeapError("another watch is under way in this process: wait for its end") from error
        if sys.version_info >= (3, 12):
            self._tool = _claim(self._watch)

    def on(self) -> None:
        """Begin to book."""
        self.left = max(self.left, self._watch.arm())
        if sys.version_info >= (3, 12):
            events = sys.monitoring.events
            sys.monitoring.set_events(self._tool, _events(events))

    def off(self) -> None:
        """Book no more until :meth:`on`."""
        if sys.version_info >= (3, 12):
            sys.monitoring.set_events(self._tool, 0)
        self._watch.disarm()

    def rises(self) -> list[int]:
        """How often each container became longer so far."""
        return list(self._watch.rises())

    def results(self) -> tuple[int, int, list[tuple[int, int, int, int]], list[tuple[Any, ...]]]:
        """As ``_watch.results`` tells."""
        return self._watch.results()  # type: ignore[no-any-return]

    def close(self) -> None:
        """Take everything back and let go of the containers. Closing twice is allowed."""
        if sys.version_info >= (3, 12) and self._tool >= 0:
            _release(self._tool)
            self._tool = -1
        if self._opened:
            self._watch.close()
            self._opened = False


class Allocations:
    """Tracks where objects are made, by ``tracemalloc``; one that is already tracing is used as it is, and left on."""

    def __init__(self, frames: int) -> None:
        self._frames = frames
        self._ours = False

    # A child may be forked between any two steps: what is ours is noted before it begins, and until it has ended.

    def on(self) -> None:
        """Begin."""
        if not self._ours and not tracemalloc.is_tracing():
            self._ours = True
            extension().trace_allocations(self._frames)

    def off(self) -> None:
        """End it, if we began it. Ending twice is allowed."""
        if self._ours:
            tracemalloc.stop()
            self._ours = False


def made_at(item: object) -> tuple[tuple[str, int], ...]:
    """Files and lines of the stack that made the object, innermost first; empty when that was not traced."""
    return extension().made_at(item) or ()


if sys.version_info >= (3, 12):

    def _events(events: Any) -> int:
        begin = events.PY_START | events.PY_RESUME | events.PY_THROW
        end = events.PY_RETURN | events.PY_YIELD | events.PY_UNWIND
        return int(events.LINE | begin | end)

    def _claim(watch: ModuleType) -> int:
        monitoring = sys.monitoring
        tool = next((tool for tool in _TOOLS if monitoring.get_tool(tool) is None), -1)
        if tool < 0:
            raise HeapError("every tool id of sys.monitoring is taken by tracers, debuggers or profilers: end one")
        monitoring.use_tool_id(tool, _NAME)
        for event, function in _callbacks(monitoring.events, watch):
            monitoring.register_callback(tool, event, function)
        return tool

    def _release(tool: int) -> None:
        monitoring = sys.monitoring
        if monitoring.get_tool(tool) != _NAME:
            return
        monitoring.set_events(tool, 0)
        for event, _ in _callbacks(monitoring.events, None):
            monitoring.register_callback(tool, event, None)
        monitoring.free_tool_id(tool)

    def _callbacks(events: Any, watch: ModuleType | None) -> list[tuple[int, Any]]:
        names = {
            "LINE": "on_line",
            "PY_START": "on_start",
            "PY_RESUME": "on_start",
            "PY_THROW": "on_throw",
            "PY_RETURN": "on_end",
            "PY_YIELD": "on_end",
            "PY_UNWIND": "on_unwind",
        }
        return [(getattr(events, event), getattr(watch, name, None)) for event, name in names.items()]


__all__ = ["Allocations", "Lines", "Place", "at_fork", "extension", "made_at"]
