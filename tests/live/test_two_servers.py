"""Two servers on one database, as users run them: what docs/internals.md says of one holds for both together."""

from __future__ import annotations

import os
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TypeVar

import pytest

from tests.engine.plan import b, plan
from tests.figure import FIGURES
from tests.live import audit
from tests.live.inferiors.outside import lines
from tests.live.process import ROOT
from tests.server.process import Running, launched

T = TypeVar("T")
RUNS = 60
LEASE_S = 8.0
NEWS_S = 20.0
"""Longest time until a server has acted on what the other did: ``engine.poll_s`` (0.5), but machines are busy."""
END_S = 60.0
FOR_EVER_S = 600
SECONDS = [("seconds", "Double")]
PLANS = [
    plan("quick", b(1, "ShopWork"), b(2, "DelayBp", {"timeMillis": 100}), b(3, "ShopWork", {"seconds": 0.05})),
    plan("tick", b(1, "ShopWork")),
    plan("slow", b(1, "ShopWork", {"seconds": "=taskInputs.seconds"}), b(2, "ShopWork"), inputs=SECONDS),
    plan(
        "fetch",
        b(1, "ShopWork"),
        b(2, "GetIdleSiteBp", {"groupName": "DOCK", "lock": True}),
        b(3, "ShopWork", {"seconds": "=taskInputs.seconds"}),
        inputs=SECONDS,
    ),
]


def until(what: str, look: Callable[[], T | None], timeout_s: float) -> T:
    """What ``look`` finds, once it finds something."""
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        if found := look():
            return found
        time.sleep(0.02)
    raise AssertionError(f"not within {timeout_s:g} s: {what}")


class Shop:
    """Two servers, and what their blocks tell."""

    def __init__(self, folder: Path, one: Running, two: Running) -> None:
        self.folder = folder
        self.servers = (one, two)

    def other(self, server: Running) -> Running:
        return self.servers[server is self.servers[0]]

    def submit(self, server: Running, name: str, seconds: float | None = None) -> str:
        inputs = {} if seconds is None else {"inputs": {"seconds": seconds}}
        status, answer = server.ask("POST", "/api/runs", {"definition": name, **inputs})
        assert status == 201, answer
        return str(answer["id"])

    def where(self, run_id: str, path: str) -> Running | None:
        """The server that has begun this block."""
        pids = [int(pid) for pid, run, at in lines(self.folder / "did") if (run, at) == (run_id, path)]
        return next((server for server in self.servers if pids and server.process.pid == pids[-1]), None)

    def begun(self, run_id: str, path: str) -> Running:
        return until(f"{path} of {run_id} begins", lambda: self.where(run_id, path), END_S)

    def begun_at(self, server: Running, name: str, path: str, seconds: float) -> str:
        """A run that this server executes: most often, but not always, it is the one that has accepted it."""
        for _ in range(20):
            run_id = self.submit(server, name, seconds)
            if self.begun(run_id, path) is server:
                return run_id
            self.cancel(server, run_id)
            self.ended(server, [run_id], END_S)
        raise AssertionError(f"{server.address} executes nothing of its own")

    def cancel(self, server: Running, run_id: str) -> None:
        status, answer = server.ask("POST", f"/api/runs/{run_id}/cancel")
        assert status < 300, answer

    def state(self, server: Running, run_id: str) -> str:
        return str(server.ask("GET", f"/api/runs/{run_id}")[1]["state"])

    def ended(self, server: Running, runs: list[str], timeout_s: float) -> set[str]:
        """The states of these runs, once they have ended."""
        states: dict[str, str] = {}

        def look() -> bool:
            for run_id in runs:
                if states.get(run_id) not in ("SUCCEEDED", "FAILED", "CANCELED"):
                    states[run_id] = self.state(server, run_id)
                    if states[run_id] not in ("SUCCEEDED", "FAILED", "CANCELED"):
                        return False
            return True

        until("all runs have ended", look, timeout_s)
        return set(states.values())


@contextmanager
def opened(folder: Path, url: str) -> Iterator[Shop]:
    """Both are started at once on an empty database. The first keeps what waits in memory, the second does not."""
    path = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    variables = {
        "PYTHONPATH": path, "SHOP_FOLDER": str(folder), "FLATWATER_STORE_URL": url,
        "FLATWATER_STORE_LEASE_S": str(LEASE_S), "FLATWATER_STORE_RENEW_S": "0.5", "FLATWATER_ENGINE_MAX_ACTIVE": "8",
        "FLATWATER_ENGINE_BLOCKS": "tests.live.inferiors.shop",
    }  # fmt: skip
    with ExitStack() as stack:
        one, two = (
            stack.enter_context(launched(folder, **variables, FLATWATER_ENGINE_PARK_AFTER_S=str(park_after_s)))
            for park_after_s in (60.0, 0.2)
        )
        for server in (one, two):
            server.await_ready()
        yield Shop(folder, one, two)


@pytest.mark.timeout(240)
@pytest.mark.parametrize(
    "database",
    ["postgres_url", "mariadb_url"],
)
def test_two_servers_on_one_database(
    request: pytest.FixtureRequest, tmp_path: Path, pytestconfig: pytest.Config, database: str
) -> None:
    url, began = request.getfixturevalue(database), time.time()
    with opened(tmp_path, url) as shop:
        two = shop.servers[1]
        audit.install(url)
        prepare(shop)
        share(shop)
        cancels = [cancel_elsewhere(shop, server) for server in shop.servers]
        grants = [grant_elsewhere(shop, server) for server in shop.servers]
        taken_over = kill(shop)
        for name in ("by the second", "at an interval"):
            assert two.ask("DELETE", f"/api/triggers/{name}".replace(" ", "%20"))[0] == 204
        check(url)
        two.process.send_signal(signal.SIGTERM)
        assert two.process.wait(60) == 0, two.log
    pytestconfig.stash.setdefault(FIGURES, []).append(
        f"two servers, {database.removesuffix('_url')}: a cancel elsewhere after {max(cancels):.2f} s, a grant after"
        f" {max(grants):.2f} s, taken over after {taken_over:.1f} s (lease {LEASE_S:g} s); {time.time() - began:.0f} s"
    )


