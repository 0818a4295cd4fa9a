"""One object: who holds it, what it holds, and the way to it. Enter walks on."""

from __future__ import annotations

import threading
from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.screen import Screen
from textual.widgets import DataTable, Footer, Header, Static

from flatwater.cli.top import figure
from flatwater.errors import FlatwaterError
from flatwater.memory.heap_graph import Graph
from flatwater.memory.heap_model import Edge, HeapError, Link, Node
from flatwater.memory.target import Target, graph

_SHOWN = 100


class ItemScreen(Screen[None]):
    """The object at ``address``, or the objects of type ``kind`` that retain most. One graph serves the whole walk."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape", "app.pop_screen", "leave the object"),
        Binding("backspace", "back", "one step back"),
        Binding("q", "app.quit", "leave"),
    ]

    def __init__(self, target: Target, asking: threading.Lock, *, address: int = 0, kind: str = "") -> None:
        super().__init__()
        self._target = target
        self._asking = asking  # a target answers one question at a time
        self._walk = [address] if address else []
        self._kind = kind
        self._graph: Graph | None = None

    def compose(self) -> ComposeResult:
        yield Header()
        yield Static("taking the graph …", id="path", classes="title")
        for name, title in (("referrers", "held by"), ("referents", "holds")):
            table: DataTable[object] = DataTable(cursor_type="row", zebra_stripes=True, id=name, classes="half")
            table.border_title = title
            table.add_columns("how", "type", "entries", "retains", "what")
            yield table
        yield Footer()

    def on_mount(self) -> None:
        self.query_one("#referents", DataTable).focus()
        self.run_worker(self._look, thread=True, exclusive=True)

    def on_unmount(self) -> None:
        self.run_worker(self._close, thread=True)

    def _close(self) -> None:
        with self._asking:
            if self._graph is not None:
                self._graph.close()

    def _look(self) -> None:
        try:
            with self._asking:
                if self._graph is None:
                    self._graph = graph(self._target)
                shown = self._item(self._walk[-1]) if self._walk else self._instances()
        except (FlatwaterError, HeapError, OSError) as error:
            shown = (str(error), [], [])
        self.app.call_from_thread(self._draw, *shown)

    def _item(self, address: int) -> tuple[str, list[Link], list[Link]]:
        assert self._graph is not None  # opened before
        node = self._graph.node(None, address=address)
        path = self._graph.path_to(None, address=address)
        above = self._graph.referrers(None, address=address, limit=_SHOWN)
        below = self._graph.referents(None, address=address, limit=_SHOWN)
        text = (
            f"{node.type} · retains {figure.size(node.retained)} · held {above.count:,} times, holds {below.count:,}\n"
            f"{path}"
        )
        return text, list(above.links), list(below.links)

    def _instances(self) -> tuple[str, list[Link], list[Link]]:
        assert self._graph is not None
        found = [node for node in self._graph.largest(1000) if node.type == self._kind]
        text = f"{self._kind}: {len(found)} of its objects are among the 1,000 that retain most"
        return text, [], [Link(Edge("instance"), node) for node in found[:_SHOWN]]

    def _draw(self, text: str, above: list[Link], below: list[Link]) -> None:
        self.query_one("#path", Static).update(text)
        for name, links in (("referrers", above), ("referents", below)):
            table: DataTable[object] = self.query_one(f"#{name}", DataTable)
            table.clear()
            for number, link in enumerate(links):
                table.add_row(*_cells(link), key=f"{number}:{getattr(link.node, 'address', 0)}")

    def on_data_table_row_selected(self, event: DataTable.RowSelected) -> None:
        address = int((event.row_key.value or "0:0").partition(":")[2])
        if address:  # a root has none
            self._walk.append(address)
            self.run_worker(self._look, thread=True, exclusive=True)

    def action_back(self) -> None:
        if len(self._walk) > (0 if self._kind else 1):
            self._walk.pop()
            self.run_worker(self._look, thread=True, exclusive=True)


def _cells(link: Link) -> tuple[object, ...]:
    edge, node = link.edge, link.node
    how = edge.name or (f"[{edge.index}]" if edge.index >= 0 else f"{edge.kind} {edge.key_type}".strip())
    if not isinstance(node, Node):
        return how, node.kind, "", figure.size(node.retained), str(node)
    length = "" if node.length is None else f"{node.length:,}"
    place = f" {node.file.rpartition('/')[2]}:{node.line}" if node.file else ""
    return how, node.type, length, figure.size(node.retained), f"{node.label}{place}"
