"""The application and its first screen: the tree of processes."""

from __future__ import annotations

from typing import ClassVar

from textual.app import App, ComposeResult
from textual.binding import Binding, BindingType
from textual.screen import Screen
from textual.widgets import DataTable, Footer, Header

from flatwater.cli.top import figure
from flatwater.cli.top.heap import HeapScreen
from flatwater.memory.live import ProcessRow, ProcessWatch
from flatwater.memory.selector import Selector

_COLUMNS = "pid", "command", "RSS", "PSS", "CPU %", "threads", "RSS so far", "slope", "limit in"


class Top(App[None]):
    """Watches what ``selector`` means, a look each ``interval_s``."""

    TITLE = "flatwater top"
    CSS = """
    DataTable { height: 1fr; }
    .title { padding: 0 1; height: auto; color: $text-muted; }
    .half { height: 1fr; border-top: solid $panel; border-title-color: $text; }
    Input { height: 3; }
    """

    def __init__(self, selector: Selector, *, interval_s: float = 1.0) -> None:
        super().__init__()
        self._selector = selector
        self._interval_s = max(0.1, interval_s)

    def on_mount(self) -> None:
        self.sub_title = self._selector.text
        self.push_screen(ProcessScreen(ProcessWatch(self._selector), self._interval_s))


class ProcessScreen(Screen[None]):
    """The processes; Enter opens one."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("q", "app.quit", "leave"),
        Binding("d", "diagnose", "diagnose"),
    ]

    def __init__(self, watch: ProcessWatch, interval_s: float) -> None:
        super().__init__()
        self._watch = watch
        self._interval_s = interval_s

    def compose(self) -> ComposeResult:
        yield Header()
        yield DataTable[object](cursor_type="row", zebra_stripes=True, id="processes")
        yield Footer()

    def on_mount(self) -> None:
        table = self._table()
        for name in _COLUMNS:
            table.add_column(name, key=name)
        table.focus()
        self.look()
        self.set_interval(self._interval_s, self.look)

    def look(self) -> None:
        """Read all processes and draw them; the cursor stays on its process."""
        rows = self._watch.look()
        table, chosen = self._table(), self.chosen()
        table.clear()
        for row in rows:
            table.add_row(*_cells(row), key=str(row.pid))
        if chosen is not None and str(chosen) in {str(row.pid) for row in rows}:
            table.move_cursor(row=table.get_row_index(str(chosen)))
        self.sub_title = f"{len(rows)} processes" if rows else "nothing like that runs now"

    def chosen(self) -> int | None:
        """The pid under the cursor."""
        table = self._table()
        if not table.row_count:
            return None
        key = table.coordinate_to_cell_key(table.cursor_coordinate).row_key.value
        return int(key) if key else None

    def on_data_table_row_selected(self, event: DataTable.RowSelected) -> None:
        if event.row_key.value:
            self.app.push_screen(HeapScreen(int(event.row_key.value)))

    def action_diagnose(self) -> None:
        pid = self.chosen()
        if pid is not None:
            from flatwater.cli.top.answer import AnswerScreen

            self.app.push_screen(AnswerScreen(pid))

    def _table(self) -> DataTable[object]:
        table: DataTable[object] = self.query_one("#processes", DataTable)
        return table


def _cells(row: ProcessRow) -> tuple[object, ...]:
    grows = bool(row.slope and row.slope.grows)
    return (
        row.pid,
        f"{'  ' * row.depth}{'└ ' if row.depth else ''}{figure.program(row.command)}",
        figure.size(row.rss),
        figure.size(row.pss),
        f"{row.cpu:.0f}",
        row.threads,
        figure.history(row.history, grows),
        figure.rate(row.slope),
        figure.duration(row.reach_s),
    )