def prepare(shop: Shop) -> None:
    one, two = shop.servers
    for definition in PLANS:
        status, answer = one.ask("POST", "/api/definitions", definition)
        assert status == 201, answer
    assert one.ask("PUT", "/api/sites", [{"id": "D-1", "group": "DOCK"}])[0] == 200
    given = {"definition_id": "tick", "max_pending": 1000}
    seconds = {"id": "by the second", "kind": "cron", "spec": "* * * * * *", **given}
    interval = {"id": "at an interval", "kind": "interval", "spec": "0.7", **given}
    for server, trigger in ((one, seconds), (two, interval)):
        status, answer = server.ask("POST", "/api/triggers", trigger)
        assert status == 201, answer


def share(shop: Shop) -> None:
    """Both accept, both execute, all ends."""
    with ThreadPoolExecutor(6) as pool:
        runs = list(pool.map(lambda number: shop.submit(shop.servers[number % 2], "quick"), range(RUNS)))
    assert shop.ended(shop.servers[0], runs, END_S) == {"SUCCEEDED"}
    did = Counter((run, path) for _, run, path in lines(shop.folder / "did") if run in runs)
    assert set(did.values()) == {1}
    assert len(did) == 2 * RUNS
    assert {shop.where(run, "-1/1") for run in runs} == set(shop.servers)


def cancel_elsewhere(shop: Shop, server: Running) -> float:
    """A run that this server executes is canceled at the other; returns the seconds until it has ended."""
    run_id = shop.begun_at(server, "slow", "-1/1", FOR_EVER_S)
    began = time.monotonic()
    shop.cancel(shop.other(server), run_id)
    assert shop.ended(shop.other(server), [run_id], NEWS_S) == {"CANCELED"}
    return time.monotonic() - began


def grant_elsewhere(shop: Shop, server: Running) -> float:
    """A site that comes free at the other is granted to a run that waits at this one; returns the seconds it took."""
    other = shop.other(server)
    holder = shop.begun_at(other, "fetch", "-1/3", FOR_EVER_S)
    waiting = shop.begun_at(server, "fetch", "-1/1", 0.0)
    until(
        "it waits for the site",
        lambda: [wait for wait in other.ask("GET", f"/api/runs/{waiting}")[1]["wait"] or () if wait["place"] == 1],
        NEWS_S,
    )
    if server is shop.servers[1]:
        until("it has left memory", lambda: shop.state(other, waiting) == "WAITING", NEWS_S)
    began = time.monotonic()
    shop.cancel(other, holder)
    assert shop.ended(server, [waiting], NEWS_S) == {"SUCCEEDED"}
    took = time.monotonic() - began
    if server is shop.servers[0]:
        assert shop.where(waiting, "-1/3") is server, "it waited in the memory of this server"
    return took


def kill(shop: Shop) -> float:
    """kill -9 of the first: the second goes on with its runs; returns the seconds until they have ended.

    One of them has the site, and keeps it.
    """
    one, two = shop.servers
    places = {shop.begun_at(one, "slow", "-1/1", FOR_EVER_S): "-1/1" for _ in range(3)}
    places[shop.begun_at(one, "fetch", "-1/3", FOR_EVER_S)] = "-1/3"
    one.process.kill()
    one.process.wait()
    began = time.monotonic()
    assert shop.ended(two, list(places), LEASE_S + END_S) == {"SUCCEEDED"}
    took = time.monotonic() - began
    for run, path in places.items():
        assert shop.where(run, path) is two
        paths = [at for _, did, at in lines(shop.folder / "did") if did == run]
        assert paths.count(path) == 2, "the block that was under way began again"
        assert paths.count("-1/1") == (2 if path == "-1/1" else 1), "what was done is not done again"
    return took


def check(url: str) -> None:
    """All has ended exactly once, nothing is held, and each due time of a trigger has started one run."""
    with audit.opened(url) as ask:
        until("nothing is under way", lambda: audit.open_runs(url) == 0, END_S)
        account = ask("SELECT what, run, detail FROM audit")
        wrong = audit.check_ends(account, [run for (run,) in ask("SELECT id FROM run")])
        assert not wrong, "\n".join(wrong[:20])
        assert ask("SELECT id, state FROM run WHERE worker IS NOT NULL OR queue IS NOT NULL") == []
        assert ask("SELECT run_id, path FROM waiter") == []
        assert ask("SELECT id FROM site WHERE locked_run IS NOT NULL") == []
        started = dict(ask("SELECT trigger_id, count(*) FROM run WHERE trigger_id IS NOT NULL GROUP BY trigger_id"))
    fired: dict[str, list[str]] = {
        name: [at for what, run, at in account if (what, run) == ("fired", name)] for name in started
    }
    assert set(fired) == {"by the second", "at an interval"}
    for name, times in fired.items():
        assert len(set(times)) == len(times), f"{name} has fired a due time again"
        assert started[name] == len(times), f"{name}: {started[name]} runs for {len(times)} due times"
        assert len(times) > 2
