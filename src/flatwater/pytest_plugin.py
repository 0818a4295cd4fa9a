"""Tests that must leave no memory behind: ``@pytest.mark.flat(cycles=200)`` and the fixture ``flat``.

A marked test runs ``cycles`` times (coroutines too, with whatever plugin runs them, and methods of ``unittest``) and
fails when the cycles grow; the message names the container that holds what is left, and the line that makes it.
Fixtures and ``setUp`` are run once for all cycles. The mark takes the arguments of
:class:`flatwater.memory.cycle.Cycles`. A marked test that was not measured fails, whatever the reason.
"""

from __future__ import annotations

import functools
import inspect
import logging
from collections.abc import Awaitable, Callable, Generator, Iterator, Mapping
from typing import TYPE_CHECKING, Any

import pytest
from _pytest.logging import LogCaptureHandler
from _pytest.unittest import TestCaseFunction

if TYPE_CHECKING:
    from flatwater.memory.cycle import Cycles


class Flat:
    """The fixture: ``flat(function)`` for functions, ``await flat.of(coroutine_function)`` for coroutines.

    ``settings`` are those of :class:`flatwater.memory.cycle.Cycles`. Both raise Grows, an AssertionError, and TypeError
    for a function that is the other's.
    """

    def __init__(self) -> None:
        self.made = self.awaited = 0  # measurements of coroutines

    def __call__(self, function: Callable[[], object], **settings: Any) -> None:
        __tracebackhide__ = True
        for number in _cycles(settings).plan():
            for _ in range(number):
                if _to_be_awaited(function()):
                    raise TypeError("flat() runs no coroutines, so nothing was measured: await flat.of(function)")

    def of(self, function: Callable[[], Awaitable[object]], **settings: Any) -> Awaitable[None]:
        """As the call, for a function that returns something to await."""
        self.made += 1
        return self._of(function, settings)

    async def _of(self, function: Callable[[], Awaitable[object]], settings: Mapping[str, Any]) -> None:
        __tracebackhide__ = True
        self.awaited += 1
        for number in _cycles(settings).plan():
            for _ in range(number):
                found = function()
                if not hasattr(found, "__await__"):
                    raise TypeError("flat.of() awaits what the function returns, which cannot be: flat(function)")
                await found


@pytest.fixture
def flat() -> Iterator[Flat]:
    """Run something many times; fails when it leaves memory behind."""
    flat = Flat()
    yield flat
    if flat.awaited < flat.made:
        pytest.fail("flat.of() was not awaited, so nothing was measured: await flat.of(function)", pytrace=False)


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line(
        "markers",
        "flat(cycles=200, warmup=10, max_blocks=0.5, max_bytes=1024, max_entries=0.5): run the test that many times; "
        "it fails when its cycles leave memory behind",
    )


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, None, None]:
    """Put all cycles into the place of a marked test, whoever runs it: pytest, unittest, or a plugin for coroutines."""
    __tracebackhide__ = True
    mark = item.get_closest_marker("flat")
    if mark is None:
        return (yield)
    measured = _Measured(getattr(item, "obj", None), _cycles(mark.kwargs, *mark.args))
    with pytest.MonkeyPatch.context() as patch:
        if isinstance(item, pytest.Function):
            patch.setattr(item, "obj", measured.test)
        if isinstance(item, TestCaseFunction):  # unittest looks its coroutines up by itself
            patch.setitem(vars(item.instance), item.name, measured.test)
        try:
            yield
        except pytest.skip.Exception as skipped:  # pytest before 8.4, where no plugin runs coroutines
            if measured.began or "natively supported" not in str(skipped):
                raise
    if not measured.over and not getattr(item, "_excinfo", None):  # there a TestCaseFunction keeps what was raised
        pytest.fail(f"marked flat, and nothing was measured: {measured.trouble}", pytrace=False)
    return None


class _Measured:
    """The cycles of a test: ``test`` is to be called or awaited once, as it would be."""

    def __init__(self, test: Any, cycles: Cycles) -> None:
        self._once, self._cycles = test, cycles
        self._coroutine = inspect.iscoroutinefunction(test)
        self.began = self.over = False
        self.test = (self._awaited if self._coroutine else self._called)() if callable(test) else None

    @property
    def trouble(self) -> str:
        """Why it was not, as far as that can be told."""
        if self.began:
            return "the cycles were ended early"
        if self._coroutine:
            return (
                "nobody awaits the coroutine; install pytest-asyncio or anyio and mark the test for it, or derive its "
                "class from unittest.IsolatedAsyncioTestCase"
            )
        return "what runs this test does not call it as a function; use the fixture flat, or flatwater.memory.cycle"

    def _called(self) -> Callable[..., None]:
        @functools.wraps(self._once)
        def test(*values: Any, **arguments: Any) -> None:
            __tracebackhide__ = True
            self.began = True
            for number in self._cycles.plan():
                for _ in range(number):
                    if _to_be_awaited(self._once(*values, **arguments)):
                        pytest.fail("marked flat, and returns a coroutine: make it an async def", pytrace=False)
            self.over = True

        return test

    def _awaited(self) -> Callable[..., Awaitable[None]]:
        @functools.wraps(self._once)
        async def test(*values: Any, **arguments: Any) -> None:
            __tracebackhide__ = True
            self.began = True
            for number in self._cycles.plan():
                for _ in range(number):
                    await self._once(*values, **arguments)
            self.over = True

        return test


def _to_be_awaited(found: object) -> bool:
    """Whether it must be awaited to do anything; a coroutine is closed, for nobody will."""
    if inspect.iscoroutine(found):
        found.close()
    return hasattr(found, "__await__") or hasattr(found, "__aiter__")


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
