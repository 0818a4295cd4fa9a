"""The store: one writer, a few readers, and this process's membership among the workers."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import time
from collections.abc import Callable
from types import TracebackType
from typing import Any, TypeVar

import msgspec

from flatwater.bounded import Ledger
from flatwater.errors import ConflictError, FencedError, StoreError
from flatwater.store import migrate, worker
from flatwater.store.dialect import Connection, Dialect, choose
from flatwater.store.ident import new_id
from flatwater.store.lease import Lease
from flatwater.store.option import StoreOptions
from flatwater.store.reader import Readers, ReaderStatistics
from flatwater.store.thread import in_thread
from flatwater.store.tx import Tx
from flatwater.store.writer import Writer, WriterStatistics

T = TypeVar("T")
_log = logging.getLogger(__name__)


class StoreStatistics(msgspec.Struct, frozen=True, kw_only=True):
    """`connections` = those this process has open, of at most `max_connections`."""

    writer: WriterStatistics
    readers: ReaderStatistics
    connections: int
    max_connections: int
    worker: str | None
    degraded: str | None


class Store:
    """Use as ``async with Store.open(url) as store``; `store.writer` writes, `store.read` reads."""

    writer: Writer
    readers: Readers

    def __init__(self, dialect: Dialect, options: StoreOptions, ledger: Ledger) -> None:
        self.dialect = dialect
        self.options = options
        self.worker: str | None = None
        self._ledger = ledger
        self._open = False

    @classmethod
    def open(cls, url: str, options: StoreOptions | None = None, ledger: Ledger | None = None) -> Store:
        """A store that opens when entered; its tables are created if the database is empty.

        Entering raises StoreError (not reachable, another schema, no permission), DamagedError.

        Raises:
            SettingError: the URL is of no known database, or of SQLite in memory.
        """
        options = options or StoreOptions()
        dialect = choose(url, busy_timeout_s=options.busy_timeout_s)
        return cls(dialect, options, ledger if ledger is not None else Ledger())

    async def __aenter__(self) -> Store:
        loop = asyncio.get_running_loop()
        connection = await in_thread(self._connect)
        self.writer = Writer(self.dialect, self.options, loop)
        self.readers = Readers(
            self.dialect, max_readers=self.options.max_readers, max_pending=self.options.max_pending_reads
        )
        self._ledger.register(self.writer)
        self._ledger.register(self.readers)
        self.writer.start(connection)
        self._open = True
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Leave the workers, commit what is pending, close. Twice is once."""
        if not self._open:
            return
        self._open = False
        self.writer.hasten()
        try:
            await self.leave()
        except StoreError as error:
            _log.warning("left without a word, so others take over once they notice: %s", error)
        finally:
            await self.writer.close()
            await self.readers.close()
            self.dialect.let_go()

    async def read(self, function: Callable[..., T], *args: Any) -> T:
        """Run `function(tx, *args)` on a read-only connection in a thread; it sees all commits awaited before.

        Raises:
            LimitError: too many reads are waiting. StoreError: the database failed.
        """
        return await self.readers.read(function, *args)

    async def join(self) -> str:
        """Become a worker: may claim runs, and is taken over when this process dies. Returns the worker's id.

        Raises:
            ConflictError: it is one already.
        """
        if self.worker is not None:
            raise ConflictError(f"this store is worker {self.worker} already")
        worker_id = new_id()
        row = worker.Worker(worker_id, socket.gethostname()[:255], os.getpid(), time.time(), time.time())
        await self.writer.call(worker.join, row)
        self.worker = worker_id
        options, numbered = self.options, self.dialect.name != "sqlite"
        self.writer.hold(Lease(worker_id, lease_s=options.lease_s, renew_s=options.renew_s, numbered=numbered))
        return worker_id

    async def leave(self) -> None:
        """Be a worker no longer: runs still claimed become ready for others."""
        worker_id, self.worker = self.worker, None
        if worker_id is None:
            return
        lease = self.writer.lease
        assert lease is not None, "a worker holds a lease"
        try:
            # Under the lease, so that what was put before is refused, and not stored late, if another has taken over.
            await self.writer.call(_leave, lease, time.time())
        except FencedError:
            _log.info("worker %s had been taken over", worker_id)
        finally:
            self.writer.hold(None)
        await self.writer.call(worker.let_go, worker_id)

    async def take_over(self, now: float) -> list[str]:
        """Make the runs of dead workers ready again; returns their ids."""
        return await self.writer.call(worker.take_over, self.worker, now, self.options.lease_s)

    async def check(self) -> list[str]:
        """Read everything and say what is wrong, [] when nothing is."""
        return await self.read(_check)

    def statistics(self) -> StoreStatistics:
        writer, readers = self.writer.statistics(), self.readers.statistics()
        return StoreStatistics(
            writer=writer,
            readers=readers,
            connections=readers.connections + 1,
            max_connections=self.options.max_readers + 1,
            worker=self.worker,
            degraded=writer.degraded,
        )

    async def sessions(self) -> list[tuple[str, str, float]]:
        """The connections that the database server sees: (who, doing what, seconds in that state)."""
        return await self.read(_sessions)

    async def size_bytes(self) -> int:
        return await self.read(_size)

    def _connect(self) -> Connection:
        connection = self.dialect.connect()
        try:
            migrate.prepare(self.dialect, connection)
        except self.dialect.driver_error as error:
            self.dialect.close(connection)
            raise self.dialect.error(error) from error
        except BaseException:
            self.dialect.close(connection)
            raise
        return connection


def _leave(tx: Tx, lease: Lease, now: float) -> None:
    worker.leave(tx, lease.worker_id, now)
    lease.left = True


def _check(tx: Tx) -> list[str]:
    return tx.dialect.check(tx.connection)


def _sessions(tx: Tx) -> list[tuple[str, str, float]]:
    return tx.dialect.sessions(tx.connection)


def _size(tx: Tx) -> int:
    return tx.dialect.size_bytes(tx.connection)
