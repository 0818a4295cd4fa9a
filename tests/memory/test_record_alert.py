"""Alert rules: understood or refused with the place, decided by a pure function, delivered or dropped with a count."""

from __future__ import annotations

import json
import logging
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flatwater.memory.alert import AlertEvent, Alerts, Observation, Rule, RuleError, State, decide, parse
from flatwater.memory.alert_delivery import Delivery, SinkError, sink

MIB = 1024**2


@pytest.mark.parametrize(
    ("text", "kind", "threshold", "for_s"),
    [
        ("rss > 600MiB", "level", 600 * MIB, 0),
        ("pss>1.5 GiB for 30s", "level", 1.5 * 1024 * MIB, 30),
        ("rss slope > 1MiB/min for 10m", "slope", MIB / 60, 600),
        ("uss growth > 1 MiB/h", "slope", MIB / 3600, 0),
        ("time to limit < 1h", "reach", 3600, 0),
        ("total rss > 80%", "percent", 80, 0),
        ("cpu > 90% for 1m", "level", 90, 60),
        ("fds > 1000", "level", 1000, 0),
        ("oom_kill", "oom_kill", 0, 0),
    ],
)
def test_rules(text: str, kind: str, threshold: float, for_s: float) -> None:
    rule = parse(text)
    assert (rule.text, rule.kind, rule.for_s) == (text, kind, for_s)
    assert rule.threshold == pytest.approx(threshold)
    assert parse(f"{text} cooldown 1h").cooldown_s == 3600


@pytest.mark.parametrize(
    ("text", "position", "what"),
    [
        ("", 1, "a figure is missing"),
        ("rs > 1", 3, "no figure rs"),
        ("rss >", 6, "number with a unit"),
        ("rss 600MiB", 5, "< or >"),
        ("rss > 5 apples", 15, "no unit apples"),
        ("rss slope > 1MiB", 17, "per time"),
        ("rss slope > 1MiB/fortnight", 27, "no unit of time"),
        ("rss > 1MiB four 3", 16, "not understood"),
        ("rss > 1MiB for ever", 15, "a duration"),
        ("time to fly < 3", 12, "no figure time"),
    ],
)
def test_what_is_not_understood_is_shown_where(text: str, position: int, what: str) -> None:
    with pytest.raises(RuleError, match=what) as caught:
        parse(text)
    assert caught.value.where.startswith(f"position {position} ")


def run(rule: Rule, values: list[float], step_s: float = 1.0) -> list[tuple[float, str]]:
    state, told = State(), []
    for number, value in enumerate(values):
        state, event = decide(rule, state, number * step_s, value)
        if event is not None:
            told.append((number * step_s, event))
    return told


LEVEL = Rule(text="", kind="level", figure="rss", threshold=100, for_s=3, cooldown_s=20, hysteresis=0.1)
VALUES = st.lists(st.floats(0, 200, allow_nan=False), max_size=150)


@given(VALUES)
def test_raised_and_cleared_take_turns(values: list[float]) -> None:
    kinds = [kind for _, kind in run(LEVEL, values)]
    assert kinds == (["raised", "cleared"] * len(kinds))[: len(kinds)]


@given(VALUES)
def test_raised_only_after_the_whole_time_above_and_not_within_the_cooldown(values: list[float]) -> None:
    raised = [int(at) for at, kind in run(LEVEL, values) if kind == "raised"]
    assert all(min(values[at - 3 : at + 1]) > 100 for at in raised)
    assert all(later - earlier >= 20 for earlier, later in pairwise(raised))


@given(VALUES)
def test_cleared_only_beyond_the_hysteresis(values: list[float]) -> None:
    assert all(values[int(at)] <= 90 for at, kind in run(LEVEL, values) if kind == "cleared")


@given(st.lists(st.floats(90.01, 200), max_size=100), st.integers(0, 30))
def test_a_wobble_within_the_band_is_told_once(wobble: list[float], extra: int) -> None:
    assert [kind for _, kind in run(LEVEL, [150.0] * 4 + wobble + [150.0] * extra)] == ["raised"]


def test_a_breach_that_outlasts_the_cooldown_is_told_after_it() -> None:
    assert run(LEVEL, [150] * 4 + [0] + [150] * 30) == [(3, "raised"), (4, "cleared"), (23, "raised")]


def observe(alerts: Alerts, at: float, rss: float, limit: float | None = None, source: str = "1") -> list[AlertEvent]:
    return alerts.observe([Observation(source=source, label="app 1", at=at, values={"rss": rss}, limit=limit)])


def test_a_slope_is_told_when_the_window_is_covered_and_it_grows_for_sure() -> None:
    alerts = Alerts([parse("rss slope > 1MiB/min for 2m")])
    events = [event for at in range(300) for event in observe(alerts, at, 100 * MIB + at * MIB / 30)]
    assert [event.kind for event in events] == ["raised"]
    assert 108 <= events[0].at <= 125
    assert events[0].message == "app 1: rss changes by +2 MiB/min (rss slope > 1MiB/min for 2m)"
    flat = [event for at in range(300, 700) for event in observe(alerts, at, 110 * MIB)]
    assert [event.kind for event in flat] == ["cleared"]


def test_a_flat_figure_and_a_slow_slope_are_not_told() -> None:
    alerts = Alerts([parse("rss slope > 1MiB/min for 1m")])
    assert not [event for at in range(300) for event in observe(alerts, at, 100 * MIB + at * MIB / 120)]


