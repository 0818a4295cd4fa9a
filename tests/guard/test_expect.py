"""What should be dead: it dies, or is named with who holds it."""

from __future__ import annotations

import gc
import weakref

import pytest

from flatwater.memory import control_group, heap
from flatwater.memory.expect import Expectation, NotWatchable, Retained
from flatwater.memory.trim import Trimmer, holders, trim

pytestmark = pytest.mark.usefixtures("usual_priority")

KEEPER: list[object] = []
MIB = 1 << 20


class Thing:
    def __init__(self) -> None:
        self.me: Thing | None = None


class Context:
    def __init__(self) -> None:
        self._children: list[Thing] = []


Context.__module__, Context.__qualname__ = "celery.app.task", "Context"


def make(**settings: object) -> Expectation:
    return Expectation(min_collect_s=1e-9, min_graph_s=1e-9, **settings)  # type: ignore[arg-type]


def test_what_dies_is_counted_and_forgotten() -> None:
    expectation = make()
    for _ in range(10):
        thing = Thing()
        thing.me = thing  # a cycle: dies by the collection that check makes
        expectation.expect_dead(thing, "thing", after_s=0)
    del thing
    assert expectation.check() == ()
    figures = expectation.statistics()
    assert (figures.watched, figures.died, figures.retained, figures.size) == (10, 10, 0, 0)


@pytest.mark.skipif(heap._heap is None, reason="paths need the C extension")
def test_the_retaining_path_is_named_and_the_known_pattern_advised() -> None:
    context = Context()
    context._children = [Thing() for _ in range(20)]
    KEEPER.append(context)
    told: list[Retained] = []
    try:
        expectation = make(on_retained=told.append)
        for thing in context._children:
            expectation.expect_dead(thing, "result", after_s=0)
        del thing, context
        (found,) = expectation.check()
    finally:
        KEEPER.clear()
    assert told == [found]
    assert "KEEPER" in found.path
    assert "Context._children" in found.path
    assert (found.owner, found.alike) == ("celery.app.task.Context._children", 19)
    assert "trail=False" in found.advice
    gc.collect()
    assert expectation.check() == ()


def test_nothing_is_reported_before_its_time_nor_twice() -> None:
    now = [0.0]
    expectation = make(clock=lambda: now[0])
    thing = Thing()
    expectation.expect_dead(thing, "thing", after_s=5)
    assert expectation.check() == ()
    assert expectation.statistics().collections == 0
    now[0] = 5
    assert [one.age_s for one in expectation.check()] == [5]
    now[0] = 10
    assert expectation.check() == ()


def test_collections_and_graphs_are_rate_limited() -> None:
    now = [0.0]
    expectation = Expectation(min_collect_s=10, min_graph_s=1000, clock=lambda: now[0])
    things = [Thing() for _ in range(3)]
    reports = []
    for at, thing in enumerate(things):
        now[0] = at * 4.0
        expectation.expect_dead(thing, f"thing {at}", after_s=0)
        reports += expectation.check()
    assert [one.name for one in reports] == ["thing 0"]
    now[0] = 10.0
    late = expectation.check()
    assert sorted(one.name for one in late) == ["thing 1", "thing 2"]
    assert all("graph" in one.why for one in late)
    assert expectation.statistics().collections == 2


def test_without_collections_of_ours_it_waits_for_those_of_python() -> None:
    expectation = make(collect=False)
    cyclic, kept = Thing(), Thing()
    cyclic.me = cyclic
    expectation.expect_dead(cyclic, "cyclic", after_s=0)
    expectation.expect_dead(kept, "kept", after_s=0)
    dead = weakref.ref(cyclic)
    del cyclic
    gc.disable()
    try:
        before = [row["collections"] for row in gc.get_stats()]
        assert [expectation.check() for _ in range(3)] == [()] * 3
        assert [row["collections"] for row in gc.get_stats()] == before
        assert dead() is not None
        assert expectation.due
        gc.collect(1)
        assert expectation.check() == (), "not a full one"
        gc.collect()
        assert [one.name for one in expectation.check()] == ["kept"]
    finally:
        gc.enable()
    assert expectation.statistics().collections == 0
    assert not expectation.due


def test_without_collections_of_ours_the_oldest_watches_wait_on() -> None:
    expectation = make(collect=False, max_pending=2)
    things = [Thing() for _ in range(5)]
    for number, thing in enumerate(things):
        expectation.expect_dead(thing, str(number), after_s=0)
    assert expectation.statistics().refused == 3
    expectation.check()
    gc.collect()
    assert [one.name for one in expectation.check()] == ["0", "1"]


@pytest.mark.skipif(heap._heap is None, reason="paths need the C extension")
def test_a_graph_takes_no_more_than_half_of_the_room_that_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []
    graph = heap.graph

    def counted(*, max_bytes: int) -> heap.Graph:
        asked.append(max_bytes)
        return graph(max_bytes=max_bytes)

    monkeypatch.setattr(heap, "graph", counted)
    room: list[int | None] = [7 * MIB]
    expectation = make(room=lambda: room[0])
    thing = Thing()
    expectation.expect_dead(thing, "thing", after_s=0)
    (found,) = expectation.check()
    assert "7 MiB are left" in found.why
    assert not asked
    room[0] = 1 << 30
    expectation.expect_dead(thing, "thing", after_s=0)
    (found,) = expectation.check()
    assert asked == [512 * MIB]
    assert found.path
    monkeypatch.setattr(control_group, "own_use", lambda: (980 * MIB, 1000 * MIB))
    expectation.expect_dead(thing, "thing", after_s=0)
    expectation.check()
    assert asked[1:] == [10 * MIB], "the control group's"
    monkeypatch.setattr(control_group, "own_use", lambda: (1010 * MIB, 1000 * MIB))
    expectation.expect_dead(thing, "thing", after_s=0)
    assert "0 B are left" in expectation.check()[0].why


def test_pending_watches_are_bounded() -> None:
    expectation = make(max_pending=5)
    things = [Thing() for _ in range(9)]
    for thing in things:
        expectation.expect_dead(thing, "thing", after_s=99)
    figures = expectation.statistics()
    assert (figures.size, figures.bound, figures.refused) == (5, 5, 4)
    expectation.clear()
    assert expectation.statistics().size == 0


def test_objects_without_weak_references_are_refused_with_the_reason() -> None:
    with pytest.raises(NotWatchable, match=r"builtins\.dict has no weak references"):
        make().expect_dead({}, "a dict")


def test_trim_measures_what_came_back() -> None:
    rows = [bytearray(40_000) for _ in range(2500)]  # below malloc's mapping threshold: its heap grows by 100 MB
    last = bytearray(40_000)  # keeps the top of the heap from going back by itself
    full = holders()
    del rows
    assert trim().freed >= 0
    assert holders().private < full.private - 60 * MIB
    assert len(last) == 40_000
    assert "MiB" in str(full)


def test_the_trimmer_waits_longer_when_it_does_not_pay() -> None:
    now = [0.0]
    trimmer = Trimmer(min_bytes=8 * MIB, clock=lambda: now[0])
    assert trimmer.offer(100) is None, "the first level is the floor"
    assert trimmer.threshold == 100 + 8 * MIB
    assert trimmer.offer(100 + 8 * MIB) is not None
    now[0] += 1e6
    assert trimmer.threshold > 24 * MIB, "the floor is the level after, and nothing came back"
    assert trimmer.offer(0) is None
    assert trimmer.offer(15 * MIB) is None, "16 MiB are asked for now"
    assert trimmer.offer(17 * MIB) is not None
    assert trimmer.count == 2
