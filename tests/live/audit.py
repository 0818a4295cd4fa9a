"""An account that the database itself keeps of what is done to it, by triggers, beside the code under test."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from flatwater.store.dialect import choose
from tests.live.inferiors.flows import FLOWS, wanted
from tests.live.inferiors.outside import lines

ENDED = "('SUCCEEDED', 'FAILED', 'CANCELED')"


class Rule(NamedTuple):
    """What is written down when such a row changes so."""

    what: str
    event: str
    table: str
    condition: str
    run: str
    detail: str


RULES = [
    Rule("ended", "UPDATE", "run", f"NEW.state IN {ENDED} AND OLD.state NOT IN {ENDED}", "NEW.id", "NEW.state"),
    Rule("left its end", "UPDATE", "run", f"OLD.state IN {ENDED} AND NEW.state <> OLD.state", "NEW.id", "NEW.state"),
    Rule("epoch", "UPDATE", "run", "NEW.epoch < OLD.epoch OR NEW.epoch > OLD.epoch + 1", "NEW.id", "NEW.state"),
    Rule("done again", "UPDATE", "step", "OLD.state = 'SUCCEEDED'", "NEW.run_id", "NEW.path"),
    Rule(
        "step after the end", "INSERT", "step",
        f"NEW.state IN ('RUNNING', 'SUCCEEDED') AND (SELECT state FROM run WHERE id = NEW.run_id) IN {ENDED}",
        "NEW.run_id", "NEW.path",
    ),
    Rule(
        "two owners", "UPDATE", "site",
        "OLD.locked_run IS NOT NULL AND NEW.locked_run IS NOT NULL AND OLD.locked_run <> NEW.locked_run",
        "NEW.locked_run", "NEW.id",
    ),
    Rule("fired", "UPDATE", "trigger", "NEW.next_at <> OLD.next_at", "NEW.id", "CAST(OLD.next_at AS CHAR(40))"),
]  # fmt: skip
ILLEGAL = ("left its end", "epoch", "done again", "step after the end", "two owners")

Ask = Callable[[str], list[tuple[Any, ...]]]


@contextmanager
def opened(url: str) -> Iterator[Ask]:
    """Runs SQL; each statement by itself."""
    dialect = choose(url, busy_timeout_s=30.0)
    connection = dialect.connect()

    def ask(sql: str) -> list[tuple[Any, ...]]:
        cursor = dialect.execute(connection, sql, {})
        return [tuple(row) for row in cursor.fetchall()] if cursor.description else []

    try:
        yield ask
    finally:
        dialect.close(connection)


def install(url: str) -> None:
    dialect = choose(url)
    with opened(url) as ask:
        ask("CREATE TABLE audit (what VARCHAR(40), run VARCHAR(255), detail VARCHAR(700))")
        for number, rule in enumerate(RULES):
            table = dialect.sql.identifier_preparer.quote(rule.table)
            for statement in watch(dialect.name, f"audit_{number}", table, rule):
                ask(statement)


def watch(database: str, name: str, table: str, rule: Rule) -> Iterator[str]:
    """The statements that make a trigger of a rule."""
    note = f"INSERT INTO audit (what, run, detail) VALUES ('{rule.what}', {rule.run}, {rule.detail});"
    when = f"CREATE TRIGGER {name} AFTER {rule.event} ON {table} FOR EACH ROW"
    if database == "sqlite":
        yield f"{when} WHEN {rule.condition} BEGIN {note} END"
        return
    body = f"IF {rule.condition} THEN {note} END IF;"
    if database == "mysql":
        yield f"{when} BEGIN {body} END"
        return
    yield f"CREATE FUNCTION {name}() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN {body} RETURN NULL; END $$"
    yield f"{when} EXECUTE FUNCTION {name}()"


def succeeded(url: str) -> set[tuple[str, str]]:
    """(run, block path) of all that is on record as done."""
    with opened(url) as ask:
        return {(run, path) for run, path in ask("SELECT run_id, path FROM step WHERE state = 'SUCCEEDED'")}


def open_runs(url: str) -> int:
    with opened(url) as ask:
        return int(ask(f"SELECT count(*) FROM run WHERE state NOT IN {ENDED}")[0][0])


def check_accepted(url: str, folder: Path) -> list[str]:
    """Runs that were acknowledged and are not there."""
    with opened(url) as ask:
        stored = dict(ask("SELECT out_order_no, id FROM run WHERE out_order_no IS NOT NULL"))
    return [f"{key} was acknowledged as {run}" for key, run in lines(folder / "accepted") if stored.get(key) != run]


def check_end(url: str, folder: Path, count: int) -> list[str]:
    """All that is wrong once everything is said to have ended."""
    with opened(url) as ask:
        rows = ask(
            "SELECT out_order_no, id, definition_id, state, outputs, error, parent_id, epoch, worker, queue, request,"
            " inputs FROM run"
        )
        audit = ask("SELECT what, run, detail FROM audit")
        rest = {
            "waiters": ask("SELECT run_id, path, kind FROM waiter"),
            "locked sites": ask("SELECT id, locked_run FROM site WHERE locked_run IS NOT NULL"),
            "open steps": ask(
                "SELECT run_id, path, type, state FROM step WHERE state NOT IN ('SUCCEEDED', 'FAILED', 'CANCELED',"
                " 'SKIPPED') AND ended_at IS NULL AND order_id IS NOT NULL"
            ),
        }
    wrong = [f"{what}: {found[:5]}" for what, found in rest.items() if found]
    wrong += check_ends(audit, [row[1] for row in rows])
    wrong += check_accepted(url, folder) + list(_runs(rows, count)) + check_orders(folder) + check_sites(folder)
    return wrong


def check_ends(audit: list[Any], runs: list[str]) -> list[str]:
    """Changes that no run may make, and runs that did not end exactly once."""
    ends = dict.fromkeys(runs, 0)
    for what, run, _ in audit:
        if what == "ended":
            ends[run] = ends.get(run, 0) + 1
    wrong = [f"{what}: run {run}, {detail}" for what, run, detail in audit if what in ILLEGAL]
    return wrong + [f"ended {times} times: {run}" for run, times in ends.items() if times != 1]


def _runs(rows: list[Any], count: int) -> Iterator[str]:
    keys = sorted(row[0] for row in rows if row[0] is not None)
    if keys != sorted(f"{name}-{n}" for name, n in wanted(count)):
        yield f"{len(keys)} runs by key, {count} wanted"
    for _, run, flow, state, outputs, error, parent, epoch, worker, queue, request, inputs in rows:
        expected = FLOWS[flow][1]
        if (worker, queue, request) != (None, None, None) or (epoch < 1 and state != "CANCELED"):
            yield f"{flow} {run}: worker {worker}, queue {queue}, request {request}, epoch {epoch}"
        if expected is None:
            if state != "CANCELED":
                yield f"{flow} {run} is {state}: {error}"
        elif state != "SUCCEEDED" or json.loads(outputs or "{}") != expected(json.loads(inputs)["n"]):
            yield f"{flow} {run} of {parent} is {state} with {outputs} from {inputs}: {error}"


def check_orders(folder: Path) -> list[str]:
    """Orders that arrived outside more than once, and work that was ordered twice under two ids."""
    orders = lines(folder / "orders")
    ids, places = [words[0] for words in orders], [(words[2], words[3]) for words in orders]
    twice = {each for each in ids if ids.count(each) > 1} if len(set(ids)) < len(ids) else set()
    doubled = {each for each in places if places.count(each) > 1} if len(set(places)) < len(places) else set()
    return [f"order {each} was sent twice" for each in twice] + [f"ordered twice: {each}" for each in doubled]


def check_sites(folder: Path) -> list[str]:
    """Two runs at one site at a time. A run that died there comes back before anybody else enters."""
    inside: dict[str, str] = {}
    wrong = []
    for what, run, *more in lines(folder / "did"):
        if what == "in":
            if inside.get(more[0], run) != run:
                wrong.append(f"{run} entered {more[0]} while {inside[more[0]]} was there")
            inside[more[0]] = run
        elif what == "out" and inside.get(more[0]) == run:
            del inside[more[0]]
    return wrong


def check_repeats(folder: Path, before: int, done: set[tuple[str, str]]) -> list[str]:
    """Blocks that began after ``before`` bytes of the log although they were on record as done."""
    return [f"{run} {path} ran again" for what, run, path, *_ in _did(folder, before) if (run, path) in done]


def _did(folder: Path, before: int) -> Iterator[list[str]]:
    yield from (words for words in lines(folder / "did", before) if words[0] == "did")
