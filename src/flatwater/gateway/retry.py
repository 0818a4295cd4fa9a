"""Whether a failed request is sent once more."""

from __future__ import annotations

import random
from collections.abc import Callable

import msgspec

from flatwater.gateway.error import GatewayError, StaleError
from flatwater.gateway.message import IDEMPOTENT


class RetryRule(msgspec.Struct, frozen=True, kw_only=True):
    """``attempts`` in all; the statuses that count as failures worth a retry; the budget: retries may be
    ``budget_percent`` of the requests, and ``min_per_s`` each second in any case; pauses between attempts grow from
    ``backoff_s`` by two, up to ``max_backoff_s``, each a random part of it."""

    attempts: int = 2
    statuses: tuple[int, ...] = (502, 503, 504)
    budget_percent: float = 20.0
    min_per_s: float = 3.0
    backoff_s: float = 0.025
    max_backoff_s: float = 1.0

    def covers(self, status: int) -> bool:
        """Whether an answer of this status is a failure worth a retry."""
        return status >= 500 and status in self.statuses


class RetryBudget:
    """Tokens: each request earns ``percent`` / 100, each second ``min_per_s``; a retry costs one. What is saved is at
    most ten seconds' worth of ``min_per_s`` and a hundred requests' worth, so that an outage meets a small budget."""

    def __init__(self, rule: RetryRule, *, clock: Callable[[], float]) -> None:
        self._earned = rule.budget_percent / 100
        self._min_per_s = rule.min_per_s
        self._max = max(1.0, 10 * rule.min_per_s + 100 * self._earned)
        self._tokens = max(1.0, rule.min_per_s)
        self._clock = clock
        self._at = clock()
        self.spent = self.refused = 0

    def earn(self) -> None:
        tokens = self._tokens + self._earned
        self._tokens = tokens if tokens < self._max else self._max

    def spend(self) -> bool:
        now = self._clock()
        self._tokens = min(self._max, self._tokens + (now - self._at) * self._min_per_s)
        self._at = now
        if self._tokens < 1:
            self.refused += 1
            return False
        self._tokens -= 1
        self.spent += 1
        return True


def repeatable(method: bytes, *, body_kept: bool, error: GatewayError | None) -> bool:
    """Whether HTTP allows to send the request again (RFC 9110, section 9.2.2).

    ``body_kept``: all of its body is at hand. ``error``: how the attempt failed, None when it was answered (by a status
    worth a retry). A request that cannot have reached the upstream may always be repeated; others only when they are
    idempotent.
    """
    if not body_kept:
        return False
    if error is not None and error.unsent:
        return True
    return method in IDEMPOTENT


def immediate(error: GatewayError | None, *, repeated: bool) -> bool:
    """A stale idle connection is repeated once, at once, outside the budget: it says nothing about the upstream."""
    return isinstance(error, StaleError) and not repeated


def pause_s(rule: RetryRule, attempt: int, chance: Callable[[], float] = random.random) -> float:
    """How long to wait before ``attempt`` (2 is the first retry)."""
    longest: float = min(rule.max_backoff_s, rule.backoff_s * 2 ** (attempt - 2))
    return longest * (0.5 + 0.5 * chance())
