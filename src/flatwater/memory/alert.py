"""Rules on memory figures, and the decision whether one is broken. Nothing here reads a clock or sends anything.

=========================================  ==========================================================
``rss > 600MiB``                           level; ``for 30s`` wants it that long without a pause
``total rss > 80%``                        of all observed together; percent of the limit
``rss slope > 1MiB/min for 10m``           growth over the last ten minutes (10 m unless said)
``time to limit < 1h``                     at the slope of the last ten minutes
``oom_kill``                               the kernel killed a process of the control group
=========================================  ==========================================================

Figures: rss, pss, uss, swap, vms (bytes); cpu (percent of one), threads, fds. ``cooldown 5m`` may follow any rule.
"""

from __future__ import annotations

import math
import re
from collections import OrderedDict, deque
from collections.abc import Iterable, Mapping, Sequence
from typing import Final, Literal

import msgspec

from flatwater.bounded.ledger import Usage
from flatwater.errors import InputError
from flatwater.memory.slope import Slope, slope
from flatwater.quantity import DURATIONS, SIZES, duration, rate, size

_SIZED: Final = ("rss", "pss", "uss", "swap", "vms")
_COUNTED: Final = ("cpu", "threads", "fds")
FIGURES: Final = _SIZED + _COUNTED
WINDOW_S: Final = 600.0
TOTAL: Final = "total"

_WORD: Final = re.compile(r"\s*(?P<number>\d+(?:\.\d+)?)|\s*(?P<word>[A-Za-z_]+)|\s*(?P<sign>[<>]=?|/|%)")


class RuleError(InputError, code="rule"):
    """The alert rule is not understood."""


class Observation(msgspec.Struct, frozen=True, kw_only=True):
    """Figures of one source (a process) at ``at`` (seconds of a clock that never jumps). ``limit``: bytes it may use.

    ``values`` by the names of `FIGURES`; a control group is a source of its own whose one value is ``oom_kills``.
    """

    source: str
    label: str
    at: float
    values: Mapping[str, float]
    limit: float | None = None


class Rule(msgspec.Struct, frozen=True, kw_only=True):
    """A parsed rule. ``threshold`` in bytes, bytes per second, seconds, percent or a count, as ``kind`` says.

    ``hysteresis``: the share of the threshold that a value must go back beyond it before the rule counts as kept again.
    """

    text: str
    kind: Literal["level", "percent", "slope", "reach", "oom_kill"]
    figure: str
    above: bool = True
    threshold: float = 0.0
    for_s: float = 0.0
    total: bool = False
    cooldown_s: float = 300.0
    hysteresis: float = 0.05

    @property
    def window_s(self) -> float:
        """Over how long a slope is measured."""
        return self.for_s or WINDOW_S


class AlertEvent(msgspec.Struct, frozen=True, kw_only=True):
    """A rule began to be broken (``raised``) or is kept again (``cleared``)."""

    rule: str
    kind: Literal["raised", "cleared"]
    source: str
    label: str
    at: float
    value: float | None
    threshold: float
    message: str


class State(msgspec.Struct, frozen=True):
    """What the decision remembers of a rule and a source: since when it is broken, whether that was told, when last."""

    since: float | None = None
    raised: bool = False
    last_raised: float | None = None


def parse(text: str, *, cooldown_s: float = 300.0, hysteresis: float = 0.05, counts: Sequence[str] = ()) -> Rule:
    """``counts``: more figures that may be named, which have no unit. Raises `RuleError` that names the position."""
    return _Parser(text, cooldown_s, hysteresis, tuple(counts)).rule()


