"""An account that the database itself keeps of what is done to it, by triggers, beside the code under test."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from tests.live.inferiors.flows import FLOWS, wanted
from tests.live.inferiors.outside import lines

ENDED = "('SUCCEEDED', 'FAILED', 'CANCELED')"
TRIGGERS = f"""
CREATE TABLE audit (id INTEGER PRIMARY KEY, what TEXT, run TEXT, detail TEXT);
CREATE TRIGGER audit_end AFTER UPDATE OF state ON run WHEN NEW.state IN {ENDED} AND OLD.state NOT IN {ENDED}
    BEGIN INSERT INTO audit (what, run, detail) VALUES ('ended', NEW.id, NEW.state); END;
CREATE TRIGGER audit_terminal AFTER UPDATE OF state ON run WHEN OLD.state IN {ENDED}
    BEGIN INSERT INTO audit (what, run, detail) VALUES ('left its end', NEW.id, OLD.state || ' ' || NEW.state); END;
CREATE TRIGGER audit_epoch AFTER UPDATE OF epoch ON run WHEN NEW.epoch < OLD.epoch OR NEW.epoch > OLD.epoch + 1
    BEGIN INSERT INTO audit (what, run, detail) VALUES ('epoch', NEW.id, OLD.epoch || ' ' || NEW.epoch); END;
CREATE TRIGGER audit_step AFTER UPDATE ON step WHEN OLD.state = 'SUCCEEDED'
    BEGIN INSERT INTO audit (what, run, detail) VALUES ('done again', NEW.run_id, NEW.path || ' ' || NEW.state); END;
CREATE TRIGGER audit_late AFTER INSERT ON step
    WHEN (SELECT state FROM run WHERE id = NEW.run_id) IN {ENDED} AND NEW.state IN ('RUNNING', 'SUCCEEDED')
    BEGIN INSERT INTO audit (what, run, detail) VALUES ('step after the end', NEW.run_id, NEW.path); END;
CREATE TRIGGER audit_site AFTER UPDATE OF locked_run ON site
    WHEN OLD.locked_run IS NOT NULL AND NEW.locked_run IS NOT NULL AND OLD.locked_run <> NEW.locked_run
    BEGIN INSERT INTO audit (what, run, detail) VALUES ('two owners', NEW.locked_run, NEW.id); END;
"""
ILLEGAL = ("left its end", "epoch", "done again", "step after the end", "two owners")


@contextmanager
def open_file(path: Path) -> Iterator[sqlite3.Connection]:
    with closing(sqlite3.connect(path, timeout=30)) as file:
        yield file
        file.commit()


def install(path: Path) -> None:
    with open_file(path) as file:
        file.executescript(TRIGGERS)


def succeeded(path: Path) -> set[tuple[str, str]]:
    """(run, block path) of all that is on record as done."""
    with open_file(path) as file:
        return set(file.execute("SELECT run_id, path FROM step WHERE state = 'SUCCEEDED'"))


def open_runs(path: Path) -> int:
    with open_file(path) as file:
        return int(file.execute(f"SELECT count(*) FROM run WHERE state NOT IN {ENDED}").fetchone()[0])


def check_accepted(path: Path, folder: Path) -> list[str]:
    """Runs that were acknowledged and are not there."""
    with open_file(path) as file:
        stored = dict(file.execute("SELECT out_order_no, id FROM run WHERE out_order_no IS NOT NULL"))
    return [f"{key} was acknowledged as {run}" for key, run in lines(folder / "accepted") if stored.get(key) != run]


def check_end(path: Path, folder: Path, count: int) -> list[str]:
    """All that is wrong once everything is said to have ended."""
    with open_file(path) as file:
        rows = file.execute(
            "SELECT out_order_no, id, definition_id, state, outputs, error, parent_id, epoch, worker, queue, request,"
            " inputs FROM run"
        ).fetchall()
        audit = file.execute("SELECT what, run, detail FROM audit").fetchall()
        rest = {
            "waiters": file.execute("SELECT run_id, path, kind FROM waiter").fetchall(),
            "locked sites": file.execute("SELECT id, locked_run FROM site WHERE locked_run IS NOT NULL").fetchall(),
            "open steps": file.execute(
                "SELECT run_id, path, type, state FROM step WHERE state NOT IN ('SUCCEEDED', 'FAILED', 'CANCELED',"
                " 'SKIPPED') AND ended_at IS NULL AND order_id IS NOT NULL"
            ).fetchall(),
        }
    wrong = [f"{what}: {found[:5]}" for what, found in rest.items() if found]
    wrong += [f"{what}: run {run}, {detail}" for what, run, detail in audit if what in ILLEGAL]
    wrong += [f"ended {times} times: {run}" for run, times in _ends(audit, rows).items() if times != 1]
    wrong += check_accepted(path, folder) + list(_runs(rows, count)) + check_orders(folder) + check_sites(folder)
    return wrong


def _ends(audit: list[Any], rows: list[Any]) -> dict[str, int]:
    ends = {row[1]: 0 for row in rows}
    for what, run, _ in audit:
        ends[run] = ends.get(run, 0) + (what == "ended")
    return ends


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
