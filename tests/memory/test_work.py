"""What frameworks have counted, read from the process that runs them."""

from __future__ import annotations

import celery

from flatwater.memory.per_work import per
from flatwater.memory.work import RUNNING, work_done

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
