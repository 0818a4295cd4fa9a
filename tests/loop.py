"""Async tests of engine, server, gateway and store fail for whatever blocks the loop, or calls it from elsewhere.

Three detectors: calls that block by their nature, made by Flatwater on the loop's thread, whatever time they took;
callbacks that used more than ``max_cpu_s`` of the processor (default 1 s); and callbacks that another thread gave to
the loop, which may sleep on without having heard of them. The callbacks' own processor time is taken, without the
collector's, so that a busy machine fails no test. ``@pytest.mark.watch_loop(max_cpu_s=…)`` watches other tests, or
with another limit; ``@pytest.mark.loop_may_block("why")`` leaves a test out.

All of it costs a fiftieth. asyncio's debug mode, which says where a task was made, makes the tests of the engine
slower by half, and is asked for as always: ``PYTHONASYNCIODEBUG=1 make test``.
"""

from __future__ import annotations

import asyncio
import gc
import inspect
import ipaddress
import sys
import threading
import time
from asyncio.base_events import _format_handle  # type: ignore[attr-defined]
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

import flatwater

SOURCES = str(Path(flatwater.__file__).parent)
TESTS = str(Path(__file__).parent)
WATCHED = frozenset({"engine", "server", "gateway", "store"})
MAX_CPU_S = 1.0
BLOCKING = frozenset(
    {"time.sleep", "sqlite3.connect", "subprocess.Popen", "os.system", "socket.getaddrinfo", "socket.gethostbyname"}
)

_watchers: dict[int, list[str]] = {}  # by thread: what blocked it


def _note_blocking(event: str, arguments: tuple[Any, ...]) -> None:
    if event not in BLOCKING or arguments == (0,) or (event == "socket.getaddrinfo" and _is_address(arguments[0])):
        return
    found = _watchers.get(threading.get_ident())
    if found is not None and asyncio._get_running_loop() is not None:  # fixtures run in this thread, too
        caller = _nearest_caller()
        if caller.startswith(SOURCES):
            found.append(f"{event}{arguments!r} from {caller}")


sys.addaudithook(_note_blocking)


def _is_address(host: object) -> bool:
    """Nobody is asked for the address of an address."""
    try:
        ipaddress.ip_address(host.decode() if isinstance(host, bytes) else str(host))
    except ValueError:
        return False
    return True


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


class _Collections:
    """The processor time that collections took in this thread so far."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self._began = 0.0
        self._thread = threading.get_ident()

    def __call__(self, phase: str, _: dict[str, int]) -> None:
        if threading.get_ident() == self._thread:
            now = time.thread_time()
            self._began, self.seconds = now, self.seconds + (now - self._began if phase == "stop" else 0.0)


@contextmanager
def _timed(found: list[str], max_cpu_s: float) -> Iterator[None]:
    """Callbacks of this thread that use more of the processor are told to ``found``."""
    run: Any = asyncio.Handle._run
    mine, collections = threading.get_ident(), _Collections()

    def timed(handle: asyncio.Handle) -> None:
        if threading.get_ident() != mine:
            run(handle)
            return
        began, collected = time.thread_time(), collections.seconds
        run(handle)
        if (took := time.thread_time() - began - (collections.seconds - collected)) > max_cpu_s:
            found.append(f"{_format_handle(handle)} used {took:.3f} seconds of the processor")

    gc.callbacks.append(collections)
    asyncio.Handle._run = timed  # type: ignore[method-assign,assignment]
    try:
        yield
    finally:
        asyncio.Handle._run = run  # type: ignore[method-assign]
        gc.callbacks.remove(collections)


@contextmanager
def _own_thread_only(loop: asyncio.AbstractEventLoop, found: list[str]) -> Iterator[None]:
    """Callbacks that other threads give to the loop without waking it are told to ``found``."""
    names, mine = ("call_soon", "call_at"), threading.get_ident()

    def checked(name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def check(*arguments: Any, **more: Any) -> Any:
            if threading.get_ident() != mine:
                found.append(f"{name}{arguments!r} from another thread, {_nearest_caller() or 'of a library'}")
            return call(*arguments, **more)

        return check

    for name in names:
        setattr(loop, name, checked(name, getattr(loop, name)))
    try:
        yield
    finally:
        for name in names:
            delattr(loop, name)


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "watch_loop(max_cpu_s=1.0): fail when the loop is blocked")
    config.addinivalue_line("markers", "loop_may_block(reason): the loop of this test is not watched")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if isinstance(item, pytest.Function) and _is_watched(item):
            item.fixturenames.insert(0, "watched_loop")


def _is_watched(item: pytest.Function) -> bool:
    if (mark := item.get_closest_marker("loop_may_block")) is not None:
        assert mark.args, f"{item.nodeid}: say why the loop may block"
        return False
    if item.get_closest_marker("watch_loop"):
        return True
    return _folder(item) in WATCHED and inspect.iscoroutinefunction(item.function)


def _folder(item: pytest.Item) -> str:
    """The folder of tests/ that a test lies in; "" elsewhere."""
    return item.path.relative_to(TESTS).parts[0] if item.path.is_relative_to(TESTS) else ""


@pytest.fixture
async def watched_loop(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[list[str]]:
    """The list of what blocked the loop so far; not empty at the end of the test: it fails."""
    mark = request.node.get_closest_marker("watch_loop")
    loop = asyncio.get_running_loop()
    loop.slow_callback_duration = float("inf")  # by the wall clock: a busy machine would speak
    if sys.version_info < (3, 13):  # from there on the interpreter audits it
        monkeypatch.setattr(time, "sleep", _audited_sleep)
    blocked = _watchers[threading.get_ident()] = []
    try:
        with (
            _timed(blocked, mark.kwargs.get("max_cpu_s", MAX_CPU_S) if mark else MAX_CPU_S),
            _own_thread_only(loop, blocked),
        ):
            yield blocked
    finally:
        del _watchers[threading.get_ident()]
    if blocked:
        pytest.fail("the loop was blocked:\n  " + "\n  ".join(blocked), pytrace=False)
