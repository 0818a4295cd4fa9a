"""The map, and trips on it."""

from __future__ import annotations

from math import hypot

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flatwater.engine.fleet.motion import Place, plan, stay
from flatwater.engine.fleet.plant import Node, Plant
from flatwater.errors import LimitError, NotFoundError, SettingError
from tests.engine.fleet.hall import EDGES, NODES, hall


def test_stations_and_nodes_are_found_and_typing_errors_are_explained():
    plant = hall()
    assert plant.locate("shelf") == "C"
    assert plant.locate("C") == "C"
    with pytest.raises(NotFoundError, match="is it shelf"):
        plant.locate("shelv")


def test_what_the_map_cannot_be():
    with pytest.raises(SettingError, match="no node X"):
        Plant(NODES, [("A", "X")])
    with pytest.raises(SettingError, match="no node Y"):
        Plant(NODES, EDGES, {"dock": "Y"})
    with pytest.raises(LimitError):
        Plant(NODES, EDGES, max_nodes=2)
    with pytest.raises(NotFoundError, match="no way leads"):
        hall().route("A", "E")


def test_a_stopped_robot_goes_on_to_the_node_ahead():
    plant = hall()
    trip = plan(plant, Place("A", 0, 0), "D", 100.0, 1.0)
    assert trip.ends_at == 130.0
    assert trip.position(115.0) == (15.0, 0.0)
    stopped = trip.stop(115.0)
    assert stopped == Place("C", 15.0, 0.0)
    back = plan(plant, stopped, "A", 115.0, 1.0)
    assert back.ends_at == 115.0 + 5.0 + 20.0
    assert trip.rest(115.0) == ((115.0, 15.0, 0.0), (120.0, 20, 0), (130.0, 30, 0))
    assert trip.rest(131.0) == ()


def test_staying_is_a_trip_too():
    trip = stay(Place("B", 10, 0), 5.0)
    assert (trip.begins_at, trip.ends_at, trip.metres, trip.travelled(9.0)) == (5.0, 5.0, 0.0, 0.0)
    assert trip.position(0.0) == trip.position(9.0) == (10, 0)


GRID = [Node(f"{x}/{y}", x * 3.0, y * 4.0) for x in range(4) for y in range(4)]
PAIRS = [(a.id, b.id) for a in GRID for b in GRID if abs(a.x - b.x) / 3 + abs(a.y - b.y) / 4 == 1]
names = st.sampled_from([node.id for node in GRID])


@given(st.sets(st.sampled_from(PAIRS), min_size=1), names, names, st.floats(0.1, 100), st.floats(0, 2e9))
def test_a_trip_takes_as_long_as_the_shortest_way_is_long(edges, start, end, speed, begins_at):
    plant = Plant(GRID, edges)
    home = plant.nodes[start]
    try:
        trip = plan(plant, Place(start, home.x, home.y), end, begins_at, speed)
    except NotFoundError:
        assert end not in _reach(plant, start)
        return
    length = plant.distance(start, end)
    assert trip.metres == pytest.approx(length)
    assert trip.ends_at - begins_at == pytest.approx(length / speed, abs=1e-4)
    assert length >= hypot(home.x - plant.nodes[end].x, home.y - plant.nodes[end].y) - 1e-9
    middle = (begins_at + trip.ends_at) / 2
    assert trip.travelled(middle) == pytest.approx(length / 2, abs=speed * 1e-3)
    assert trip.position(trip.ends_at + 1) == (plant.nodes[end].x, plant.nodes[end].y)


@given(st.sets(st.sampled_from(PAIRS), min_size=1), names, names)
def test_no_way_is_shorter_than_the_one_found(edges, start, end):
    plant = Plant(GRID, edges)
    lengths = _lengths(plant, start)
    if end in lengths:
        assert plant.distance(start, end) == pytest.approx(lengths[end])


def _reach(plant: Plant, start: str) -> set[str]:
    return set(_lengths(plant, start))


def _lengths(plant: Plant, start: str) -> dict[str, float]:
    """All shortest lengths by relaxing until nothing changes: slow, and obviously right."""
    lengths = {start: 0.0}
    changed = True
    while changed:
        changed = False
        for one, two in [*plant.edges, *((b, a) for a, b in plant.edges)]:
            if one in lengths:
                a, b = plant.nodes[one], plant.nodes[two]
                total = lengths[one] + hypot(a.x - b.x, a.y - b.y)
                if total < lengths.get(two, float("inf")) - 1e-12:
                    lengths[two], changed = total, True
    return lengths
