"""The decisions, with a clock that the tests move: balance, health, breaker, retry, rate, routes."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from math import exp, log
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from flatwater.bounded import Ledger
from flatwater.gateway.balance import LeastRequests, RoundRobin
from flatwater.gateway.breaker import Breaker
from flatwater.gateway.error import BreakerError, ConnectError, ResetError, RouteError, StaleError
from flatwater.gateway.health import Check, Ejection, Health, Tally, may_eject
from flatwater.gateway.outlier import outliers
from flatwater.gateway.rate import Bucket, Rate, RateRule
from flatwater.gateway.retry import RetryBudget, RetryRule, immediate, pause_s, repeatable
from flatwater.gateway.route import Routes


@dataclass
class Place:
    name: int
    weight: int = 1
    active: int = 0


@given(st.lists(st.integers(1, 5), min_size=1, max_size=5))
def test_round_robin_is_fair_by_weight(weights: list[int]) -> None:
    places = [Place(index, weight) for index, weight in enumerate(weights)]
    balance = RoundRobin()
    chosen = Counter(balance.choose(places).name for _ in range(20 * sum(weights)))
    same = len(set(weights)) == 1
    for place in places:
        share = 20 * sum(weights) // len(weights) if same else 20 * place.weight
        assert abs(chosen[place.name] - share) <= 1


@given(st.lists(st.tuples(st.integers(1, 4), st.integers(0, 50)), min_size=1, max_size=6))
def test_least_requests_chooses_the_least_loaded(given: list[tuple[int, int]]) -> None:
    places = [Place(index, weight, active) for index, (weight, active) in enumerate(given)]
    found = LeastRequests().choose(places)
    assert found.active / found.weight == min(place.active / place.weight for place in places)


def test_least_requests_takes_equals_in_turn() -> None:
    balance = LeastRequests()
    places = [Place(index) for index in range(3)]
    assert Counter(balance.choose(places).name for _ in range(30)) == {0: 10, 1: 10, 2: 10}


class HealthMachine(RuleBasedStateMachine):
    """Three endpoints of a service, as Upstream drives them."""

    ejection = Ejection(failures=3, eject_s=10.0, max_eject_s=40.0, max_ejected_percent=50.0)

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.healths = [Health(self.ejection, Check(unhealthy_after=2, healthy_after=2)) for _ in range(3)]

    @rule(index=st.integers(0, 2))
    def succeed(self, index: int) -> None:
        self.healths[index].succeeded()
        assert self.healths[index].failures_in_row == 0

    @rule(index=st.integers(0, 2), times=st.integers(1, 4))
    def fail(self, index: int, times: int) -> None:
        for _ in range(times):
            health = self.healths[index]
            if health.failed("x") and health.available(self.now) and may_eject(self.healths, self.ejection, self.now):
                for_s = health.eject(self.now)
                assert 10.0 <= for_s <= 40.0
                assert not health.available(self.now)
                assert health.available(self.now + for_s)

    @rule(index=st.integers(0, 2), passed=st.booleans())
    def check(self, index: int, passed: bool) -> None:
        health = self.healths[index]
        before = health.checked_out
        assert health.checked(passed, "" if passed else "no") == (before != health.checked_out)

    @rule(seconds=st.floats(0.1, 100))
    def wait(self, seconds: float) -> None:
        self.now += seconds

    @invariant()
    def ejections_leave_somebody(self) -> None:
        ejected = sum(health.ejected(self.now) for health in self.healths)
        assert ejected <= 1


TestHealth = HealthMachine.TestCase


def test_ejection_grows_and_is_forgiven() -> None:
    health = Health(Ejection(eject_s=10.0, max_eject_s=80.0), Check())
    times, now = [], 0.0
    for _ in range(5):
        times.append(health.eject(now))
        now += times[-1]
    assert times == [10, 20, 40, 80, 80]
    assert health.eject(now + 10 * 80.0) == 10


def test_breaker_counts_up_to_its_limits() -> None:
    breaker = Breaker(max_requests=2, max_retries=1)
    breaker.enter()
    breaker.enter()
    with pytest.raises(BreakerError):
        breaker.enter()
    assert breaker.enter_retry()
    assert not breaker.enter_retry()
    breaker.leave()
    breaker.leave_retry()
    breaker.enter()
    found = breaker.statistics()
    assert (found.requests, found.retries, found.refused_requests, found.refused_retries) == (2, 0, 1, 1)


@given(st.lists(st.tuples(st.booleans(), st.floats(0, 2)), max_size=200))
def test_retry_budget_is_kept(steps: list[tuple[bool, float]]) -> None:
    """Retries never exceed the share of requests plus the rate over time plus what is saved at the start."""
    now = 0.0
    budget = RetryBudget(RetryRule(budget_percent=20.0, min_per_s=1.0), clock=lambda: now)
    requests = 0
    for is_request, pause in steps:
        now += pause
        if is_request:
            requests += 1
            budget.earn()
        else:
            budget.spend()
    assert budget.spent <= 1 + 0.2 * requests + now + 1e-6


def test_what_may_be_repeated() -> None:
    """RFC 9110, 9.2.2."""
    reset, refused = ResetError(), ConnectError()
    assert repeatable(b"GET", body_kept=True, error=reset)
    assert repeatable(b"PUT", body_kept=True, error=reset)
    assert repeatable(b"GET", body_kept=True, error=None)
    assert not repeatable(b"PUT", body_kept=False, error=reset)
    assert not repeatable(b"POST", body_kept=True, error=reset)
    assert not repeatable(b"POST", body_kept=True, error=None)
    assert not repeatable(b"PATCH", body_kept=True, error=StaleError())
    assert repeatable(b"POST", body_kept=True, error=refused)
    assert immediate(StaleError(), repeated=False)
    assert not immediate(StaleError(), repeated=True)
    assert not immediate(reset, repeated=False)
    rule_ = RetryRule(backoff_s=0.1, max_backoff_s=0.3)
    assert [pause_s(rule_, attempt, lambda: 1.0) for attempt in (2, 3, 4)] == pytest.approx([0.1, 0.2, 0.3])


@given(st.floats(0.1, 100), st.integers(1, 50), st.lists(st.floats(0, 3), max_size=100))
def test_bucket_never_exceeds_its_rate(per_s: float, burst: int, pauses: list[float]) -> None:
    now = 0.0
    bucket = Bucket(per_s, burst, now)
    taken = 0
    for pause in pauses:
        now += pause
        wait_s = bucket.take(now)
        taken += not wait_s
        if wait_s:
            assert Bucket.take(bucket, now + wait_s * (1 - 1e-3)) > 0 or wait_s < 1e-6
    assert taken <= burst + per_s * now + 1e-3


def test_rate_by_client(ledger: Ledger) -> None:
    now = 0.0
    rate = Rate("x", RateRule(per_s=1.0, burst=2, by="client", max_clients=3), ledger=ledger, clock=lambda: now)
    assert [bool(rate.take("a")) for _ in range(3)] == [False, False, True]
    assert not rate.take("b")
    now = 1.0
    assert not rate.take("a")
    assert rate.limited == 1


def test_routes() -> None:
    routes: Routes[str] = Routes()
    routes.add("any", path="/shop", hosts=(), strip=True)
    routes.add("deep", path="/shop/admin", hosts=(), strip=False)
    routes.add("host", path="", hosts=("api.example", "*.wild.example"), strip=True)
    routes.add("part", path="/v1", hosts=("api.example",), strip=True)
    cases = {
        (b"x", b"/shop"): ("any", b"/"),
        (b"x", b"/shop/"): ("any", b"/"),
        (b"x:80", b"/shop/cart/1"): ("any", b"/cart/1"),
        (b"x", b"/shop/admin/y"): ("deep", b"/shop/admin/y"),
        (b"API.example:8080", b"/anything"): ("host", b"/anything"),
        (b"api.example", b"/v1/x"): ("part", b"/x"),
        (b"a.b.wild.example", b"/v1"): ("host", b"/v1"),
        (b"wild.example", b"/shop"): ("any", b"/"),
    }
    for (host, path), expected in cases.items():
        assert routes.find(host, path) == expected, (host, path)
    for host, path in ((b"x", b"/shopping"), (b"x", b"/"), (b"x", b"//shop"), (b"[::1]:80", b"/other")):
        with pytest.raises(RouteError):
            routes.find(host, path)


tallies = st.builds(
    lambda requests, share, seconds: Tally(
        requests,
        failed := round(requests * share),
        well := requests - failed,
        log(seconds) * well,
        log(seconds) ** 2 * well,
    ),
    st.integers(0, 200),
    st.floats(0, 1),
    st.floats(0.001, 30),
)


@given(st.lists(st.none() | tallies, max_size=8), st.sampled_from([0.0, 10.0, 30.0]), st.sampled_from([0.0, 2.0, 10.0]))
def test_outliers_are_worse_than_their_peers(seen: list[Tally | None], percent: float, factor: float) -> None:
    rule = Ejection(failure_percent=percent, slow_factor=factor, slow_s=0.2, min_requests=20)
    found = outliers(seen, rule)
    assert [each.badness for each in found] == sorted((each.badness for each in found), reverse=True)
    assert len({each.place for each in found}) == len(found)
    for each in found:
        own = seen[each.place]
        peers = [tally for place, tally in enumerate(seen) if tally is not None and place != each.place]
        assert own is not None
        assert own.requests >= 20
        if each.kind == "failure_ratio":
            failed = sum(peer.failures for peer in peers) / sum(peer.requests for peer in peers)
            assert 0 < percent <= 100 * own.failures / own.requests
            assert own.failures / own.requests >= 2 * failed - 1e-9
        else:
            usual = exp(sum(peer.log_s for peer in peers) / sum(peer.timed for peer in peers))
            assert factor
            assert exp(own.log_s / own.timed) >= max(0.2, factor * usual) * (1 - 1e-9)


@given(tallies, st.integers(2, 6), st.integers(1, 6))
def test_what_all_suffer_puts_nobody_out(tally: Tally, count: int, factor: int) -> None:
    rule = Ejection(slow_factor=1.0 + factor, min_requests=1)
    assert not outliers([tally] * count, rule)


def seen(failures: int, *times: float) -> Tally:
    logs = [log(seconds) for seconds in times]
    return Tally(failures + len(times), failures, len(times), sum(logs), sum(each**2 for each in logs))


def test_the_failing_and_the_slow_are_found() -> None:
    well = seen(1, *[0.01, 0.02] * 50)
    failing = seen(20, *[0.01] * 30)
    slow = seen(0, *[0.5, 0.4] * 20)
    found = outliers([well, failing, None, slow, well], Ejection())
    assert {(each.place, each.kind) for each in found} == {(1, "failure_ratio"), (3, "latency")}
    assert not outliers([well, seen(0, *[0.01] * 95, *[30.0] * 5)], Ejection()), "a few long polls"
    assert not outliers([failing], Ejection()), "nobody to compare it with"
    assert not outliers([failing, seen(0, 1.0, 1.0, 1.0)], Ejection())


def test_requests_slow_by_nature_put_nobody_out() -> None:
    """Some routes take two seconds, others two milliseconds: the mix that an endpoint gets is chance."""
    chance = Random(1)
    for _ in range(2000):
        mixes = [[chance.choice((2.0, 0.002)) for _ in range(20)] for _ in range(2)]
        assert not outliers([seen(0, *mix) for mix in mixes], Ejection())


def test_windows_wait_for_requests() -> None:
    health = Health(Ejection(min_requests=4, window_s=10.0), Check())
    for _ in range(3):
        health.succeeded()
    assert health.window(10.0) == Tally(3, 0, 0, 0.0, 0.0)
    health.failed("x")
    assert health.window(20.0) == Tally(4, 1, 0, 0.0, 0.0)
    assert health.window(30.0) == Tally(0, 0, 0, 0.0, 0.0), "a window of its own"
    health.succeeded()
    assert health.window(70.0) == Tally(1, 0, 0, 0.0, 0.0)
    assert health.window(80.0) == Tally(1, 0, 0, 0.0, 0.0)
    assert health.window(90.0) == Tally(0, 0, 0, 0.0, 0.0), "what is older than six windows says nothing"
    health.eject(90.0)
    health.failed("x")
    assert health.window(95.0) is None
    assert health.window(200.0) == Tally(0, 0, 0, 0.0, 0.0), "what came while it was out does not count"
