"""Settings of a store."""

from __future__ import annotations

import msgspec


class StoreOptions(msgspec.Struct, frozen=True, kw_only=True):
    """Bounds and times. `max_pending_*` bound what submitters may leave unwritten; `max_batch_*` one transaction.

    `busy_timeout_s`: how long one attempt waits for another process's lock. `retry_s` … `max_retry_s`: pause between
    attempts while the database is in trouble. `close_s`: how long closing goes on trying then. `lease_s`: a worker
    whose lease is older is taken over even if its process seems alive; `renew_s`: how often a busy worker renews it.
    """

    max_readers: int = 2
    max_pending_reads: int = 200
    max_pending_ops: int = 10_000
    max_pending_bytes: int = 64 * 1024 * 1024
    max_batch_rows: int = 2_000
    max_batch_bytes: int = 4 * 1024 * 1024
    max_batch_s: float = 0.05
    busy_timeout_s: float = 5.0
    retry_s: float = 0.1
    max_retry_s: float = 1.0
    close_s: float = 10.0
    lease_s: float = 30.0
    renew_s: float = 1.0
