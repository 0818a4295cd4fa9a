"""A worker's right to write: its row, renewed inside its own batches."""

from __future__ import annotations

from sqlalchemy import bindparam, select, update

from flatwater.errors import FencedError
from flatwater.store import schema
from flatwater.store.tx import Query, Tx

_worker = schema.worker
_RENEW = Query(
    update(_worker)
    .where(_worker.c.id == bindparam("worker_id"))
    .values(lease_at=bindparam("now"), batch=bindparam("number"))
)
_BATCH = Query(select(_worker.c.batch).where(_worker.c.id == bindparam("worker_id")))


class Lease:
    """Renewed at most each `renew_s`. Between two renewals nobody can have taken over, for a takeover needs a lease
    older than `lease_s` (many times `renew_s`) or a process that is dead.

    Over a network each batch writes its number too, so that after a connection lost during COMMIT one can tell
    whether that batch is stored.
    """

    def __init__(self, worker_id: str, *, lease_s: float, renew_s: float, numbered: bool) -> None:
        self.worker_id = worker_id
        self.lost = False
        self.told = False
        self.left = False  # its worker has gone by itself: there is no row to renew, and nothing to refuse
        self.idle_s = lease_s / 4
        self._renew_s = renew_s
        self._numbered = numbered
        self._number = 0
        self._at = 0.0
        self._written_at: float | None = None

    def due(self, now: float) -> bool:
        """Whether an idle worker should renew by a batch of its own."""
        return not (self.lost or self.left) and abs(now - self._at) >= self.idle_s

    def renew(self, tx: Tx, now: float) -> None:
        """Inside a batch, after its transaction has begun.

        Raises:
            FencedError: the row is gone: another worker has taken over.
        """
        if self.lost:
            raise FencedError(self.worker_id)
        if self.left:
            return
        if not self._numbered and abs(now - self._at) < self._renew_s:
            return
        self._number += 1
        if tx.run(_RENEW, worker_id=self.worker_id, now=now, number=self._number) == 0:
            self.lost = True
            raise FencedError(self.worker_id, hint="restart this worker; its runs go on elsewhere")
        self._written_at = now

    def renewed(self) -> None:
        """The batch is committed."""
        if self._written_at is not None:
            self._at, self._written_at = self._written_at, None

    def reattach(self, tx: Tx) -> None:
        """After a new connection: hold the liveness lock again."""
        tx.dialect.liveness(tx.connection).hold(self.worker_id)

    def stored(self, tx: Tx) -> bool:
        """Whether the latest batch begun is in the database."""
        return bool(tx.value(_BATCH, worker_id=self.worker_id) == self._number)
