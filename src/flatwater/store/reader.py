"""Read-only connections, each in its own thread."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from flatwater.bounded import Usage
from flatwater.errors import ClosedError, LimitError
from flatwater.store.dialect import Connection, Dialect, DisconnectedError, Fault
from flatwater.store.thread import in_thread
from flatwater.store.tx import Tx

T = TypeVar("T")


class ReaderStatistics(Usage, frozen=True, kw_only=True):
    """`size` = reads waiting or running, `connections` = open ones (at most `max_readers`)."""

    reads: int
    connections: int
    max_connections: int


class Readers:
    """A bounded pool. A read sees one state of the database from its first statement to its last."""

    name = "store.readers"
    kind = "pool"

    def __init__(self, dialect: Dialect, *, max_readers: int, max_pending: int) -> None:
        self._dialect = dialect
        self._max_readers = max_readers
        self._max_pending = max_pending
        self._pool = ThreadPoolExecutor(max_readers, thread_name_prefix="flatwater-reader")
        self._local = threading.local()
        self._lock = threading.Lock()
        self._connections: set[Connection] = set()
        self._pending = 0
        self._reads = 0
        self._closed = False

    async def read(self, function: Callable[..., T], *args: Any) -> T:
        """Run `function(tx, *args)` in a thread.

        Raises:
            LimitError: `max_pending_reads` are waiting already.
        """
        if self._closed:
            raise ClosedError("the store's readers take nothing more")
        if self._pending >= self._max_pending:
            raise LimitError(f"{self._pending} reads are waiting", where="max_pending_reads", hint="try again later")
        self._pending += 1
        self._reads += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(self._pool, self._run, function, args)
        finally:
            self._pending -= 1

    def statistics(self) -> ReaderStatistics:
        return ReaderStatistics(
            size=self._pending,
            bound=self._max_pending,
            reads=self._reads,
            connections=len(self._connections),
            max_connections=self._max_readers,
        )

    async def close(self) -> None:
        """Let running reads end, then close the connections."""
        self._closed = True
        await in_thread(self._shut)

    def _shut(self) -> None:
        self._pool.shutdown()
        with self._lock:
            while self._connections:
                self._dialect.close(self._connections.pop())

    def _run(self, function: Callable[..., T], args: tuple[Any, ...]) -> T:
        used_before = getattr(self._local, "connection", None) is not None
        try:
            return self._attempt(function, args)
        except DisconnectedError:
            if not used_before:
                raise
            return self._attempt(function, args)  # a server may have cut an idle connection

    def _attempt(self, function: Callable[..., T], args: tuple[Any, ...]) -> T:
        try:
            connection = self._connection()
            self._dialect.begin_reading(connection)
            try:
                return function(Tx(self._dialect, connection), *args)
            finally:
                self._dialect.rollback(connection)
        except self._dialect.driver_error as error:
            if self._dialect.fault(error) is Fault.LOST:
                self._drop()
                raise DisconnectedError(str(error).strip(), where=self._dialect.place) from error
            raise self._dialect.error(error) from error

    def _connection(self) -> Connection:
        connection: Connection | None = getattr(self._local, "connection", None)
        if connection is None:
            connection = self._local.connection = self._dialect.connect(readonly=True)
            with self._lock:
                self._connections.add(connection)
        return connection

    def _drop(self) -> None:
        connection = getattr(self._local, "connection", None)
        self._local.connection = None
        if connection is None:
            return
        with self._lock:
            self._connections.discard(connection)
        self._dialect.close(connection)