def test_time_to_the_limit() -> None:
    alerts = Alerts([parse("time to limit < 5m for 1m")])
    events = [event for at in range(400) for event in observe(alerts, at, at * MIB, 600 * MIB)]
    assert [event.kind for event in events] == ["raised"]
    assert 295 <= events[0].at <= 305
    assert not [event for at in range(400) for event in observe(alerts, at, at * MIB, None, "2")]


def test_percent_of_the_limit_and_the_total() -> None:
    alerts = Alerts([parse("rss > 50%"), parse("total rss > 150")])
    batch = [
        Observation(source=str(number), label=f"app {number}", at=0, values={"rss": rss}, limit=160)
        for number, rss in enumerate((90, 70))
    ]
    assert [event.message.partition(" (")[0] for event in alerts.observe(batch)] == [
        "app 0: rss is 56 % of the limit",
        "2 processes: rss is 160 B",
    ]


def test_every_kill_for_memory_is_told_and_none_that_was_before() -> None:
    alerts = Alerts([parse("oom_kill cooldown 0s")])
    kills = [7, 7, 8, 8, 10]
    events = [
        alerts.observe([Observation(source="group /a", label="/a", at=at, values={"oom_kills": count})])
        for at, count in enumerate(kills)
    ]
    assert [len(found) for found in events] == [0, 0, 1, 0, 1]
    assert events[4][0].message == "/a: the kernel killed 2 processes for memory"
    assert alerts.statistics().raised == 2


def test_states_are_bounded() -> None:
    alerts = Alerts([parse("rss > 1")], max_states=10)
    for number in range(100):
        observe(alerts, number, 5, source=str(number))
    found = alerts.statistics()
    assert (found.size, found.bound, found.evictions, found.raised) == (10, 10, 90, 100)
    alerts.forget("99")
    assert alerts.statistics().size == 9


EVENT = AlertEvent(
    rule="rss > 1", kind="raised", source="1", label="app 1", at=0, value=5.0, threshold=1, message="app 1: rss is 5 B"
)


@pytest.mark.parametrize("text", ["mail:me", "exec:", "exec:'open", "webhook:ftp://x", "log:x", ""])
def test_places_that_do_not_exist(text: str) -> None:
    with pytest.raises(SinkError):
        sink(text)


class Hook(ThreadingHTTPServer):
    """Answers with each status of ``answers`` in turn and keeps what it was sent."""

    def __init__(self, answers: list[int]) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.answers, self.got = answers, list[Any]()


class _Handler(BaseHTTPRequestHandler):
    server: Hook

    def do_POST(self) -> None:
        self.server.got.append(json.loads(self.rfile.read(int(self.headers["content-length"]))))
        self.send_response(self.server.answers.pop(0))
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def hook(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hook]:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    server = Hook(list(request.param))
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def url(hook: Hook) -> str:
    return f"webhook:http://127.0.0.1:{hook.server_address[1]}/alert"


@pytest.mark.parametrize("hook", [[503, 200]], indirect=True)
def test_a_webhook_that_is_down_for_a_moment_gets_the_alert(hook: Hook) -> None:
    with Delivery([sink(url(hook), max_pause_s=0.01)]) as delivery:
        delivery.send(EVENT, wall=1_700_000_000)
    assert [alert["message"] for alert in hook.got] == ["app 1: rss is 5 B"] * 2
    assert (hook.got[0]["at"], hook.got[0]["value"]) == ("2023-11-14T22:13:20Z", 5.0)
    assert delivery.statistics().delivered == 1


@pytest.mark.parametrize("hook", [[404]], indirect=True)
def test_a_webhook_that_refuses_is_not_asked_again(hook: Hook, caplog: pytest.LogCaptureFixture) -> None:
    with Delivery([sink(url(hook))]) as delivery:
        delivery.send(EVENT)
    assert len(hook.got) == delivery.statistics().failed == 1
    assert "status 404" in caplog.text


def test_a_command_gets_the_alert_without_a_shell(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    out = tmp_path / "out"
    written = "os.environ['FLATWATER_ALERT_LABEL'] + sys.stdin.read() + sys.argv[2]"
    program = f"import os, sys; open(sys.argv[1], 'w').write({written})"
    with Delivery([sink(f'exec:{sys.executable} -c "{program}" {out} $HOME'), sink("log")]) as delivery:
        delivery.send(EVENT)
    text = out.read_text()
    assert text.startswith("app 1{")
    assert text.endswith("}$HOME")
    assert "alert: app 1: rss is 5 B" in caplog.text


def test_a_command_that_fails_or_hangs_is_reported(caplog: pytest.LogCaptureFixture) -> None:
    sinks = [sink("exec:/nonexistent"), sink("exec:false"), sink("exec:sleep 60", timeout_s=0.1)]
    with caplog.at_level(logging.WARNING), Delivery(sinks) as delivery:
        delivery.send(EVENT)
    assert delivery.statistics().failed == 3
    assert "No such file" in caplog.text
    assert "exit status 1" in caplog.text
    assert "killed after 0.1 s" in caplog.text


def test_too_many_alerts_are_dropped_and_counted() -> None:
    gate, entered = threading.Event(), threading.Event()

    def slow(alert: dict[str, Any]) -> None:
        entered.set()
        gate.wait(30)

    with Delivery([slow], max_pending=3) as delivery:
        delivery.send(EVENT)
        entered.wait(30)
        for _ in range(5):
            delivery.send(EVENT)
        assert (delivery.statistics().size, delivery.statistics().evictions) == (3, 2)
        gate.set()
    delivery.close()
    assert delivery.statistics().delivered == 4
