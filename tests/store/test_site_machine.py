"""Sites against a model that keeps a plain list of waiters: a site never has two owners, no grant and no wake-up is
lost, and grants follow (rank, arrival) among those whom the site suits."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from tests.long import often
from tests.store.conftest import new_run

from flatwater.store import migrate, run, site, waiter
from flatwater.store.dialect import choose
from flatwater.store.site import Change, Site, SiteSpec, Want
from flatwater.store.site_lane import reachable
from flatwater.store.site_match import suits
from flatwater.store.tx import Tx
from flatwater.store.waiter import Grant

PLAIN = ["A_2", "A_10", "B_1"]
CELLS = [f"{lane}_{depth}" for lane in ("L", "Q") for depth in (1, 2)]
NAMES = PLAIN + CELLS
RUNS = [f"01ARZ3NDEKTSV4RRFFQ69G5FA{char}" for char in "ABCDE"]
PATHS = ["-1/1", "-1/2", "-1/3"]

site_ids, run_ids, paths = st.sampled_from(NAMES), st.sampled_from(RUNS), st.sampled_from(PATHS)
ranks = st.sampled_from([0.0, 1.0, 2.0])
contents = st.sampled_from([None, None, None, "X", "Y"])
filled = st.sampled_from([None, None, False, True])
wants = st.one_of(
    st.builds(
        Want, groups=st.sampled_from([(), ("A",), ("B",), ("A", "L")]), filled=filled, content=contents,
        order=st.sampled_from(["asc", "desc"]), lock=st.sampled_from([True, True, False]),
        tags=st.sampled_from([(), (), ("t",)]), dense=st.sampled_from([None, None, False]),
    ),
    st.builds(Want, site_id=site_ids),
    st.builds(
        Want, groups=st.sampled_from([("L",), ("Q",), ("L", "Q")]), filled=filled, content=contents, dense=st.just(True)
    ),
)  # fmt: skip


@dataclass(slots=True)
class Waiting:
    rank: float
    since: float
    run_id: str
    path: str
    want: Want
    granted: str | None = None

    @property
    def place(self) -> tuple[float, float, str, str]:
        return self.rank, self.since, self.run_id, self.path


class SiteMachine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.TemporaryDirectory()
        self.dialect = choose(str(Path(self.folder.name) / "m.db"))
        self.connection = self.dialect.connect()
        self.connection.execute("PRAGMA synchronous = OFF")
        migrate.prepare(self.dialect, self.connection)
        self.tx = Tx(self.dialect, self.connection)
        self.owners: dict[str, tuple[str, str]] = {}
        self.waiting: list[Waiting] = []
        self.now = 1000.0

    def teardown(self) -> None:
        self.dialect.close(self.connection)
        self.folder.cleanup()

    def do(self, function: Callable[..., Any], *args: Any) -> Any:
        self.now += 1
        self.dialect.begin(self.connection)
        result = function(self.tx, *args)
        self.dialect.commit(self.connection)
        return result

    def sites(self) -> dict[str, Site]:
        return {one.id: one for one in site.page(self.tx, limit=1000)}

    # --- the model ------------------------------------------------------------------------------------------------

    def expect_offer(self, names: list[str], before: dict[str, Site]) -> list[tuple[str, str, str]]:
        """Who should get what: one site after the other, the first of all waiters whom it suits."""
        state = dict(before)
        given = []
        for name in sorted(names, key=lambda name: state[name].order):
            while (found := self._first(state, name)) is not None:
                waiting, cell, mouth = found
                waiting.granted = cell.id
                given.append((waiting.run_id, waiting.path, cell.id))
                if waiting.want.lock:
                    self.owners[cell.id] = (waiting.run_id, waiting.path)
                    state[cell.id] = msgspec.structs.replace(cell, locked_run=waiting.run_id, locked_mouth=mouth)
        return given

    def _first(self, state: dict[str, Site], name: str) -> tuple[Waiting, Site, int | None] | None:
        one = state[name]
        for waiting in sorted(self.waiting, key=lambda each: each.place):
            if waiting.granted is not None:
                continue
            for cell, mouth in self._had(state, one, waiting.want):
                if suits(waiting.want, cell):
                    return waiting, cell, mouth
        return None

    def _had(self, state: dict[str, Site], one: Site, want: Want) -> list[tuple[Site, int | None]]:
        if not want.dense:
            return [(one, None)]
        cells = [cell for cell in state.values() if one.lane is not None and cell.lane == one.lane]
        return list(reachable(cells))

    def changed(self, names: list[str], grants: list[Grant]) -> None:
        """`names` have changed and been offered: compare what was given with what the model gives."""
        given = [(grant.run_id, grant.path, msgspec.json.decode(grant.granted)["siteId"]) for grant in grants]
        state = self.sites()
        for _, _, name in given:  # as it was before the offer
            if state[name].locked_run is not None and (state[name].locked_run, state[name].locked_path) in {
                (run_id, path) for run_id, path, _ in given
            }:
                state[name] = msgspec.structs.replace(state[name], locked_run=None, locked_path=None, locked_mouth=None)
        assert given == self.expect_offer(names, state)
        assert all(grant.worker is None for grant in grants)
        woken = run.states(self.tx, [grant.run_id for grant in grants])
        assert set(woken.values()) <= {"QUEUED"}, "whoever is granted something is ready"
        for run_id in woken:
            self.connection.execute("UPDATE run SET state = 'WAITING', queue = NULL WHERE id = ?", (run_id,))

    def free(self, names: list[str]) -> None:
        for name in names:
            self.owners.pop(name, None)

    # --- rules ----------------------------------------------------------------------------------------------------

    @initialize()
    def build(self) -> None:
        specs = [SiteSpec(id=name, group_name=name[0]) for name in PLAIN]
        for name in CELLS:
            mouths = 1 if name[0] == "L" else 2
            specs.append(SiteSpec(id=name, group_name=name[0], lane=name[0], depth=int(name[2]), mouths=mouths))
        self.do(site.save, specs, self.now)
        for run_id in RUNS:
            self.do(run.submit, new_run(id=run_id, state="WAITING", queue=None, epoch=1))
        for name in NAMES:  # all taken at first, so that those who ask have to wait
            self.acquire(Want(site_id=name), RUNS[0], f"-1/{name}", 0.0)

    @rule(asked=st.lists(st.tuples(wants, run_ids, paths, ranks), min_size=1, max_size=15))
    def ask(self, asked: list[tuple[Want, str, str, float]]) -> None:
        """Several at once, for a queue is what this is about."""
        for want, run_id, path, rank in asked:
            self.acquire(want, run_id, path, rank)

    def acquire(self, want: Want, run_id: str, path: str, rank: float) -> None:
        mine = next((name for name, owner in self.owners.items() if owner == (run_id, path)), None)
        waiting = next((each for each in self.waiting if (each.run_id, each.path) == (run_id, path)), None)
        if waiting is not None:
            want = waiting.want  # a block asks for the same again
        found = self.do(site.acquire, want, run_id, path, rank, self.now)
        if waiting is not None and waiting.granted is not None:
            assert found.id == waiting.granted, "what was granted is not lost"
            self.waiting.remove(waiting)
        elif waiting is not None:
            assert found is None, "while one waits nothing suitable is free"
        elif mine is not None and want.lock:
            assert found.id == mine
        elif found is None:
            self.waiting.append(Waiting(rank, self.now - 1, run_id, path, want))
        elif want.lock:
            assert found.id not in self.owners
            self.owners[found.id] = (run_id, path)

    @rule(run_id=run_ids)
    def release(self, run_id: str) -> None:
        """As at the end of a run: with its sites go the grants of them that it has not taken yet."""
        names = [name for name, owner in self.owners.items() if owner[0] == run_id]
        for each in [each for each in self.waiting if each.run_id == run_id and each.granted in names]:
            self.do(waiter.take, run_id, each.path)
            self.waiting.remove(each)
        grants = self.do(site.release, run_id, self.now)
        self.free(names)
        self.changed(names, grants)

    @rule(name=site_ids)
    def unlock(self, name: str) -> None:
        owner = self.owners.get(name)
        if owner is None or any(each.granted == name and (each.run_id, each.path) == owner for each in self.waiting):
            return
        grants = self.do(site.unlock, name, owner[0], None, self.now)
        self.free([name])
        self.changed([name], grants)

    @rule(name=site_ids, filled=st.booleans(), content=contents)
    def fill(self, name: str, filled: bool, content: str | None) -> None:
        change = Change(filled=filled, content=content if filled else None)
        owner = self.owners.get(name)
        self.changed([name], self.do(site.set, name, change, self.now, owner[0] if owner else None))

    @rule(name=site_ids, enabled=st.booleans(), tags=st.sampled_from([(), ("t",)]))
    def adjust(self, name: str, enabled: bool, tags: tuple[str, ...]) -> None:
        change = Change(enabled=enabled, tags=tags)
        self.changed([name], self.do(site.set, name, change, self.now, None, None, True))

    @rule(run_id=run_ids, path=paths)
    def withdraw(self, run_id: str, path: str) -> None:
        waiting = next((each for each in self.waiting if (each.run_id, each.path) == (run_id, path)), None)
        names = [] if waiting is None or waiting.granted is None else [
            name for name, owner in self.owners.items() if owner == (run_id, path)
        ]  # fmt: skip
        grants = self.do(site.withdraw, run_id, path, self.now)
        if waiting is not None:
            self.waiting.remove(waiting)
        self.free(names)
        self.changed(names, grants)

    # --- what always holds ----------------------------------------------------------------------------------------

    @invariant()
    def owners_are_the_models(self) -> None:
        locked = {one.id: (one.locked_run, one.locked_path) for one in self.sites().values() if one.locked_run}
        assert locked == self.owners

    @invariant()
    def grants_own_their_sites(self) -> None:
        for waiting in self.waiting:
            if waiting.granted is not None and waiting.want.lock:
                assert self.owners[waiting.granted] == (waiting.run_id, waiting.path)

    @invariant()
    def rows_are_the_models(self) -> None:
        rows = [row for found in waiter.load(self.tx, RUNS).values() for row in found]
        stored = {(row.run_id, row.path, row.granted and msgspec.json.decode(row.granted)["siteId"]) for row in rows}
        assert stored == {(each.run_id, each.path, each.granted) for each in self.waiting}

    @invariant()
    def nobody_waits_for_what_is_free(self) -> None:
        for waiting in self.waiting:
            if waiting.granted is None:
                assert site.find(self.tx, waiting.want) is None


TestSites = SiteMachine.TestCase
TestSites.settings = settings(max_examples=often(120), stateful_step_count=40, deadline=None)
