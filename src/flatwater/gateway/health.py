"""Whether an endpoint gets requests: what its answers show (passive), and what checks of it show (active)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import msgspec

_MAX_WINDOWS = 6
_MOST_TIMED = 256


class Ejection(msgspec.Struct, frozen=True, kw_only=True):
    """Passive health. After ``failures`` failures in a row (5xx, no connection, time-outs, broken answers) an endpoint
    is out for ``eject_s``, twice as long the next time, up to ``max_eject_s``; each ``max_eject_s`` without an
    ejection halves it again. Never more than ``max_ejected_percent`` of the endpoints are out (one may always be, if
    there are two).

    Every ``window_s`` an endpoint that has had ``min_requests``, as its peers together have, is compared with them: it
    is out when ``failure_percent`` of its requests failed, and twice the share of theirs; or when the geometric mean of
    its times to an answer is ``slow_factor`` times theirs, not by chance, and at least ``slow_s``. 0 of either: not for
    that."""

    failures: int = 5
    failure_percent: float = 30.0
    slow_factor: float = 10.0
    slow_s: float = 0.2
    window_s: float = 10.0
    min_requests: int = 20
    eject_s: float = 10.0
    max_eject_s: float = 300.0
    max_ejected_percent: float = 50.0


class Check(msgspec.Struct, frozen=True, kw_only=True):
    """Active checks: GET ``path`` every ``every_s``; ``unhealthy_after`` failures in a row take the endpoint out,
    ``healthy_after`` successes put it back. A status in ``min_status`` … ``max_status`` is a success."""

    path: str = ""
    every_s: float = 10.0
    timeout_s: float = 2.0
    unhealthy_after: int = 3
    healthy_after: int = 2
    min_status: int = 200
    max_status: int = 399


class Tally(NamedTuple):
    """Requests of an endpoint, those of them that failed, how many answers were timed, and the sums of the logarithms
    of their seconds and of the squares of these."""

    requests: int
    failures: int
    timed: int
    log_s: float
    log_s2: float

    def since(self, before: Tally) -> Tally:
        """What has come since."""
        return Tally(*(now - then for now, then in zip(self, before, strict=True)))  # type: ignore[arg-type]


class Health:
    """The health of one endpoint. All times are those of the caller's clock, in seconds. ``taken_out``: by an operator,
    until the same puts it back."""

    def __init__(self, ejection: Ejection, check: Check) -> None:
        self._ejection = ejection
        self._check = check
        self.failures_in_row = 0
        self._check_row = 0  # failures (negative) or successes of checks
        self._ejected_until = 0.0
        self._times = 0  # ejections that have not been forgiven
        self._forgiven_at = 0.0
        self.checked_out = False
        self.taken_out = False
        self.ejected_for: dict[str, int] = {}
        self.successes = self.failures = 0
        self.timed, self.log_s, self.log_s2 = 0, 0.0, 0.0  # see Tally
        self.timed_until = _MOST_TIMED if ejection.slow_factor > 0 else 0  # so many: a window needs no more
        self._mark = Tally(0, 0, 0, 0.0, 0.0)
        self._marked_at = 0.0
        self.last_error = ""

    def available(self, now: float) -> bool:
        return not self.checked_out and not self.taken_out and self._ejected_until <= now

    def ejected(self, now: float) -> bool:
        return self._ejected_until > now

    def succeeded(self) -> None:
        self.successes += 1
        self.failures_in_row = 0

    def failed(self, error: str) -> bool:
        """Count a failure; True when the endpoint should be ejected, which ``eject`` does."""
        self.failures += 1
        self.failures_in_row += 1
        self.last_error = error
        return self.failures_in_row >= self._ejection.failures

    def tally(self) -> Tally:
        """What was counted since the start."""
        return Tally(self.successes + self.failures, self.failures, self.timed, self.log_s, self.log_s2)

    def window(self, now: float) -> Tally | None:
        """At the end of a window, what was counted in it; None for an endpoint that is out. Then the next one begins;
        but while fewer than ``min_requests`` have come the window goes on, for up to six times its length."""
        found = self.tally()
        seen = found.since(self._mark)
        enough = seen.requests >= self._ejection.min_requests
        available = self.available(now)
        if enough or not available or now - self._marked_at >= _MAX_WINDOWS * self._ejection.window_s:
            self._mark, self._marked_at = found, now
            if self.timed_until:
                self.timed_until = found.timed + _MOST_TIMED
        return seen if available else None

    def eject(self, now: float, kind: str = "failures") -> float:
        """Take the endpoint out, and count it under ``kind``; return for how many seconds."""
        ejection = self._ejection
        while self._times and now - self._forgiven_at >= ejection.max_eject_s:
            self._times -= 1
            self._forgiven_at += ejection.max_eject_s
        duration_s: float = min(ejection.eject_s * 2**self._times, ejection.max_eject_s)
        self._times = min(self._times + 1, 30)
        self._ejected_until = self._forgiven_at = now + duration_s
        self.failures_in_row = 0
        self.ejected_for[kind] = self.ejected_for.get(kind, 0) + 1
        return duration_s

    @property
    def ejections(self) -> int:
        """How often it was taken out."""
        return sum(self.ejected_for.values())

    def checked(self, passed: bool, error: str = "") -> bool:
        """Count an active check; True when it changed whether the endpoint is out."""
        row = self._check_row
        self._check_row = max(row, 0) + 1 if passed else min(row, 0) - 1
        if not passed:
            self.last_error = error
        if self.checked_out and self._check_row >= self._check.healthy_after:
            self.checked_out = False
            self._ejected_until = 0.0
            return True
        if not self.checked_out and -self._check_row >= self._check.unhealthy_after:
            self.checked_out = True
            return True
        return False


def may_eject(healths: Sequence[Health], ejection: Ejection, now: float) -> bool:
    """Whether one more endpoint may be taken out."""
    out = sum(not health.available(now) for health in healths)
    if len(healths) < 2 or ejection.max_ejected_percent <= 0:
        return False
    return out == 0 or (out + 1) * 100 <= ejection.max_ejected_percent * len(healths)
