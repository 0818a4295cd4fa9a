"""The layout of Small Hall: sites, the robots' map and the robots. Lengths in metres, y upwards.

Goods come in at the left and go out at the right. Two aisles run along the hall; between them stand the dense lanes:

    EMPTY-1 … EMPTY-6                                   OUT-2
    ═══ aisle 2 (y 14) ═════════════════════════╤══════
    BUF-C-1 … BUF-C-4                 │    │    │       OUT-1
    BUF-B-1 … BUF-B-4            LANE1│LANE2│FLOW│      LINE-2
    ═══ aisle 1 (y 6) ════════════════╧════╧════╧══════
    chargers  BUF-A-1 … BUF-A-4       parking           LINE-1
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

import msgspec

from flatwater.bounded import Ledger
from flatwater.engine.fleet import Failure, Fleet, FleetOptions, Node, Plant, RobotSpec
from flatwater.store.site import SiteSpec
from flatwater.store.store import Store

MAP = "small-hall"
SKUS = ("bolts", "gears", "pumps", "seals", "valves")
EMPTY_PALLET = "empty pallet"
LANE_DEPTH = 5
AISLE_1 = (2, 4, 7, 10, 13, 16, 19, 22, 24, 27, 30, 34, 38)
AISLE_2 = (2, 7, 10, 13, 16, 19, 22, 24, 27, 30, 34, 38)
CROSSINGS = (2, 22, 34)
COLUMNS = (10, 13, 16, 19)
LANES = {"LANE1": (24, 1), "LANE2": (27, 1), "FLOW": (30, 2)}  # x, mouths
SPURS = {  # stations off the aisles: x, y and the node that leads there
    "IN-1": (0, 4, "A1-2"),
    "IN-2": (0, 12, "A2-2"),
    "LINE-1": (40, 4, "A1-38"),
    "LINE-2": (40, 8, "A1-38"),
    "OUT-1": (40, 12, "A2-38"),
    "OUT-2": (40, 16, "A2-38"),
    "CHARGE-1": (4, 3, "A1-4"),
    "CHARGE-2": (7, 3, "A1-7"),
    "PARK-1": (22, 3, "A1-22"),
    "PARK-2": (24, 3, "A1-24"),
    "PARK-3": (27, 3, "A1-27"),
}
ROBOTS = tuple(
    RobotSpec(id=f"R{number}", home=f"PARK-{number}", tags=("fork",), groups=("hall",), battery=battery)
    for number, battery in ((1, 0.95), (2, 0.8), (3, 0.65))
)


def plant() -> Plant:
    """About 40 nodes: a node in each aisle before everything that stands there, and a spur to what stands apart."""
    nodes = [Node(f"A1-{x}", x, 6) for x in AISLE_1] + [Node(f"A2-{x}", x, 14) for x in AISLE_2]
    nodes += [Node(name, x, y) for name, (x, y, _) in SPURS.items()]
    edges = [(f"A{aisle}-{a}", f"A{aisle}-{b}") for aisle, xs in ((1, AISLE_1), (2, AISLE_2)) for a, b in pairwise(xs)]
    edges += [(f"A1-{x}", f"A2-{x}") for x in CROSSINGS]
    edges += [(node, name) for name, (_, _, node) in SPURS.items()]
    return Plant(nodes, edges, dict(_stations()))


def _stations() -> Iterator[tuple[str, str]]:
    """Where a robot stands to serve each site that is no node itself."""
    for row, aisle in (("A", 1), ("B", 1), ("C", 2)):
        yield from ((f"BUF-{row}-{number}", f"A{aisle}-{x}") for number, x in enumerate(COLUMNS, 1))
    yield from ((f"EMPTY-{number}", f"A2-{x}") for number, x in enumerate((7, *COLUMNS, 22), 1))
    for lane, (x, _) in LANES.items():
        yield from ((f"{lane}-{depth}", f"A1-{x}") for depth in range(1, LANE_DEPTH + 1))
    yield "FLOW-in", "A2-30"  # what goes into the flow lane comes from the other side


def sites() -> list[SiteSpec]:
    """All sites as they are on the first day: half of the buffer, of LANE1 and of the flow lane is filled."""
    found = []
    for name, (x, y, _) in SPURS.items():
        group = name.partition("-")[0]
        if group != "PARK":
            found.append(_site(name, group, x, y, EMPTY_PALLET if group == "LINE" else None))
    for row, y in (("A", 3), ("B", 9), ("C", 11)):
        for number, x in enumerate(COLUMNS, 1):
            found.append(_site(f"BUF-{row}-{number}", "BUF", x, y, SKUS[number] if row != "C" else None))
    found += [_site(f"EMPTY-{number}", "EMPTY", x, 17) for number, x in enumerate((7, *COLUMNS, 22), 1)]
    for lane, (x, mouths) in LANES.items():
        for depth in range(1, LANE_DEPTH + 1):
            above = 6.5 + depth * 1.2 if mouths == 1 else 13.5 - depth * 1.2
            content = SKUS[0] if depth > 2 and lane != "LANE2" else None
            found.append(_site(f"{lane}-{depth}", lane, x, above, content, lane=lane, depth=depth, mouths=mouths))
    return found


def _site(name: str, group: str, x: float, y: float, content: str | None = None, **lane: object) -> SiteSpec:
    number = int(name.rpartition("-")[2])
    attrs = msgspec.json.encode({"initial": int(content is not None)}).decode()
    return SiteSpec(
        id=name, group_name=group, order_no=number, filled=content is not None, content=content, attrs=attrs,
        map_id=MAP, x=float(x), y=float(y), **lane,  # type: ignore[arg-type]
    )  # fmt: skip


def fleet(store: Store, *, speed: float = 10.0, seed: int = 1, ledger: Ledger | None = None) -> Fleet:
    """The hall's three robots, ``speed`` times faster than life. Loading from the flow lane fails in 10 % of cases."""
    options = FleetOptions(
        speed=speed,
        seed=seed,
        failures=(Failure(operation="ForkLoad", probability=0.1, at="FLOW"),),
        chargers=("CHARGE-1", "CHARGE-2"),
        keep_s=3600.0,
    )
    return Fleet(store, plant(), ROBOTS, options=options, ledger=ledger, name="small hall")