def decide(rule: Rule, state: State, at: float, value: float) -> tuple[State, Literal["raised", "cleared"] | None]:
    """The next state, and what is to be told. Pure.

    A broken rule is told once it has been broken for ``for_s``, not again before it was kept (by the hysteresis), and
    not within ``cooldown_s`` of the last time. Slopes have their time in the window that they are measured over.
    """
    if math.isnan(value):
        return state, None
    broken = value > rule.threshold if rule.above else value < rule.threshold
    if state.raised:
        margin = rule.hysteresis * abs(rule.threshold)
        kept = value <= rule.threshold - margin if rule.above else value >= rule.threshold + margin
        return (State(None, False, state.last_raised), "cleared") if kept else (state, None)
    if not broken:
        return State(None, False, state.last_raised), None
    since = at if state.since is None else state.since
    cool = state.last_raised is None or at - state.last_raised >= rule.cooldown_s
    if cool and at - since >= (rule.for_s if rule.kind in ("level", "percent") else 0.0):
        return State(since, True, at), "raised"
    return State(since, False, state.last_raised), None


class AlertStatistics(Usage, frozen=True, kw_only=True):
    """``size`` states of rules and sources, of ``bound``; the least recently seen leave. Counts of events."""

    rules: int
    observed: int
    raised: int
    cleared: int
    active: int


class Alerts:
    """The rules over a stream of observations: give it each batch, it gives back what is to be told.

    Holds ``max_states`` (rule, source) pairs and ``max_points`` means of each window.
    """

    kind = "alerts"

    def __init__(
        self, rules: Sequence[Rule], *, max_states: int = 5000, max_points: int = 120, name: str = "alerts"
    ) -> None:
        self.name = name
        self._rules = tuple(rules)
        self._max_states = max_states
        self._max_points = max_points
        self._states: OrderedDict[tuple[int, str], _Track] = OrderedDict()
        self._observed = self._raised = self._cleared = self._evictions = 0

    def observe(self, observations: Iterable[Observation]) -> list[AlertEvent]:
        """Decide on one batch: what was seen at one time."""
        batch = list(observations)
        self._observed += len(batch)
        total = _total(batch) if any(rule.total for rule in self._rules) else []
        events = []
        for number, rule in enumerate(self._rules):
            for observation in total if rule.total else batch:
                event = self._one(number, rule, observation)
                if event is not None:
                    events.append(event)
        return events

    def forget(self, source: str) -> None:
        """The source is gone: its states go, too."""
        for number in range(len(self._rules)):
            self._states.pop((number, source), None)

    def active(self) -> list[tuple[str, str]]:
        """(rule, source) of the rules broken and told now."""
        return [(self._rules[number].text, source) for (number, source), track in self._states.items() if track.raised]

    def statistics(self) -> AlertStatistics:
        return AlertStatistics(
            size=len(self._states),
            bound=self._max_states,
            evictions=self._evictions,
            rules=len(self._rules),
            observed=self._observed,
            raised=self._raised,
            cleared=self._cleared,
            active=len(self.active()),
        )

    def _one(self, number: int, rule: Rule, observation: Observation) -> AlertEvent | None:
        key = number, observation.source
        track = self._states.get(key)
        if track is None:
            track = self._states[key] = _Track(rule, self._max_points)
            if len(self._states) > self._max_states:
                self._states.popitem(last=False)
                self._evictions += 1
        self._states.move_to_end(key)
        value = track.measure(observation)
        if value is None:
            return None
        before = track.state.raised
        track.state, told = decide(rule, track.state, observation.at, value)
        if told is None:
            return None
        if rule.kind == "oom_kill":
            track.state = State(None, False, track.state.last_raised)  # a kill is over when it is told
            if before:
                return None
        self._raised += told == "raised"
        self._cleared += told == "cleared"
        return _event(rule, told, observation, value)


