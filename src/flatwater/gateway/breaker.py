"""The circuit breaker of a service: how much may be under way at once, as Envoy has it."""

from __future__ import annotations

import msgspec

from flatwater.gateway.error import BreakerError


class BreakerStatistics(msgspec.Struct, frozen=True, kw_only=True):
    """``requests`` and ``retries`` under way, of ``max_requests`` and ``max_retries``; refused since the start."""

    requests: int
    max_requests: int
    retries: int
    max_retries: int
    refused_requests: int
    refused_retries: int


class Breaker:
    """Counts; above its limits it refuses at once, so that a slow upstream cannot hold all there is.

    Connections and waiters for them are limited by the pools of the endpoints.
    """

    def __init__(self, *, max_requests: int = 2000, max_retries: int = 50) -> None:
        self._max_requests = max_requests
        self._max_retries = max_retries
        self.requests = 0
        self.retries = 0
        self._refused_requests = self._refused_retries = 0

    def enter(self) -> None:
        """One more request. Raises BreakerError when there are too many; else ``leave`` must follow."""
        if self.requests >= self._max_requests:
            self._refused_requests += 1
            raise BreakerError(f"{self.requests} requests are under way", hint="raise breaker.max_requests")
        self.requests += 1

    def leave(self) -> None:
        self.requests -= 1

    def enter_retry(self) -> bool:
        """One more retry; False when there are too many, else ``leave_retry`` must follow."""
        if self.retries >= self._max_retries:
            self._refused_retries += 1
            return False
        self.retries += 1
        return True

    def leave_retry(self) -> None:
        self.retries -= 1

    def statistics(self) -> BreakerStatistics:
        return BreakerStatistics(
            requests=self.requests,
            max_requests=self._max_requests,
            retries=self.retries,
            max_retries=self._max_retries,
            refused_requests=self._refused_requests,
            refused_retries=self._refused_retries,
        )
