"""A worker that has grown works on until the one that replaces it takes tasks."""

from __future__ import annotations

from pathlib import Path

from tests.guard.consumer import Consumer, consuming
from tests.guard.guarding import GUARD

from flatwater.guard.record import Record

TASKS = 140


def test_never_fewer_consumers_than_configured(redis_url: str, tmp_path: Path) -> None:
    file = tmp_path / "guard.db"
    words = [*GUARD, "--record", str(file), "-n", "2", "--overlap", "--"]
    consumer = Consumer(tmp_path, redis_url, "thread", 1, *words, soft=90)
    consumer.call(f"for number in range({TASKS}): tasks.grow(number, 1024, 0.02)")
    with consuming(consumer):
        consumer.wait(lambda: len(consumer.rows()) >= TASKS and "recycled" in events(file))
    assert sorted(int(row[0]) for row in consumer.rows()) == list(range(TASKS)), "each ended once"
    told = events(file)
    assert told[:3] == ["start"] * 3, "two, and one that replaces"
    living = [2 + sum(1 if kind == "start" else -1 for kind in told[2:at]) for at in range(2, told.index("stopped"))]
    assert min(living) >= 2, told


def events(file: Path) -> list[str]:
    """Starts, and why workers ended, in order."""
    with Record(file) as record:
        found = [event for event in record.events() if event.body and event.kind in ("start", "end")]
    return [str(event.body.get("reason", "start")) for event in found]
