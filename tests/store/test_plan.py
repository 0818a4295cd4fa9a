"""The cost of an operation does not grow with what is stored.

SQLite counts the instructions of its own machine, so this needs no clock: the same call is made beside few and beside
many stored rows, and must not take more instructions. The plans themselves are looked at too.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from tests.store.conftest import new_run

from flatwater.bounded import Ledger
from flatwater.store import Store, claim, event, log, retention, run, site, step, trigger, variable, waiter
from flatwater.store.ident import new_id
from flatwater.store.retention import Keep
from flatwater.store.run import RunFilter
from flatwater.store.site import SiteSpec, Want
from flatwater.store.statement import Statement
from flatwater.store.tx import Tx

NOW = 1_800_000_000.0
FEW, MANY = 300, 12_000
ALLOWED = 1.3  # trees grow by a level now and then
WORKER = new_id()
SOME = new_id()


async def stock(store: Store, count: int) -> None:
    """`count` runs of each kind that a busy plant has: ready, due, parked for a site, running elsewhere, ended."""
    for number in range(count):
        kinds = (
            {},
            {"queue": "due", "due_at": NOW + number},
            {"state": "WAITING", "queue": None, "epoch": 1},
            {"state": "RUNNING", "queue": None, "epoch": 1, "worker": f"elsewhere {number}"},
            {"state": "RUNNING", "queue": None, "epoch": 1, "worker": "w", "parent_id": SOME, "trigger_id": "t"},
        )
        runs = [new_run(rank=float(number), **fields) for fields in kinds]
        parked, ended = runs[2].id, runs[4].id
        store.writer.put(
            *(run.insert(new) for new in runs), run.end(ended, 1, "SUCCEEDED", NOW + number),
            step.put(ended, "-1", -1, "r", "RootBp", "SUCCEEDED", 1, 1.0, 2.0), variable.put(ended, "v", "1"),
            log.add(ended, 1.0, "info", None, "x"), waiter.put(parked, "-1/1", "site", f"k{number % 7}", NOW, number),
            waiter.put(parked, "-1/2", "event", f"e{number}", NOW, number),
        )  # fmt: skip
        await store.writer.room()
    await store.writer.call(site.save, [SiteSpec(id=f"S_{n}", group_name="G") for n in range(20)], NOW)
    await store.writer.call(site.lock, "S_0", SOME, "-1/1", None, NOW)


RUN_UPDATES = (run.END, run.PARK, run.AGAIN, run.MARK, run.MESSAGE, run.RESPOND, claim.WAKE)


def put_rows(*ops: tuple[Statement, tuple[Any, ...]]) -> Callable[[Tx], None]:
    return lambda tx: tx.apply(*ops)


def states(*names: str) -> RunFilter:
    return RunFilter(states=names)


OPERATIONS: dict[str, Callable[[Tx], object]] = {
    "claim": lambda tx: run.claim(tx, 10, WORKER, NOW),
    "promote": lambda tx: run.promote_due(tx, NOW + 5, 5),
    "next due": run.next_due,
    "ready count": lambda tx: run.ready_count(tx, 100),
    "requests": lambda tx: run.requests(tx, WORKER),
    "requeue": lambda tx: run.requeue_of(tx, WORKER, NOW),
    "insert": put_rows(run.insert(new_run())),
    "submit": lambda tx: run.submit(tx, new_run(out_order_no="k")),
    "step": put_rows(step.put(SOME, "-1/1", 1, "b", "T", "SUCCEEDED", 1, 1.0, 2.0)),
    "delete steps": put_rows(step.delete(SOME, "-1")),
    "load": lambda tx: (step.load(tx, [SOME, WORKER]), variable.load(tx, [SOME]), waiter.load(tx, [SOME])),
    "page": lambda tx: run.page(tx, RunFilter(), None, 20),
    "page of a state": lambda tx: run.page(tx, states("SUCCEEDED"), None, 20),
    "page of two states": lambda tx: run.page(tx, states("QUEUED", "SUCCEEDED"), None, 20),
    "page of nothing": lambda tx: run.page(tx, states("FAILED"), None, 20),
    "page of a definition": lambda tx: run.page(tx, RunFilter(definition="demo"), None, 20),
    "page of no definition": lambda tx: run.page(tx, RunFilter(definition="none", states=("QUEUED",)), None, 20),
    "page of a label": lambda tx: run.page(tx, RunFilter(label="Demo"), None, 20),
    "page of children": lambda tx: run.page(tx, RunFilter(parent=SOME), None, 20),
    "page of a time": lambda tx: run.page(tx, RunFilter(until=NOW - 9e8), None, 20),
    "count with cap": lambda tx: run.count(tx, 50),
    "children of none": lambda tx: run.children(tx, WORKER),
    "key": lambda tx: run.find(tx, "k"),
    "event": lambda tx: event.publish(tx, "e5", None, NOW),
    "keys": lambda tx: waiter.keys(tx, "event", 5),
    "grants elsewhere": lambda tx: waiter.granted(tx, WORKER),
    "pending of a trigger": lambda tx: trigger.pending(tx, "t"),
    "acquire": lambda tx: site.acquire(tx, Want(groups=("G",)), SOME, "-1/2", 0.0, NOW),
    "wait": lambda tx: site.acquire(tx, Want(groups=("H",)), SOME, "-1/3", 0.0, NOW),
    "release": lambda tx: site.release(tx, SOME, NOW),
    "log": lambda tx: (log.page(tx, SOME), log.trim(tx, SOME, 10)),
    "prune": lambda tx: retention.prune(tx, Keep(max_age_s=0.0, max_runs=50), NOW + 10, 5),
}


def cost(tx: Tx, operation: Callable[[Tx], object]) -> int:
    """Instructions of SQLite's machine, in tens; nothing of it stays."""
    tens = 0

    def count() -> int:
        nonlocal tens
        tens += 1
        return 0

    operation(tx)  # prepares what is prepared once
    tx.connection.execute("ROLLBACK TO SAVEPOINT op")
    tx.connection.set_progress_handler(count, 10)
    try:
        operation(tx)
    finally:
        tx.connection.set_progress_handler(None, 0)
    tx.connection.execute("ROLLBACK TO SAVEPOINT op")
    return tens


