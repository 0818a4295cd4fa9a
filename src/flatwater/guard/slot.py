"""A place for one worker, and how soon its workers may be recycled when each is born too large. Decisions only."""

from __future__ import annotations

from flatwater.guard.instance import Instance
from flatwater.guard.policy import BackOff, Limits

_MAX_HOLD_S = 300.0


class Slot:
    """The worker that runs there, those that leave, and when the next may start.

    A worker that has to be recycled in its first ``settle_s`` was born large, so those after it are left to settle
    first. Where that does not help, each is left alone for twice as long as the one before it, at most five minutes,
    as long as its level leaves a tenth of the room between the limits (without a hard limit: stays below twice the soft
    one). Above that it is recycled at once, but not sooner than the back-off of a crash loop allows.
    """

    def __init__(self, number: int, back_off: BackOff, *, settle_s: float) -> None:
        self.number = number
        self.back_off = back_off
        self.current: Instance | None = None
        self.leaving: list[Instance] = []
        self.next = 0.0
        self.empty_since: float | None = None
        self._settle_s = settle_s
        self._hurries = 0  # in a row

    @property
    def settle_s(self) -> float:
        """How long the next worker may settle."""
        return self._settle_s if self._hurries else 0.0

    @property
    def hold_s(self) -> float:
        """How old a worker must be before it is recycled; 0 until two in a row were born too large."""
        return min(self._settle_s * 2.0 ** (self._hurries - 1), _MAX_HOLD_S) if self._hurries >= 2 else 0.0

    def instances(self) -> list[Instance]:
        return [*([self.current] if self.current else []), *self.leaving]

    def held(self, level: int, age_s: float, limits: Limits) -> bool:
        """Whether a worker that should be recycled is left alone for now."""
        soft = limits.soft or 0
        most = soft + 0.9 * (limits.hard - soft) if limits.hard is not None else 2 * soft
        return age_s < self.hold_s and level < most

    def recycled(self, instance: Instance, now: float) -> None:
        """It is going to be recycled."""
        age_s = now - instance.born
        if age_s > max(self._settle_s, 1.5 * self.hold_s):
            self._hurries = min(self._hurries, 1)
            return
        self._hurries += 1
        if self._hurries >= 2:
            instance.hasty = True
            self.next = max(self.next, now + self.back_off.after(0.0, failed=True))

    def ended(self, instance: Instance, now: float, *, failed: bool) -> None:
        """The worker of this place is gone."""
        self.current = None
        self.empty_since = now
        if failed or not instance.hasty:
            self.next = max(self.next, now + self.back_off.after(now - instance.born, failed=failed))
