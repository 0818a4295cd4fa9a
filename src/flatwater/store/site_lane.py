"""Dense lanes: cells in a row, reached only from a mouth. One mouth makes a stack, two make a queue. Pure functions.

A load is put from mouth 1 and taken from the last mouth. Nothing passes a cell that is filled, locked or disabled,
and at each mouth only one task works at a time.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from flatwater.store.site_record import Site

PUT_MOUTH = 1


def get_mouth(cells: Sequence[Site]) -> int:
    return 2 if any(cell.mouths == 2 for cell in cells) else 1


def put_cell(cells: Sequence[Site]) -> Site | None:
    """The deepest free cell that mouth 1 can reach."""
    if _busy(cells, PUT_MOUTH):
        return None
    reached: Site | None = None
    for cell in _from_mouth(cells, PUT_MOUTH):
        if cell.filled or _blocked(cell):
            break
        reached = cell
    return reached


def get_cell(cells: Sequence[Site]) -> Site | None:
    """The first filled cell from the mouth where loads leave."""
    mouth = get_mouth(cells)
    if _busy(cells, mouth):
        return None
    for cell in _from_mouth(cells, mouth):
        if _blocked(cell):
            return None
        if cell.filled:
            return cell
    return None


def reachable(cells: Sequence[Site]) -> list[tuple[Site, int]]:
    """What the lane offers now: at most one cell to put into and one to take from, each with its mouth."""
    offers = ((put_cell(cells), PUT_MOUTH), (get_cell(cells), get_mouth(cells)))
    return [(cell, mouth) for cell, mouth in offers if cell is not None]


def _from_mouth(cells: Iterable[Site], mouth: int) -> list[Site]:
    return sorted(cells, key=lambda cell: cell.depth or 0, reverse=mouth == 2)


def _blocked(cell: Site) -> bool:
    return cell.locked_run is not None or not cell.enabled


def _busy(cells: Iterable[Site], mouth: int) -> bool:
    return any(cell.locked_run is not None and cell.locked_mouth == mouth for cell in cells)
