"""What changed between two graphs."""

from __future__ import annotations

from flatwater.memory import heap


class Parcel:
    """Something countable."""

    def __init__(self) -> None:
        self.label = object()


SHELF: list[Parcel] = []
TRASH: list[Parcel] = []


def test_growth_and_loss_by_type_and_by_holder() -> None:
    TRASH.extend(Parcel() for _ in range(3000))
    with heap.graph() as earlier:
        SHELF.extend(Parcel() for _ in range(20_000))
        TRASH.clear()
        with heap.graph() as later:
            found = later.diff(earlier)
            path = str(later.path_to(None, address=found.holders[0].node.address))
    parcel = next(row for row in found.types if row.type.endswith("Parcel"))
    assert parcel.count == 17_000
    assert found.types[0].bytes >= found.types[-1].bytes
    assert found.holders[0].bytes > 20_000 * 16
    assert "SHELF" in path or "Parcel" not in path, "the list, or what holds its module"
    shelf = next(row for row in found.holders if row.node.type == "list" and row.node.length == 20_000)
    assert shelf.before is None
    assert shelf.node.address == id(SHELF)
    SHELF.clear()


def test_nothing_changed() -> None:
    census = heap.census("all")
    assert heap.census_diff(census, census) == ()
