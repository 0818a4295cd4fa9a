"""What frameworks have counted, read from the process that runs them."""

from __future__ import annotations

import gc
import json
import random
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NoReturn

import celery
import huey
import pytest
import uvicorn.server
from jsonschema_rs import Draft202012Validator

from flatwater.guard.policy import Limits
from flatwater.guard.worker import Worker
from flatwater.memory.command import Session
from flatwater.memory.per_work import Cause, Look, goes_with, per
from flatwater.memory.work import RUNNING, work_done

ROOT = Path(__file__).parents[2]
SCHEMA = json.loads((ROOT / "docs/reference/diagnosis.schema.json").read_text())
KINDS = {"huey": ("huey task", "grow"), "asgi": ("request", "GET /leak/{}"), "engine": ("run", "grow")}

app = celery.Celery("works", broker="memory://", backend="cache+memory://")


@app.task
def look() -> dict[str, dict[str, int]]:
    return work_done(None)


def test_a_celery_task_that_runs_is_named() -> None:
    assert look.apply().get()[RUNNING] == {look.name: 1}
    assert RUNNING not in work_done(None)


class Items:
    type = "celery.result.AsyncResult"


class Grown:
    """What `per` reads of a suspect."""

    items = Items()
    length, retained = 10_000, 8_000_000
    per_s, bytes_per_s = 250.0, 200_000.0


def test_growth_per_completed_piece_of_work_or_per_running_one() -> None:
    assert per(Grown(), {}, 10) is None  # type: ignore[arg-type]
    running = per(Grown(), {RUNNING: {"demo.task": 1}}, 10)  # type: ignore[arg-type]
    assert running is not None
    assert running["text"] == "10,000 AsyncResult so far per demo.task that runs"
    done = per(Grown(), {RUNNING: {"demo.task": 1}, "request": {"uvicorn": 500}}, 10)  # type: ignore[arg-type]
    assert done is not None
    assert (done["unit"], done["items"]) == ("request", 5.0)
    assert done["text"] == "+5 AsyncResult per request uvicorn"
    several = {"huey task": {"grow": 100, "calm": 400}}
    mixed = per(Grown(), several, 10)  # type: ignore[arg-type]
    assert mixed is not None
    assert (mixed["name"], mixed["count"], mixed["goes_with"]) == ("", 500, False)
    assert mixed["text"] == "+5 AsyncResult per huey task of 2 kinds"
    sure = per(Grown(), several, 10, Cause("huey task", "grow", 25.0))  # type: ignore[arg-type]
    assert sure is not None
    assert (sure["name"], sure["items"], sure["bytes"], sure["goes_with"]) == ("grow", 25.0, 20_000.0, True)


def course(
    calls: list[tuple[int, int]], gains: list[float], apart: list[float] | None = None
) -> tuple[list[tuple[float, float]], list[Look]]:
    """Points and looks of a window in which two tasks were called so often between the looks."""
    at, amount, one, other = 0.0, 0.0, 0, 0
    points: list[tuple[float, float]] = [(at, amount)]
    looks: list[Look] = [(at, {"task": {"one": 0, "other": 0}})]
    for number, ((more, others), gain) in enumerate(zip(calls, gains, strict=True)):
        at, amount, one, other = at + (apart[number] if apart else 1.0), amount + gain, one + more, other + others
        points.append((at, amount))
        looks.append((at, {"task": {"one": one, "other": other}}))
    return points, looks


CALLS = [(3, 20), (25, 4), (8, 9), (30, 2), (1, 17), (12, 12), (22, 3), (5, 26), (16, 8), (2, 14)]


def test_the_task_whose_calls_the_growth_follows_is_the_cause() -> None:
    assert goes_with(*course(CALLS, [3.0 * one for one, _ in CALLS])) == ("task", "one", 3.0)
    assert goes_with(*course(CALLS, [7.0 * other for _, other in CALLS])) == ("task", "other", 7.0)


def test_no_cause_where_it_cannot_be_told() -> None:
    both = [2.0 * one + 2.0 * other for one, other in CALLS]
    assert goes_with(*course(CALLS, both)) is None, "both leak"
    assert goes_with(*course(CALLS, [40.0] * 10)) is None, "it grows by the clock"
    even = [(10, 10)] * 10
    assert goes_with(*course(even, [30.0] * 10)) is None, "the mixture never changes"
    assert goes_with(*course(CALLS[:3], [3.0 * one for one, _ in CALLS[:3]])) is None, "too few looks"
    assert goes_with([(0.0, 1.0)], []) is None


