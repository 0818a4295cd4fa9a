"""One process: its types and containers with their histories. It is attached to while this screen is open."""

from __future__ import annotations

import threading
from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.screen import Screen
from textual.widgets import DataTable, Footer, Header, Input, Static
from textual.worker import get_current_worker

from flatwater.cli.top import figure
from flatwater.cli.top.item import ItemScreen
from flatwater.errors import FlatwaterError
from flatwater.memory.attach import attach
from flatwater.memory.heap_model import HeapError
from flatwater.memory.live import HeapWatch, Series
from flatwater.memory.target import Target

_FLOORS = 0, 100, 1_000, 10_000, 100_000
_SHOWN = 200
_REST = 20  # the target runs this many times as long as a look stops it


class HeapScreen(Screen[None]):
    """Types above, containers below, those that grew most first."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape", "app.pop_screen", "back"),
        Binding("slash", "search", "filter"),
        Binding("f", "floor", "floor"),
        Binding("g", "ask('collect')", "collect garbage"),
        Binding("t", "ask('trim')", "trim"),
        Binding("d", "diagnose", "diagnose"),
        Binding("q", "app.quit", "leave"),
    ]

    def __init__(self, pid: int) -> None:
        super().__init__()
        self._pid = pid
        self._floor = 0
        self._search = ""
        self._left = threading.Event()
        self._asking = threading.Lock()
        self._target: Target | None = None
        self._watch: HeapWatch | None = None

    def compose(self) -> ComposeResult:
        yield Header()
        yield Static("attaching …", id="state", classes="title")
        yield Input(placeholder="part of a type's name, then Enter", id="search")
        yield DataTable[object](cursor_type="row", zebra_stripes=True, id="types", classes="half")
        yield DataTable[object](cursor_type="row", zebra_stripes=True, id="containers", classes="half")
        yield Footer()

    def on_mount(self) -> None:
        self.query_one("#search", Input).display = False
        for name, entries in (("types", "objects"), ("containers", "entries")):
            table = self.table(name)
            table.border_title = name
            table.add_columns("type", entries, "grown", "bytes", "so far")
        self.table("types").focus()
        self.run_worker(self._attached, thread=True, exclusive=True)

    def on_unmount(self) -> None:
        self._left.set()

    def table(self, name: str) -> DataTable[object]:
        """The table of types or of containers."""
        table: DataTable[object] = self.query_one(f"#{name}", DataTable)
        return table

    def _attached(self) -> None:
        """A thread for the length of the screen: attach, look again and again, detach."""
        worker = get_current_worker()
        try:
            with attach(self._pid) as target:
                self._target, self._watch = target, HeapWatch(target)
                while not (self._left.is_set() or worker.is_cancelled):
                    with self._asking:
                        self._watch.look()
                    self._call(self.draw)
                    self._left.wait(max(1.0, _REST * self._watch.cost_s))
        except (FlatwaterError, HeapError, OSError) as error:
            self._call(self._tell, f"{error}")
        finally:
            self._target = None

    def _call(self, function: object, *arguments: object) -> None:
        if not self._left.is_set():
            self.app.call_from_thread(function, *arguments)  # type: ignore[arg-type]

    def _tell(self, text: str) -> None:
        self.query_one("#state", Static).update(text)

    def draw(self) -> None:
        """Show the last look."""
        watch = self._watch
        if watch is None:
            return
        self._fill("types", watch.types(floor=self._floor, search=self._search))
        self._fill("containers", watch.containers(floor=self._floor))
        self._tell(
            f"pid {self._pid} · look {watch.looks}, stopped for {watch.cost_s * 1000:.0f} ms · floor {self._floor:,}"
            + (f" · filter {self._search!r}" if self._search else "")
        )

    def _fill(self, name: str, rows: list[Series]) -> None:
        table = self.table(name)
        chosen = self._chosen(name)
        table.clear()
        for row in rows[:_SHOWN]:
            key = str(row.address or row.name)
            grown = figure.change(row.grown)
            bars = figure.history(row.history, row.grown > 0)
            table.add_row(row.name, f"{row.now:,}", grown, figure.size(row.bytes), bars, key=key)
        if chosen in {str(row.address or row.name) for row in rows[:_SHOWN]}:
            table.move_cursor(row=table.get_row_index(str(chosen)))

    def _chosen(self, name: str) -> str | None:
        table = self.table(name)
        if not table.row_count:
            return None
        return table.coordinate_to_cell_key(table.cursor_coordinate).row_key.value

    def on_data_table_row_selected(self, event: DataTable.RowSelected) -> None:
        key = event.row_key.value
        if key is None or self._target is None:
            return
        if event.data_table.id == "containers":
            self.app.push_screen(ItemScreen(self._target, self._asking, address=int(key)))
        else:
            self.app.push_screen(ItemScreen(self._target, self._asking, kind=key))

    def action_search(self) -> None:
        field = self.query_one("#search", Input)
        field.display = True
        field.focus()

    def on_input_submitted(self, event: Input.Submitted) -> None:
        self._search = event.value.strip()
        event.input.display = False
        self.table("types").focus()
        self.draw()

    def action_floor(self) -> None:
        self._floor = _FLOORS[(_FLOORS.index(self._floor) + 1) % len(_FLOORS)]
        self.draw()

    def action_ask(self, name: str) -> None:
        self.run_worker(lambda: self._ask(name), thread=True)

    def _ask(self, name: str) -> None:
        target = self._target
        if target is None:
            return
        try:
            with self._asking:
                told = target.ask(name)
        except (FlatwaterError, HeapError, OSError) as error:
            self._call(self.notify, str(error))
            return
        if name == "trim":
            text = f"trim gave back {figure.size(told['before'] - told['after'])}, RSS is {figure.size(told['after'])}"
        else:
            text = f"{told['freed']:,} objects collected, {told['uncollectable']:,} cannot be"
        self._call(self.notify, text)

    def action_diagnose(self) -> None:
        from flatwater.cli.top.answer import AnswerScreen

        self.app.push_screen(AnswerScreen(self._pid))
