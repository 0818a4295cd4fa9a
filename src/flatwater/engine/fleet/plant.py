"""Where robots can drive: points in metres, joined by ways, and the names of what stands beside them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from heapq import heappop, heappush
from itertools import pairwise
from math import hypot

from msgspec import Struct

from flatwater.errors import LimitError, NotFoundError, SettingError


class Node(Struct, frozen=True):
    """A point of the map, ``x`` and ``y`` in metres."""

    id: str
    x: float
    y: float


class Plant:
    """A map: nodes, edges that can be driven in both directions, and stations (names that stand at nodes).

    Raises SettingError when an edge or a station names a node that is not there, LimitError above ``max_nodes``.
    """

    def __init__(
        self,
        nodes: Iterable[Node],
        edges: Iterable[tuple[str, str]],
        stations: Mapping[str, str] | None = None,
        *,
        max_nodes: int = 10_000,
    ) -> None:
        self.nodes = {node.id: node for node in nodes}
        if len(self.nodes) > max_nodes:
            raise LimitError(f"the map has {len(self.nodes)} nodes, {max_nodes} are allowed", hint="raise max_nodes")
        self.edges = tuple(edges)
        self.stations = dict(stations or {})
        self._check()
        self._ways: dict[str, list[tuple[str, float]]] = {name: [] for name in self.nodes}
        for one, two in self.edges:
            length = self._span(one, two)
            self._ways[one].append((two, length))
            self._ways[two].append((one, length))

    def locate(self, station: str) -> str:
        """The id of the node at which ``station`` stands; a node's own id is one too. Raises NotFoundError."""
        node = self.stations.get(station, station)
        if node in self.nodes:
            return node
        near = get_close_matches(station, [*self.stations, *self.nodes], n=3)
        hint = f"is it {' or '.join(near)}?" if near else f"the map knows {len(self.stations)} stations"
        raise NotFoundError(f"station {station!r} is not on the robots' map", hint=hint)

    def route(self, start: str, end: str) -> tuple[str, ...]:
        """The nodes of the shortest way, both ends included. Raises NotFoundError when there is none."""
        came_from: dict[str, str] = {start: start}
        lengths = {start: 0.0}
        queue = [(0.0, start)]
        while queue:
            length, node = heappop(queue)
            if node == end:
                return _trace(came_from, end)
            if length > lengths[node]:
                continue
            for neighbour, span in self._ways[node]:
                total = length + span
                if total < lengths.get(neighbour, float("inf")):
                    lengths[neighbour] = total
                    came_from[neighbour] = node
                    heappush(queue, (total, neighbour))
        raise NotFoundError(f"no way leads from {start!r} to {end!r}", hint="join them by edges")

    def distance(self, start: str, end: str) -> float:
        """Metres along the shortest way."""
        return sum(self._span(one, two) for one, two in pairwise(self.route(start, end)))

    def _span(self, one: str, two: str) -> float:
        a, b = self.nodes[one], self.nodes[two]
        return hypot(a.x - b.x, a.y - b.y)

    def _check(self) -> None:
        named = {end for edge in self.edges for end in edge} | set(self.stations.values())
        if missing := sorted(named - self.nodes.keys()):
            raise SettingError(f"the map has no node {', '.join(missing)}", hint="add the nodes, or correct the names")


def _trace(came_from: dict[str, str], end: str) -> tuple[str, ...]:
    way = [end]
    while came_from[way[-1]] != way[-1]:
        way.append(came_from[way[-1]])
    return tuple(reversed(way))