def test_chance_makes_no_cause() -> None:
    draw = random.Random(4)
    told = 0
    for _ in range(200):
        apart = [draw.uniform(0.6, 1.4) for _ in range(15)]
        calls = [(round(draw.gauss(50, 7) * took), round(draw.gauss(50, 7) * took)) for took in apart]
        told += goes_with(*course(calls, [draw.gauss(100, 10) * took for took in apart], apart)) is not None
    assert told <= 10


@pytest.fixture
def no_listing(monkeypatch: pytest.MonkeyPatch) -> None:
    """A list of all objects would touch every reference count."""

    def refuse(*_: object, **__: object) -> NoReturn:
        raise AssertionError("the collector was asked for its objects")

    monkeypatch.setattr(gc, "get_objects", refuse)


@pytest.fixture
def frozen() -> Iterator[uvicorn.server.ServerState]:
    state = uvicorn.server.ServerState()
    gc.freeze()
    yield state
    gc.unfreeze()


@pytest.mark.usefixtures("no_listing")
def test_a_frozen_server_is_found_and_no_other_object_touched(frozen: uvicorn.server.ServerState) -> None:
    before = work_done(None)["request"]["uvicorn"]
    frozen.total_requests += 5
    assert work_done(None)["request"]["uvicorn"] == before + 5


class Vegan(uvicorn.server.ServerState):
    """A subclass counts, too."""


def test_a_session_asks_what_its_last_search_found_and_holds_nothing() -> None:
    session, state = Session(), Vegan()
    before = work_done(session)["request"]["uvicorn"]
    state.total_requests += 3
    another = Vegan()
    another.total_requests = 100
    assert work_done(session, search=False)["request"]["uvicorn"] == before + 3
    assert work_done(session)["request"]["uvicorn"] == before + 103
    del state, another
    assert work_done(session, search=False).get("request", {}).get("uvicorn", 0) <= before


@pytest.fixture
def queue(tmp_path: Path) -> huey.SqliteHuey:
    return huey.SqliteHuey("work", filename=str(tmp_path / "huey.db"), fsync=False)


def test_a_huey_worker_counts_and_its_running_task_is_named(queue: huey.SqliteHuey) -> None:
    seen: list[dict[str, dict[str, int]]] = []
    look = queue.task(name="look")(lambda: seen.append(work_done(None)))
    worker = queue.create_consumer(workers=1)._create_worker()
    look()
    look()
    worker.loop()
    worker.loop()
    one, two = seen
    assert one["running huey task"] == two["running huey task"] == {"look": 1}
    assert two["huey task"][""] == one["huey task"][""] + 1


def test_the_guard_tells_names_in_place_of_the_framework(queue: huey.SqliteHuey) -> None:
    worker = Worker("huey:work", limits=Limits(), on_recycle=print)
    try:
        for _ in range(3):
            worker.begin("shop.order", "1")
            worker.end()
        consumer = queue.create_consumer(workers=1)._create_worker()
        consumer.task_count = 7
        assert work_done(None)["huey task"] == {"shop.order": 3}
    finally:
        worker.close()
    del worker
    gc.collect()
    assert work_done(None)["huey task"][""] >= 7


@pytest.fixture(scope="module")
def reports(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    """Huey's consumer, uvicorn and the engine, each growing with one sort of its work: all at once, to save time."""
    running = {}
    for kind in KINDS:
        command = [sys.executable, "-m", "tests.memory.work_program", kind, str(tmp_path_factory.mktemp(kind))]
        running[kind] = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    told = {}
    for kind, process in running.items():
        out, errors = process.communicate(timeout=200)
        assert process.returncode == 0, errors.decode()
        told[kind] = json.loads(out)
    return told


@pytest.mark.parametrize("kind", KINDS)
def test_the_task_endpoint_or_definition_with_which_it_grows_is_named(
    kind: str, reports: dict[str, dict[str, Any]]
) -> None:
    report, (unit, name) = reports[kind], KINDS[kind]
    Draft202012Validator(SCHEMA).validate(report)
    assert report["verdict"]["goes_with"] == {"unit": unit, "name": name}
    leak = next(one for one in report["suspects"] if "KEPT" in one["container"]["path"])
    assert (leak["per"]["unit"], leak["per"]["name"], leak["per"]["goes_with"]) == (unit, name, True)
    assert 2 < leak["per"]["items"] < 4, leak["per"]