class _Track:
    """The state of one rule for one source, and the window that its slope is measured over."""

    def __init__(self, rule: Rule, max_points: int) -> None:
        self.rule = rule
        self.state = State()
        self._width = rule.window_s / max_points
        self._means: deque[list[float]] = deque(maxlen=max_points + 1)  # [sum of times, sum of values, count, bucket]
        self._slope: Slope | None = None
        self._kills: float | None = None

    @property
    def raised(self) -> bool:
        return self.state.raised

    def measure(self, observation: Observation) -> float | None:
        """What the rule's threshold is compared with; None while there is nothing to compare."""
        rule, values = self.rule, observation.values
        if rule.kind == "oom_kill":
            return self._new_kills(values.get("oom_kills"))
        value = values.get(rule.figure)
        if value is None:
            return None
        if rule.kind == "level":
            return value
        if rule.kind == "percent":
            return 100 * value / observation.limit if observation.limit else None
        found = self._fit(observation.at, value)
        if found is None:
            return None
        if rule.kind == "slope":
            return found.per_s if found.grows or not rule.above or self.raised else min(found.per_s, rule.threshold)
        if observation.limit is None:
            return None
        reach = found.reaches(observation.limit, value)
        return math.inf if reach is None else reach

    def _new_kills(self, kills: float | None) -> float | None:
        if kills is None:
            return None
        before, self._kills = self._kills, kills
        return max(0.0, kills - before) if before is not None else None

    def _fit(self, at: float, value: float) -> Slope | None:
        """The slope over the window, measured again once a bucket; None until nine tenths of the window are covered."""
        bucket = math.floor(at / self._width)
        if self._means and self._means[-1][3] == bucket:
            last = self._means[-1]
            last[0], last[1], last[2] = last[0] + at, last[1] + value, last[2] + 1
            return self._slope
        self._means.append([at, value, 1, bucket])
        while self._means[0][3] < bucket - self.rule.window_s / self._width:
            self._means.popleft()
        points = [(times / count, sums / count) for times, sums, count, _ in self._means]
        covered = points[-1][0] - points[0][0] >= 0.9 * self.rule.window_s
        self._slope = slope(points) if covered else None
        return self._slope


def _total(batch: Sequence[Observation]) -> list[Observation]:
    batch = [observation for observation in batch if "rss" in observation.values]  # not those of groups
    if not batch:
        return []
    values: dict[str, float] = {}
    for observation in batch:
        for name, value in observation.values.items():
            values[name] = values.get(name, 0) + value
    limits = [observation.limit for observation in batch if observation.limit is not None]
    label = f"{len(batch)} processes"
    return [Observation(source=TOTAL, label=label, at=batch[0].at, values=values, limit=min(limits, default=None))]


def _event(rule: Rule, told: Literal["raised", "cleared"], observation: Observation, value: float) -> AlertEvent:
    shown = _shown(rule, value)
    words = {
        "level": f"{rule.figure} is {shown}",
        "percent": f"{rule.figure} is {shown} of the limit",
        "slope": f"{rule.figure} changes by {shown}",
        "reach": f"{rule.figure} reaches the limit in {shown}",
        "oom_kill": f"the kernel killed {shown} for memory",
    }[rule.kind]
    verdict = "" if rule.kind == "oom_kill" else f" ({rule.text})" if told == "raised" else f" (over: {rule.text})"
    return AlertEvent(
        rule=rule.text,
        kind=told,
        source=observation.source,
        label=observation.label,
        at=observation.at,
        value=value if math.isfinite(value) else None,
        threshold=rule.threshold,
        message=f"{observation.label}: {words}{verdict}",
    )


def _shown(rule: Rule, value: float) -> str:
    if rule.kind == "reach":
        return "no time known" if math.isinf(value) else duration(value)
    if rule.kind == "percent":
        return f"{value:.0f} %"
    if rule.kind == "oom_kill":
        return f"{value:.0f} process{'' if value == 1 else 'es'}"
    if rule.figure not in _SIZED:
        return f"{value:.4g}{' %' if rule.figure == 'cpu' else ''}{'/s' if rule.kind == 'slope' else ''}"
    return rate(value) if rule.kind == "slope" else size(value)


