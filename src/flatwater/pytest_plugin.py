"""Tests that must leave no memory behind: ``@pytest.mark.flat(cycles=200)`` and the fixture ``flat``.

A marked test runs ``cycles`` times (coroutines too, with whatever plugin runs them) and fails when the cycles grow; the
message names the container that holds what is left, and the line that makes it. Fixtures are set up once for all
cycles. The mark takes the arguments of :class:`flatwater.memory.cycle.Cycles`.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, Any

import pytest
from _pytest.logging import LogCaptureHandler

if TYPE_CHECKING:
    from flatwater.memory.cycle import Cycles


class Flat:
    """The fixture: ``flat(function)`` for functions, ``await flat.of(coroutine_function)`` for coroutines.

    ``settings`` are those of :class:`flatwater.memory.cycle.Cycles`. Both raise Grows, an AssertionError.
    """

    def __call__(self, function: Callable[[], object], **settings: Any) -> None:
        for number in _cycles(settings).plan():
            for _ in range(number):
                function()

    async def of(self, function: Callable[[], Awaitable[object]], **settings: Any) -> None:
        """As the call, for a function that returns something to await."""
        for number in _cycles(settings).plan():
            for _ in range(number):
                await function()


@pytest.fixture
def flat() -> Flat:
    """Run something many times; fails when it leaves memory behind."""
    return Flat()


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line(
        "markers",
        "flat(cycles=200, warmup=10, max_blocks=0.5, max_bytes=1024, max_entries=0.5): run the test that many times; "
        "it fails when its cycles leave memory behind",
    )


def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    """Run a marked test in cycles. Plugins for coroutines have made a plain function of it before this hook."""
    mark = pyfuncitem.get_closest_marker("flat")
    if mark is None:
        return None
    names = pyfuncitem._fixtureinfo.argnames
    arguments = {name: pyfuncitem.funcargs[name] for name in names}
    for number in _cycles(mark.kwargs, *mark.args).plan():
        for _ in range(number):
            _plain(pyfuncitem.obj(**arguments))
    return True


def _plain(result: object) -> None:
    if hasattr(result, "__await__"):
        result.close()  # type: ignore[attr-defined]
        pytest.fail(
            "a coroutine cannot be run: install pytest-asyncio or anyio, and mark the test for it", pytrace=False
        )


def _cycles(settings: Mapping[str, Any], *arguments: Any) -> Cycles:
    from flatwater.memory.cycle import Cycles

    return Cycles(*arguments, **{"between": _forget_logs, **settings})


def _forget_logs() -> None:
    """pytest keeps every log record of a running test: that is its growth, not the test's."""
    for handler in logging.getLogger().handlers:
        if isinstance(handler, LogCaptureHandler):
            handler.records.clear()
            handler.stream.seek(0)
            handler.stream.truncate()
