"""When to recycle a worker, when to kill it, and how long to wait before the next one. Decisions only, no effects."""

from __future__ import annotations

import enum

import msgspec

from flatwater.bounded import check_bound
from flatwater.errors import SettingError
from flatwater.memory.slope import Slope
from flatwater.quantity import measure, size

_MIB = 1 << 20
_LEAST = _MIB  # no worker is so small: a limit below is one whose unit was forgotten


Level = int | str | None
"""Bytes as a number or as people write them; None: no limit."""


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """The limits of one worker, in bytes and seconds; None switches a limit off.

    At ``soft`` the worker is asked for a warm stop and has ``grace_s`` to end its work. A level of ``hard`` that lasts
    ``patience_s`` ends it at once. With a sure slope the warm stop is asked ``ahead_s`` before ``hard`` would be
    reached. A worker that was born large is left alone until it has grown by ``min_gain`` of its first level.
    """

    soft: int | None = None
    hard: int | None = None
    grace_s: float = 600.0
    patience_s: float = 2.0
    ahead_s: float = 60.0
    min_gain: float = 0.1

    def __post_init__(self) -> None:
        for name in ("soft", "hard", "grace_s"):
            if (value := getattr(self, name)) is not None:
                check_bound(name, value, where="guard")
        if self.soft is not None and self.hard is not None and self.soft >= self.hard:
            raise SettingError(
                f"soft ({size(self.soft)}) is not below hard ({size(self.hard)})",
                where="guard",
                hint="leave room",
            )

    @classmethod
    def given(cls, soft: Level, hard: Level, grace_s: float) -> Limits:
        """The limits that a program gives: bytes, or text as in ``600MiB``. Raises SettingError, below 1 MiB too."""
        return cls(soft=_read("soft", soft), hard=_read("hard", hard), grace_s=grace_s)

    def within(self, room: int | None) -> Limits:
        """With what is missing taken from a control group's limit: soft at 80 % of ``room``, hard at 92 %."""
        if room is None:
            return self
        hard = self.hard if self.hard is not None else _below(room, 0.92, self.soft)
        soft = self.soft if self.soft is not None else int(min(0.8 * room, 0.87 * hard if hard else room))
        return msgspec.structs.replace(self, soft=soft, hard=hard)


def _read(name: str, given: Level) -> int | None:
    try:
        level = measure(given, "bytes")
    except ValueError as error:
        raise SettingError(f"{name} is {given!r}: {error}", where="guard") from None
    if level is not None and (not isinstance(level, int) or level < _LEAST):
        raise SettingError(f"{name} is {given!r}: no worker is so small", where="guard", hint='bytes, or "600MiB"')
    return level


def _below(room: int, part: float, soft: int | None) -> int | None:
    hard = int(room * part)
    return hard if soft is None or soft < hard else None


class Verdict(enum.Enum):
    """What to do with the worker now."""

    KEEP = "keep"
    RECYCLE = "recycle"
    KILL = "kill"


class Decision(msgspec.Struct, frozen=True):
    """A verdict and its reason in words: ``soft limit``, ``slope``, ``hard limit`` or ``grace passed``."""

    verdict: Verdict
    reason: str = ""


KEEP = Decision(Verdict.KEEP)


class Policy:
    """Judges one worker from its birth to its end, by its levels.

    Time is counted in steps of at most ``max_step_s`` between two judgements: a clock that jumps, or a machine that
    slept, uses up neither the grace nor the patience, and a clock that goes back counts as no time.
    """

    def __init__(self, limits: Limits, *, base: int, max_step_s: float = 5.0) -> None:
        check_bound("max_step_s", max_step_s, where="guard")
        self.limits = limits
        self.base = base
        self._max_step_s = max_step_s
        self._last: float | None = None
        self._said = False  # that it should be recycled
        self._asked_s: float | None = None  # counted time since the warm stop was asked for
        self._over_s: float | None = None  # counted time above the hard limit

    @property
    def asked(self) -> bool:
        """Whether the warm stop has been asked for."""
        return self._asked_s is not None

    def ask(self) -> None:
        """Note that the warm stop has been asked for, by whomever: the grace begins. Twice is allowed."""
        if self._asked_s is None:
            self._asked_s = 0.0

    def settle(self, level: int) -> None:
        """The worker is still starting: what it holds it was born with, up to halfway between the limits.

        Without a hard limit up to one and a half times the soft one.
        """
        soft = self.limits.soft or level
        most = (soft + (self.limits.hard or 2 * soft)) / 2 / (1 + self.limits.min_gain)
        self.base = max(self.base, min(level, int(most)))

    def judge(self, level: int, now: float, trend: Slope | None = None) -> Decision:
        """The decision at ``level`` bytes; RECYCLE is said once. ``now`` is any clock in seconds.

        The stop may have to wait for its turn: whoever asks for it calls ``ask``, and no grace runs before.
        """
        self._count(now)
        limits = self.limits
        if limits.hard is not None and level >= limits.hard:
            self._over_s = 0.0 if self._over_s is None else self._over_s
            if self._over_s >= limits.patience_s:
                return Decision(Verdict.KILL, "hard limit")
        else:
            self._over_s = None
        if self._asked_s is not None:
            return Decision(Verdict.KILL, "grace passed") if self._asked_s >= limits.grace_s else KEEP
        if not self._said and (reason := self._grown(level, trend)):
            self._said = True
            return Decision(Verdict.RECYCLE, reason)
        return KEEP

    def over(self, level: int) -> bool:
        """Whether the level asks for a recycling: above the soft limit, and above what the worker was born with."""
        soft = self.limits.soft
        return soft is not None and level >= soft and level >= self.base * (1 + self.limits.min_gain)

    def _count(self, now: float) -> None:
        step = 0.0 if self._last is None else min(max(now - self._last, 0.0), self._max_step_s)
        self._last = now
        if self._asked_s is not None:
            self._asked_s += step
        if self._over_s is not None:
            self._over_s += step

    def _grown(self, level: int, trend: Slope | None) -> str:
        limits = self.limits
        if self.over(level):
            return "soft limit"
        large = level >= self.base * (1 + limits.min_gain) and level >= (limits.soft or limits.hard or level) * 0.8
        if trend is not None and limits.hard is not None and large:
            left_s = trend.reaches(limits.hard, level)
            return "slope" if left_s is not None and left_s <= limits.ahead_s else ""
        return ""


class BackOff:
    """How long to wait before a worker is started again: at once after a healthy life, longer after each short one.

    A life below ``healthy_s`` that ended by itself is short; the wait doubles from ``first_s`` up to ``max_s``.
    """

    def __init__(self, *, first_s: float = 1.0, max_s: float = 300.0, healthy_s: float = 30.0) -> None:
        check_bound("first_s", first_s, where="back-off")
        check_bound("max_s", max_s, where="back-off")
        self._first_s, self._max_s, self._healthy_s = first_s, max_s, healthy_s
        self.short = 0

    def after(self, life_s: float, *, failed: bool) -> float:
        """Seconds to wait after a life of ``life_s``; a clean end (``failed`` false) after a healthy life waits not."""
        if life_s >= self._healthy_s or (not failed and life_s >= self._first_s):
            self.short = 0
            return 0.0 if not failed else self._first_s
        self.short += 1
        return min(self._first_s * 2.0 ** min(self.short - 1, 30), self._max_s)
