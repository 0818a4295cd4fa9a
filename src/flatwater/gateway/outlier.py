"""Which endpoints of a service are worse than their peers: by the share of failures, by the time to their answers.

Nothing here reads a clock: :class:`flatwater.gateway.upstream.Upstream` gives what was counted over a window.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import exp, sqrt
from typing import NamedTuple

from flatwater.gateway.health import Ejection, Tally

_SURE = 4.0
"""By so many standard errors the means of logarithms must differ: where some requests take long by their nature, the
means of a few differ by chance."""
_TIMES_WORSE = 2.0
"""By so much the share of failures must be above that of the peers: what fails everywhere is no endpoint's fault."""


class Outlier(NamedTuple):
    """The ``place`` of an endpoint, ``kind`` ("failure_ratio" or "latency"), ``why`` in words, and how many times worse
    than the threshold it is."""

    place: int
    kind: str
    why: str
    badness: float


def outliers(seen: Sequence[Tally | None], rule: Ejection) -> list[Outlier]:
    """The endpoints that should be out, the worst one first. ``seen`` is what was counted of each in the window, None
    for those that are out. Without peers that had requests enough none is an outlier."""
    known = [tally for tally in seen if tally is not None]
    total = Tally(*(sum(column) for column in zip(*known, strict=True))) if known else Tally(0, 0, 0, 0.0, 0.0)
    found = []
    for place, tally in enumerate(seen):
        if tally is not None and tally.requests >= rule.min_requests:
            peers = total.since(tally)
            worse = _by_failures(place, tally, peers, rule) or _by_latency(place, tally, peers, rule)
            if worse is not None:
                found.append(worse)
    return sorted(found, key=lambda outlier: -outlier.badness)


def _by_failures(place: int, own: Tally, peers: Tally, rule: Ejection) -> Outlier | None:
    if not rule.failure_percent or peers.requests < rule.min_requests:
        return None
    percent = 100 * own.failures / own.requests
    common = 100 * peers.failures / peers.requests
    if percent < max(rule.failure_percent, _TIMES_WORSE * common):
        return None
    why = f"{percent:.0f} % of {own.requests} requests failed, {common:.0f} % of its peers'"
    return Outlier(place, "failure_ratio", why, percent / rule.failure_percent)


def _by_latency(place: int, own: Tally, peers: Tally, rule: Ejection) -> Outlier | None:
    if not rule.slow_factor or min(own.timed, peers.timed) < rule.min_requests:
        return None
    typical, usual = typical_s(own), typical_s(peers)
    if typical < max(rule.slow_s, rule.slow_factor * usual) or not _surely_apart(own, peers):
        return None
    why = f"it takes {typical:.3g} s to answer, its peers {usual:.3g} s"
    return Outlier(place, "latency", why, typical / (rule.slow_factor * usual))


def _surely_apart(own: Tally, peers: Tally) -> bool:
    error = sqrt(_variance(own) / own.timed + _variance(peers) / peers.timed)
    return own.log_s / own.timed - peers.log_s / peers.timed >= _SURE * error


def _variance(tally: Tally) -> float:
    """Of the logarithms; rounding must not make it negative."""
    return max(0.0, tally.log_s2 / tally.timed - (tally.log_s / tally.timed) ** 2)


def typical_s(tally: Tally) -> float:
    """The geometric mean of the times to an answer: a few slow requests among many do not move it."""
    return exp(tally.log_s / tally.timed)
