"""What holds the server's own memory. Always behind a token."""

from __future__ import annotations

from dataclasses import asdict

from flatwater.memory import heap
from flatwater.memory.heap_model import Link
from flatwater.memory.live import Series
from flatwater.server.instrument import MAX_LINKS
from flatwater.server.route import Table
from flatwater.server.service import Service
from flatwater.server.type.memory import (
    Collected,
    Figures,
    Graph,
    Heap,
    HeapQuery,
    Neighbour,
    Object,
    Row,
    Trimmed,
)

table = Table("memory")


@table.add("GET", "/api/memory")
async def figures(service: Service) -> Figures:
    """All memory figures of the process, and its SQLAlchemy pools."""
    used, pools = await service.instruments.usage()
    return Figures(asdict(used), [asdict(pool) for pool in pools])


@table.add("GET", "/api/memory/heap")
async def types(service: Service, query: HeapQuery) -> Heap:
    """Types and containers with their past, those that grew most first; one look a second at most."""
    watch = await service.instruments.look()
    found = watch.types(floor=query.floor, search=query.search)[: query.limit]
    lists = watch.containers(floor=query.floor)[: query.limit]
    return Heap(watch.looks, watch.cost_s, [_row(row) for row in found], [_row(row) for row in lists])


def _row(row: Series) -> Row:
    ident = heap.Container(row.address, row.name, row.now, row.bytes).id if row.address else ""
    return Row(row.name, row.now, row.grown, row.bytes, list(row.history), ident)


@table.add("POST", "/api/memory/graph")
async def take(service: Service) -> Graph:
    """Take the graph of all objects, in place of the one before: the server stands still for a fork.

    It is kept for a minute after the last question.
    """
    found = await service.instruments.take()
    largest = await service.instruments.ask(lambda graph: graph.largest(MAX_LINKS))
    lists = (await service.instruments.look()).containers()
    for row in lists[:MAX_LINKS]:
        service.instruments.know_container(row.address)
    for node in largest:
        service.instruments.know(node)
    return Graph(asdict(found.statistics()), [node.to_json() for node in largest])


@table.add("GET", "/api/memory/objects/{ident}", errors=(404,))
async def item(service: Service, ident: str) -> Object:
    """One object of the open graph: who holds it, what it holds, and the way to it."""
    instruments = service.instruments
    address = instruments.address(ident)

    def look(graph: heap.Graph) -> Object:
        above = graph.referrers(None, address=address, limit=MAX_LINKS)
        below = graph.referents(None, address=address, limit=MAX_LINKS)
        path = graph.path_to(None, address=address)
        instruments.know_links(above.links + below.links + path.steps)
        return Object(
            graph.node(None, address=address).to_json(),
            path.to_json(),
            above.count,
            [_neighbour(link) for link in above.links],
            below.count,
            [_neighbour(link) for link in below.links],
        )

    return await instruments.ask(look)


def _neighbour(link: Link) -> Neighbour:
    edge = link.edge
    how = edge.name or (f"[{edge.index}]" if edge.index >= 0 else f"{edge.kind} {edge.key_type}".strip())
    return Neighbour(how, link.node.to_json())


@table.add("POST", "/api/memory/collect")
async def collect(service: Service) -> Collected:
    """Run a full collection."""
    return Collected(**await service.instruments.command("collect"))


@table.add("POST", "/api/memory/trim")
async def trim(service: Service) -> Trimmed:
    """Ask malloc to give free memory back to the kernel."""
    return Trimmed(**await service.instruments.command("trim"))
