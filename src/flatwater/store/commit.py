"""What a caller holds while the writer works: a Commit for rows, a Call for a function run in the transaction."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Generator
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from flatwater.errors import FlatwaterError, StoreError
from flatwater.store.statement import Op

if TYPE_CHECKING:
    from flatwater.store.tx import Tx

T = TypeVar("T")
F = TypeVar("F", bound=Callable[..., Any])
CALL_WEIGHT = 20  # a call counts as so many rows when a batch is bounded


def refusable(function: F) -> F:
    """Mark a function of the transaction that shall fail when the disk is full, rather than be tried again."""
    function.refusable = True  # type: ignore[attr-defined]
    return function


class Commit:
    """Await it to know that the rows are durable; not awaiting is fine. Several tasks may await one commit."""

    __slots__ = ("_futures", "done", "error", "ops", "size")

    def __init__(self, ops: tuple[Op, ...], size: int) -> None:
        self.ops = ops
        self.size = size  # bytes, for the bound on what is pending
        self.done = False
        self.error: BaseException | None = None
        self._futures: list[asyncio.Future[None]] | None = None

    @property
    def weight(self) -> int:
        return len(self.ops)

    @property
    def refusable(self) -> bool:
        return any(statement.refusable for statement, _ in self.ops)

    def perform(self, tx: Tx) -> None:
        """Apply all rows, each in its own execution (writer's thread)."""
        tx.apply(*self.ops)

    def settle(self) -> bool:
        """Tell those who wait (loop's thread); False when it failed and nobody was there to hear it."""
        self.done = True
        if self._futures is None:
            return self.error is None
        for future in self._futures:
            if not future.done():
                future.set_result(None)
        self._futures = None
        return True

    def __await__(self) -> Generator[Any, None, None]:
        if not self.done:
            future = asyncio.get_running_loop().create_future()
            if self._futures is None:
                self._futures = []
            self._futures.append(future)
            yield from future
        if self.error is not None:
            raise self.error.with_traceback(None)


class Call(Commit, Generic[T]):
    """A function of the transaction. It may run again when its batch is tried again, so it must touch nothing else."""

    __slots__ = ("_args", "_function", "_result")

    def __init__(self, function: Callable[..., T], args: tuple[Any, ...]) -> None:
        super().__init__((), 0)
        self._function = function
        self._args = args
        self._result: T | None = None

    @property
    def weight(self) -> int:
        return CALL_WEIGHT

    @property
    def refusable(self) -> bool:
        return bool(getattr(self._function, "refusable", False))

    def perform(self, tx: Tx) -> None:
        self._result = self._function(tx, *self._args)

    async def result(self) -> T:
        await self
        return self._result  # type: ignore[return-value]


def as_error(error: Exception, what: str) -> Exception:
    """An error of ours stays; one of Python (a bug in a function of the transaction) becomes a StoreError."""
    if isinstance(error, FlatwaterError):
        return error
    wrapped = StoreError(f"{what}: {type(error).__name__}: {error}")
    wrapped.__cause__ = error
    return wrapped
