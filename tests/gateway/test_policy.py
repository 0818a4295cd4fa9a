"""The decisions, with a clock that the tests move: balance, health, breaker, retry, rate, routes."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from flatwater.bounded import Ledger
from flatwater.gateway.balance import LeastRequests, RoundRobin
from flatwater.gateway.breaker import Breaker
from flatwater.gateway.error import BreakerError, ConnectError, ResetError, RouteError, StaleError
from flatwater.gateway.health import Check, Ejection, Health, may_eject
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
