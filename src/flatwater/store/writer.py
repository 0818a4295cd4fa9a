"""The one writer of a process: a thread that commits whatever has gathered, one transaction after another."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias, TypeVar

from flatwater.bounded import Usage
from flatwater.errors import ClosedError, StoreError
from flatwater.store.batch import apply_merged, apply_singly, of_item
from flatwater.store.commit import Call, Commit, as_error
from flatwater.store.dialect import Connection, Dialect, DisconnectedError, Fault, UnknownOutcomeError
from flatwater.store.lease import Lease
from flatwater.store.option import StoreOptions
from flatwater.store.statement import Op
from flatwater.store.tx import Tx

T = TypeVar("T")
Apply: TypeAlias = Callable[[Tx, Sequence[Commit], float], int]
_log = logging.getLogger(__name__)


class WriterStatistics(Usage, frozen=True, kw_only=True):
    """`size` = puts and calls not yet settled, counted in rows; `rows` and `batches` are committed totals; `commit_s`
    the seconds spent in batches; `refused` the puts and calls that failed; `retries` the batches tried again."""

    batches: int
    rows: int
    commit_s: float
    refused: int
    retries: int
    degraded: str | None
    fenced: bool


class Writer:
    """Use from the loop's thread only. Bounded by `room()`: submitters wait there, and runs before each block."""

    name = "store.writer"
    kind = "queue"

    def __init__(self, dialect: Dialect, options: StoreOptions, loop: asyncio.AbstractEventLoop) -> None:
        self.degraded: str | None = None
        self.lease: Lease | None = None
        self.on_fenced: Callable[[], None] | None = None
        self._dialect = dialect
        self._options = options
        self._loop = loop
        self._queue: deque[Commit] = deque()
        self._bell = threading.Lock()
        self._bell.acquire()
        self._idle = False
        self._closing: float | None = None  # monotonic time after which nothing is tried again
        self._closed = False
        self._stop = threading.Event()
        self._pending_ops = self._pending_bytes = 0
        self._room: list[asyncio.Future[None]] = []
        self._batches = self._rows = self._refused = self._retries = 0
        self._commit_s = 0.0
        self._committing = False
        self._connection: Connection | None = None
        self._thread = threading.Thread(target=self._run, name="flatwater-writer", daemon=True)
        self._ended = loop.create_future()

    # --- the loop's side ------------------------------------------------------------------------------------------

    def start(self, connection: Connection) -> None:
        """Take over an open connection and begin."""
        self._connection = connection
        self._thread.start()

    def put(self, *ops: Op) -> Commit:
        """Queue rows that land in one transaction, in order. Never blocks; await the result to know them durable.

        Awaiting raises ConflictError (a unique name is taken), FencedError (the run or this worker was taken over),
        StoreFullError (refusable rows on a full disk) or StoreError; none of the rows is stored then.
        """
        size = 0
        for statement, row in ops:
            for position in statement.large:
                item = row[position]
                if item:
                    size += len(item)
        return self._enqueue(Commit(ops, size), len(ops))

    async def call(self, function: Callable[..., T], *args: Any) -> T:
        """Run `function(tx, *args)` inside the next transaction; its result comes after the durable commit.

        What it raises is raised here, with nothing of it stored.
        """
        call = Call(function, args)
        self._enqueue(call, call.weight)
        return await call.result()

    async def flush(self) -> None:
        """Return when all that was put before is durable (or refused)."""
        await self._enqueue(Commit((), 0), 0)

    async def room(self) -> None:
        """Return when less than the bounds is pending: to be awaited before each submission."""
        while self.full:
            future = self._loop.create_future()
            self._room.append(future)
            await future

    def hold(self, lease: Lease | None) -> None:
        """Write under this lease from now on, and keep it renewed."""
        self.lease = lease
        self._ring()  # the thread sleeps no longer than the lease allows

    @property
    def fenced(self) -> bool:
        return self.lease is not None and self.lease.lost

    def statistics(self) -> WriterStatistics:
        return WriterStatistics(
            size=self._pending_ops,
            bound=self._options.max_pending_ops,
            bytes=self._pending_bytes,
            max_bytes=self._options.max_pending_bytes,
            batches=self._batches,
            rows=self._rows,
            commit_s=self._commit_s,
            refused=self._refused,
            retries=self._retries,
            degraded=self.degraded,
            fenced=self.fenced,
        )

    def hasten(self) -> None:
        """The end is near: from now on nothing is tried for longer than `close_s` when the database is in trouble."""
        if self._closing is None:
            self._closing = time.monotonic() + self._options.close_s

    async def close(self) -> None:
        """Commit what is pending (for at most `close_s` when the database is in trouble), then end the thread."""
        self.hasten()
        if not self._closed:
            self._closed = True
            self._stop.set()
            self._ring()
        if self._connection is not None or self._thread.is_alive():
            await asyncio.shield(self._ended)
        self._thread.join()

    def _enqueue(self, item: Commit, ops: int) -> Commit:
        if self._closed:
            raise ClosedError("the store's writer takes nothing more")
        self._pending_ops += ops
        self._pending_bytes += item.size
        self._queue.append(item)
        if self._idle:
            self._ring()
        return item

    def _ring(self) -> None:
        self._idle = False
        with contextlib.suppress(RuntimeError):  # rung already
            self._bell.release()

    @property
    def full(self) -> bool:
        """Whether as much is pending as the bounds allow."""
        over = self._pending_ops >= self._options.max_pending_ops
        return over or self._pending_bytes >= self._options.max_pending_bytes

    def _settle(self, items: Sequence[Commit]) -> None:
        for item in items:
            self._pending_ops -= item.weight
            self._pending_bytes -= item.size
            self._refused += item.error is not None
            if not item.settle() and not self.fenced:  # of which we tell once
                _log.error("a write was refused while nobody awaited it: %s", item.error)
        if self._room and not self.full:
            waiting, self._room = self._room, []
            for future in waiting:
                if not future.done():
                    future.set_result(None)

    def _tell_fenced(self) -> None:
        _log.error("fenced: another worker took over; this process's runs must stop")
        if self.on_fenced is not None:
            self.on_fenced()

    # --- the thread's side ----------------------------------------------------------------------------------------

    def _run(self) -> None:
        try:
            while True:
                items = self._take()
                if items or self._lease_due():
                    self._process(items)
                elif self._stop.is_set():
                    break
                else:
                    self._rest()
        finally:
            self._hang_up()
            self._tell(self._ended.set_result, None)

    def _lease_due(self) -> bool:
        return self.lease is not None and not self._stop.is_set() and self.lease.due(time.time())

    def _take(self) -> list[Commit]:
        items: list[Commit] = []
        rows = size = 0
        while self._queue and rows < self._options.max_batch_rows and size < self._options.max_batch_bytes:
            item = self._queue.popleft()
            items.append(item)
            rows += item.weight
            size += item.size
        return items

    def _rest(self) -> None:
        """Sleep until something is put, or the lease is due."""
        self._idle = True
        if not self._queue and not self._stop.is_set():
            self._bell.acquire(timeout=-1 if self.lease is None else self.lease.idle_s)
        self._idle = False

    def _process(self, items: list[Commit]) -> None:
        """Bring the items to their end: committed or failed, whatever it takes."""
        delay = self._options.retry_s
        apply: Apply = apply_merged
        while True:
            try:
                done = self._transact(apply, items)
            except Exception as error:
                hopeless = isinstance(error, UnknownOutcomeError) or self.fenced
                if hopeless or (apply is apply_singly and of_item(self._dialect, error)):
                    return self._fail(items, as_error(error, "commit"))
                if of_item(self._dialect, error):
                    apply = apply_singly
                    continue
                items = self._survive(items, error)
                time.sleep(delay)
                delay = min(2 * delay, self._options.max_retry_s)
                items += self._take()
                if not items:
                    return None
            else:
                self._queue.extendleft(reversed(items[done:]))
                return self._succeed(items[:done])

    def _transact(self, apply: Apply, items: Sequence[Commit]) -> int:
        """One transaction; returns how many items it did."""
        began = time.perf_counter()
        if self._connection is None and self._reconnect():
            return len(items)
        connection, lease = self._connection, self.lease  # one lease for all of it, whatever the loop sets meanwhile
        tx = Tx(self._dialect, connection)
        try:
            self._dialect.begin(connection)
            if lease is not None:
                lease.renew(tx, time.time())
            done = apply(tx, items, began + self._options.max_batch_s)
            self._committing = True
            self._dialect.commit(connection)
        except BaseException as error:
            self._undo(error)
            raise
        self._committing = False
        if lease is not None:
            lease.renewed()
        self._batches += 1
        self._rows += tx.rows
        self._commit_s += time.perf_counter() - began
        return done

    def _undo(self, error: BaseException) -> None:
        """Roll back; a connection that cannot is dropped."""
        fault = self._dialect.fault(error)
        self._committing = self._committing and fault is Fault.LOST
        try:
            if fault is not Fault.LOST:
                self._dialect.rollback(self._connection)
                return
        except Exception:
            _log.exception("rollback failed; the connection is replaced")
        self._hang_up()

    def _reconnect(self) -> bool:
        """Open a new connection; True when the batch whose COMMIT was cut off turns out to be stored."""
        try:
            connection = self._dialect.connect()
        except StoreError as error:
            raise DisconnectedError(str(error), where=self._dialect.place) from error
        unknown, self._committing = self._committing, False
        self._connection = connection
        if self.lease is None:
            if unknown:
                raise UnknownOutcomeError(where=self._dialect.place)
            return False
        self.lease.reattach(Tx(self._dialect, connection))
        return unknown and self.lease.stored(Tx(self._dialect, connection))

    def _hang_up(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            try:
                self._dialect.close(connection)
            except Exception:
                _log.exception("closing the writer's connection failed")

    def _survive(self, items: list[Commit], error: Exception) -> list[Commit]:
        """The database is in trouble: fail what may or must fail now, and return what will be tried again."""
        known = self._dialect.error(error)
        fault = self._dialect.fault(error)
        if self.degraded is None:
            _log.warning("the store is degraded: %s", known)
        self.degraded = str(known)
        self._retries += 1
        closing = self._closing is not None and time.monotonic() >= self._closing
        if fault is Fault.DAMAGED or closing:
            self._fail(items, known)
            return []
        if fault is not Fault.FULL:
            return items
        self._fail([item for item in items if item.refusable], known)
        return [item for item in items if not item.refusable]

    def _succeed(self, items: Sequence[Commit]) -> None:
        if self.degraded is not None:
            _log.warning("the store is well again")
            self.degraded = None
        if items:
            self._tell(self._settle, items)

    def _fail(self, items: Sequence[Commit], error: BaseException) -> None:
        for item in items:
            item.error = error
        if items:
            self._tell(self._settle, items)
        if self.lease is not None and self.lease.lost and not self.lease.told:
            self.lease.told = True
            self._tell(self._tell_fenced)

    def _tell(self, function: Callable[..., Any], *args: Any) -> None:
        """Call in the loop's thread: once for a whole batch, since each call wakes the loop."""
        try:
            self._loop.call_soon_threadsafe(function, *args)
        except RuntimeError:
            _log.warning("the event loop was closed before the store")
