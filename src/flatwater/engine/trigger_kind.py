"""Kinds of triggers: the three of Flatwater, and those of users.

@trigger("tide")                                  # a clock: when next?
def tide(spec: str, after: float) -> float: ...

@trigger("mqtt")                                  # a source: what has come?
async def mqtt(spec: str) -> AsyncIterator[Occurrence]: ...
"""

from __future__ import annotations

import inspect
import math
from collections.abc import AsyncGenerator, Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, tzinfo
from typing import Any, Final, Literal, TypeVar
from zoneinfo import ZoneInfo

import msgspec

from flatwater.errors import FlatwaterError, InputError

MARK: Final = "__flatwater_trigger__"
MAX_KIND_CHARS: Final = 8
"""What the store keeps of a kind's name."""
MIN_INTERVAL_S = 0.1
MAX_INTERVAL_S = 366 * 86_400.0
MAX_AHEAD_S = 10 * 366 * 86_400.0

F = TypeVar("F", bound=Callable[..., Any])


class Occurrence(msgspec.Struct, frozen=True, kw_only=True):
    """What a source tells: the run's ``inputs`` beside those of the trigger, and a ``key`` that is this event's alone.

    An event told twice under one key (1 to 100 characters), by one server or by several, starts one run.
    """

    inputs: Mapping[str, Any] = {}
    key: str | None = None


@dataclass(frozen=True, slots=True)
class TriggerKind:
    """``clock(spec, after)`` says when a trigger fires next; a ``source(spec)`` tells each `Occurrence`.

    ``check(spec)`` raises for a spec that makes no sense; it is asked when a trigger is saved.
    """

    name: str
    description: str
    clock: Callable[[str, float], float | None] | None = None
    source: Callable[[str], AsyncGenerator[Any, None]] | None = None
    check: Callable[[str], Any] | None = None
    origin: str = ""

    @property
    def how(self) -> Literal["clock", "source", "event"]:
        return "clock" if self.clock is not None else "source" if self.source is not None else "event"

    def next_time(self, spec: str, after: float) -> float | None:
        """The first time after ``after`` at which it fires; None for what no clock fires. Raises `InputError`."""
        if self.clock is None:
            return None
        found = self._asked(self.clock, spec, after)
        if found is None:
            return None
        if isinstance(found, bool) or not isinstance(found, int | float) or not math.isfinite(found):
            raise InputError(f"{self.origin} gave {found!r}, which is no time", where="spec")
        if not after < found <= after + MAX_AHEAD_S:
            hint = f"a clock gives a time after the one it is given, at most {MAX_AHEAD_S:g} s later, or None"
            raise InputError(f"{self.origin} gave {found - after:+g} s from then", where="spec", hint=hint)
        return float(found)

    def checked(self, spec: str) -> None:
        """Raises `InputError` for a spec that ``check`` refuses."""
        if not spec:
            raise InputError(f"a trigger of kind {self.name} needs a spec", where="spec", hint=self.description)
        if self.check is not None:
            self._asked(self.check, spec)

    def _asked(self, ask: Callable[..., Any], *given: Any) -> Any:
        try:
            return ask(*given)
        except FlatwaterError:
            raise
        except Exception as error:  # whatever a user's function raises
            detail = f"{given[0]!r} is refused by {self.origin}: {type(error).__name__}: {error}"
            raise InputError(detail, where="spec", hint=self.description) from error


def trigger(name: str, *, check: Callable[[str], Any] | None = None, description: str = "") -> Callable[[F], F]:
    """Make a function a kind of triggers under ``name``, at most 8 characters.

    A plain function is a clock: ``(spec, after)`` in seconds since 1970 gives the next time, after ``after``, or None
    for never. It is asked on the event loop: it must be quick and pure. An async generator function is a source: it is
    given the spec and yields an `Occurrence`, or a dict of inputs, for each event; when it goes on after a ``yield``,
    the run is durable. ``check`` raises for a bad spec. Raises TypeError for anything else.
    """

    def declare(call: F) -> F:
        if not 1 <= len(name) <= MAX_KIND_CHARS or not name.isidentifier():
            raise TypeError(f"{name!r} cannot be a kind of triggers: 1 to {MAX_KIND_CHARS} letters, digits and _")
        is_source = inspect.isasyncgenfunction(call)
        if inspect.iscoroutinefunction(call) or inspect.isgeneratorfunction(call):
            raise TypeError(f"trigger {name} must be a plain function (a clock) or an async generator (a source)")
        given = ("spec",) if is_source else ("spec", 0.0)
        try:
            inspect.signature(call).bind(*given)
        except TypeError:
            form = "(spec)" if is_source else "(spec, after)"
            raise TypeError(f"trigger {name} must take {form}") from None
        kind = TriggerKind(
            name=name,
            description=description or (inspect.getdoc(call) or "").split("\n")[0],
            clock=None if is_source else call,
            source=call if is_source else None,
            check=check,
            origin=f"{call.__module__}.{call.__qualname__}",
        )
        setattr(call, MARK, kind)
        return call

    return declare


def trigger_of(item: Any) -> TriggerKind | None:
    """The kind that hangs on ``item``."""
    found = getattr(item, MARK, None)
    return found if isinstance(found, TriggerKind) else None


# ---- built in ---------------------------------------------------------------------------------------


def _interval(spec: str, after: float) -> float:
    try:
        seconds = float(spec)
    except ValueError:
        seconds = float("nan")
    if not MIN_INTERVAL_S <= seconds <= MAX_INTERVAL_S:
        raise InputError(
            f"{spec!r} is no interval", where="spec", hint=f"seconds from {MIN_INTERVAL_S} to {MAX_INTERVAL_S:g}"
        )
    return after + seconds


def _cron(spec: str, after: float) -> float:
    from cronsim import CronSim, CronSimError

    fields = spec.split()
    zone: tzinfo = UTC
    if fields and fields[-1][:1].isalpha() and ("/" in fields[-1] or fields[-1] == "UTC"):
        try:
            zone = ZoneInfo(fields.pop())
        except (KeyError, ValueError, OSError):
            raise InputError(f"{spec!r} names no known time zone", where="spec") from None
    try:
        return next(CronSim(" ".join(fields), datetime.fromtimestamp(after, zone))).timestamp()
    except (CronSimError, StopIteration) as error:
        raise InputError(
            f"{spec!r} is no cron line: {error}", where="spec", hint="minute hour day month weekday"
        ) from None


TRIGGERS: Final[dict[str, TriggerKind]] = {
    kind.name: kind
    for kind in (
        TriggerKind("interval", "Each so many seconds.", clock=_interval),
        TriggerKind("cron", "A cron line of five or six fields, UTC unless a time zone follows.", clock=_cron),
        TriggerKind("event", "The name of an event that is published."),
    )
}

__all__ = ["MARK", "TRIGGERS", "Occurrence", "TriggerKind", "trigger", "trigger_of"]
