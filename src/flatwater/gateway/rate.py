"""Rate limits by token buckets."""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from flatwater.bounded import Cache, Ledger


class RateRule(msgspec.Struct, frozen=True, kw_only=True):
    """``per_s`` requests each second on the long run, ``burst`` at once; for the whole service, or ``by = "client"``
    for each client's address, of which the latest ``max_clients`` are remembered."""

    per_s: float = 0.0
    burst: int = 10
    by: str = "service"
    max_clients: int = 10_000


class Bucket:
    """Holds up to ``burst`` tokens and gains ``per_s`` each second."""

    __slots__ = ("_at", "_burst", "_per_s", "_tokens")

    def __init__(self, per_s: float, burst: int, now: float) -> None:
        self._per_s = per_s
        self._burst = burst
        self._tokens = float(burst)
        self._at = now

    def take(self, now: float) -> float:
        """Take a token: 0.0; or the seconds after which there will be one, and none is taken."""
        if now > self._at:
            self._tokens = min(self._burst, self._tokens + (now - self._at) * self._per_s)
            self._at = now
        if self._tokens >= 1 - 1e-9:
            self._tokens -= 1
            return 0.0
        return (1 - self._tokens) / self._per_s


class Rate:
    """The limit of a service; ``take`` says 0.0 or how many seconds to wait."""

    def __init__(self, name: str, rule: RateRule, *, ledger: Ledger, clock: Callable[[], float]) -> None:
        self._rule = rule
        self._clock = clock
        self._whole = Bucket(rule.per_s, rule.burst, clock())
        self._clients: Cache[str, Bucket] | None = None
        self.limited = 0
        if rule.by == "client":
            self._clients = Cache(
                f"rate of {name}",
                max_entries=rule.max_clients,
                max_bytes=rule.max_clients * 256,
                ttl_s=max(60.0, 2 * rule.burst / rule.per_s),
                sizeof=lambda key, bucket: len(key) + 150,
                ledger=ledger,
                clock=clock,
            )

    def take(self, client: str) -> float:
        wait_s = self._bucket(client).take(self._clock())
        self.limited += wait_s > 0
        return wait_s

    def _bucket(self, client: str) -> Bucket:
        if self._clients is None:
            return self._whole
        bucket = self._clients.get(client)
        if bucket is None:
            bucket = Bucket(self._rule.per_s, self._rule.burst, self._clock())
            self._clients.put(client, bucket)
        return bucket