class _Parser:
    def __init__(self, text: str, cooldown_s: float, hysteresis: float, counts: tuple[str, ...]) -> None:
        self._text = text.strip()
        self._counted = _COUNTED + counts
        self._cooldown_s = cooldown_s
        self._hysteresis = hysteresis
        self._at = 0

    def rule(self) -> Rule:
        found = self._condition()
        fields = {"for_s": 0.0, "cooldown_s": self._cooldown_s}
        while self._at < len(self._text):
            word = self._word("for DURATION or cooldown DURATION")
            if word not in ("for", "cooldown"):
                raise self._refused(f"{word} is not understood; for DURATION or cooldown DURATION may follow")
            fields[f"{word}_s"] = self._measure(DURATIONS, "a duration, as 10m")
        return msgspec.structs.replace(found, text=self._text, hysteresis=self._hysteresis, **fields)

    def _condition(self) -> Rule:
        word = self._word("a figure")
        if word in ("oom_kill", "oom"):
            return Rule(text="", kind="oom_kill", figure="oom_kills")
        total = word == TOTAL
        if total:
            word = self._word("a figure")
        if word == "time" and self._word("to limit") == "to" and self._word("limit") == "limit":
            self._sign("<")
            threshold = self._measure(DURATIONS, "a duration, as 1h")
            return Rule(text="", kind="reach", figure="rss", above=False, threshold=threshold, total=total)
        if word not in (known := _SIZED + self._counted):
            raise self._refused(f"no figure {word}; there are {', '.join(known)}, time to limit and oom_kill")
        return self._compared(word, total)

    def _compared(self, figure: str, total: bool) -> Rule:
        kind: Literal["level", "percent", "slope"] = "level"
        if re.match(r"\s*(slope|growth)\b", self._text[self._at :]):
            self._word("slope")
            kind = "slope"
        above = self._sign("< or >") == ">"
        units = {"": 1, "%": 1} if figure in self._counted else {**SIZES, "%": 1}
        amount, unit = self._amount(units, "a number with a unit, as 600MiB")
        if kind == "slope":
            amount /= self._per()
        elif unit == "%" and figure != "cpu":
            kind = "percent"
        return Rule(text="", kind=kind, figure=figure, above=above, threshold=amount, total=total)

    def _per(self) -> float:
        if self._text[self._at :].lstrip()[:1] != "/":
            raise self._refused("a slope is per time: 1MiB/min")
        self._match("/")
        word = self._word("s, min, h or d")
        if word not in DURATIONS or word == "ms":
            raise self._refused(f"no unit of time {word}; there are s, min, h, d")
        return DURATIONS[word]

    def _measure(self, units: Mapping[str, float], wanted: str) -> float:
        return self._amount(units, wanted)[0]

    def _amount(self, units: Mapping[str, float], wanted: str) -> tuple[float, str]:
        match = re.compile(r"\s*(\d+(?:\.\d+)?)\s*(%|[A-Za-z]*)").match(self._text, self._at)
        if match is None:
            raise self._refused(f"{wanted} is missing")
        unit = match[2].lower()
        if unit in ("for", "cooldown"):
            unit = ""
            self._at = match.end(1)
        else:
            self._at = match.end()
        if unit not in units:
            raise self._refused(f"no unit {match[2]}; there are {', '.join(name for name in units if name)}")
        return float(match[1]) * units[unit], unit

    def _sign(self, wanted: str) -> str:
        before = self._at
        match = self._match(wanted)
        if match["sign"] is None or match["sign"][0] not in wanted:
            self._at = before + 1
            raise self._refused(f"{wanted} is missing")
        return match["sign"][0]

    def _word(self, wanted: str) -> str:
        match = self._match(wanted)
        if match["word"] is None:
            raise self._refused(f"{wanted} is missing")
        return match["word"].lower()

    def _match(self, wanted: str) -> re.Match[str]:
        match = _WORD.match(self._text, self._at)
        if match is None:
            raise self._refused(f"{wanted} is missing")
        self._at = match.end()
        return match

    def _refused(self, message: str) -> RuleError:
        hint = "for example rss > 600MiB, rss slope > 1MiB/min for 10m, time to limit < 1h, oom_kill"
        return RuleError(message, where=f"position {min(self._at, len(self._text)) + 1} of {self._text!r}", hint=hint)