def costs(tx: Tx) -> dict[str, int]:
    return {name: cost(tx, operation) for name, operation in OPERATIONS.items()}


@pytest.mark.timeout(240)
async def test_nothing_gets_dearer_with_what_is_stored(sqlite_url: str, ledger: Ledger) -> None:
    async with Store.open(sqlite_url, ledger=ledger) as store:
        await stock(store, FEW)
        few = await store.writer.call(costs)
        await stock(store, MANY - FEW)
        assert sum((await store.read(run.count)).values()) == 5 * MANY
        many = await store.writer.call(costs)
    dearer = {name: (few[name], many[name]) for name in few if many[name] > ALLOWED * few[name] + 20}
    assert dearer == {}
    assert all(few.values())


class Explaining(Tx):
    """Writes down the plan of all that it runs."""

    def __init__(self, tx: Tx) -> None:
        super().__init__(tx.dialect, tx.connection)
        self.plans: list[str] = []
        execute = self.dialect.execute

        def explain(connection: Any, sql: str, params: dict[str, Any]) -> Any:
            plan = execute(connection, f"EXPLAIN QUERY PLAN {sql}", params).fetchall()
            self.plans.append("\n".join(str(row[3]) for row in plan))
            return execute(connection, sql, params)

        self.dialect.execute = explain  # type: ignore[method-assign]


async def test_the_indexes_are_used(sqlite_store: Store) -> None:
    wanted = {
        "claim": "USING INDEX run_ready",
        "promote": "run_due",
        "next due": "run_due",
        "requests": "run_request",
        "requeue": "run_worker",
        "page of a state": "USING INDEX run_state",
        "page of two states": "USING INDEX run_state",
        "page of a definition": "USING INDEX run_definition",
        "page of a label": "USING INDEX run_label",
        "page of children": "USING INDEX run_parent",
        "key": "run_out_order_no",
        "event": "waiter_queue",
        "keys": "INDEX waiter_queue (kind=? AND key>?)",
        "acquire": "site_group",
        "release": "site_owner",
        "pending of a trigger": "run_trigger",
        "prune": "run_ended",
        "step": "",
    }

    def plans(tx: Tx) -> dict[str, str]:
        found = {}
        for name in wanted:
            explaining = Explaining(tx)
            try:
                OPERATIONS[name](explaining)
            finally:
                del tx.dialect.execute
            found[name] = "\n".join(explaining.plans)
        return found

    found = await sqlite_store.writer.call(plans)
    for name, index in wanted.items():
        assert index in found[name], f"{name}:\n{found[name]}"
    sorting = {name for name, plan in found.items() if "TEMP B-TREE" in plan}
    few = {"requeue", "event", "acquire", "release"}  # a dead worker's runs, an event's triggers, an owner's sites
    assert sorting <= {"page of two states", "page of a definition", "page of a label", *few}, "pages are merged"


async def test_hot_updates_seek_their_rows(sqlite_store: Store) -> None:
    def plans(tx: Tx) -> dict[str, str]:
        found = {}
        for statement in (*RUN_UPDATES, waiter.GRANT_CHILD, waiter.DELETE, step.DELETE):
            sql = tx.dialect.render(statement)
            rows = tx.connection.execute(f"EXPLAIN QUERY PLAN {sql}", {"rows": "[]"}).fetchall()
            found[statement.name] = "\n".join(row[3] for row in rows)
        return found

    for name, plan in (await sqlite_store.writer.call(plans)).items():
        assert "SEARCH" in plan, f"{name}:\n{plan}"
        for table in ("run", "waiter", "step", "s"):
            assert f"SCAN {table}\n" not in plan + "\n", f"{name}:\n{plan}"


async def test_a_deep_page_costs_what_the_first_does(sqlite_store: Store) -> None:
    runs = [new_run() for _ in range(3000)]
    for new in runs:
        sqlite_store.writer.put(run.insert(new))
    await sqlite_store.writer.flush()

    def page_after(after: str | None) -> Callable[[Tx], object]:
        return lambda tx: run.page(tx, RunFilter(), after, 20)

    def depths(tx: Tx) -> list[int]:
        return [cost(tx, page_after(after)) for after in (None, runs[50].id)]

    first, deep = await sqlite_store.writer.call(depths)
    assert deep <= first * ALLOWED
