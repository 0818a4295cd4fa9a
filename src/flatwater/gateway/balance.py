"""Which endpoint gets the next request."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, TypeVar


class Candidate(Protocol):
    """``active`` requests run there; ``weight`` (≥ 1) says how many times as much as others it may get."""

    active: int
    weight: int


C = TypeVar("C", bound=Candidate)


class Balance(Protocol):
    def choose(self, candidates: Sequence[C]) -> C:
        """One of the candidates, of which there is at least one."""


class RoundRobin:
    """In turn; by weight and evenly spread: the smooth weighted round robin of nginx (commit 52327e0627f4, 2012)."""

    def __init__(self) -> None:
        self._next = 0
        self._scores: dict[int, int] = {}

    def choose(self, candidates: Sequence[C]) -> C:
        if all(candidate.weight == candidates[0].weight for candidate in candidates):
            self._next += 1
            return candidates[self._next % len(candidates)]
        total = 0
        scores = {}
        best = candidates[0]
        for candidate in candidates:
            total += candidate.weight
            scores[id(candidate)] = self._scores.get(id(candidate), 0) + candidate.weight
            if scores[id(candidate)] > scores[id(best)]:
                best = candidate
        scores[id(best)] -= total
        self._scores = scores  # what is no candidate any more is forgotten
        return best


class LeastRequests:
    """The one with the fewest active requests for its weight; among equals in turn."""

    def __init__(self) -> None:
        self._next = 0

    def choose(self, candidates: Sequence[C]) -> C:
        count = len(candidates)
        self._next = start = (self._next + 1) % count
        best = candidates[start]
        for index in range(start + 1, start + count):
            other = candidates[index % count]
            if other.active * best.weight < best.active * other.weight:
                best = other
        return best


BALANCES: dict[str, type[RoundRobin | LeastRequests]] = {
    "round_robin": RoundRobin,
    "least_requests": LeastRequests,
}
