"""Hot statements: each is declared once, and a batch's rows for it travel as one JSON parameter in one execution.

Why one: sqlite3 lets go of the interpreter's lock at each step and waits up to `sys.getswitchinterval()` to take it
back, so beside a busy event loop a statement per row is thirty times slower than a statement per batch.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

from sqlalchemy import Table

Kind: TypeAlias = Literal["insert", "upsert", "update", "delete", "text"]
Row: TypeAlias = tuple[Any, ...]


@dataclass(frozen=True, slots=True, eq=False)
class Statement:
    """One kind of write. `columns` name the items of a row; the first is the run (or other thing) it belongs to:
    rows of one owner keep their order.

    insert: a row whose primary key is there already is left alone. upsert: it is replaced. update, delete: the rows
    that match in `key`, and in `given` if there is any. text: `sql`, where {rows} stands for the rows as a table.
    `extra` sets further columns by SQL expressions that see the row as `v`.
    refusable: fails for good when the disk is full, where others are kept and tried again.
    fenced: a row that changes nothing fails with FencedError, for another activation owns the run by now.
    large: positions of columns that may be long, for the count of pending bytes.
    """

    name: str
    table: Table
    kind: Kind
    columns: tuple[str, ...]
    key: tuple[str, ...] = ()
    extra: Mapping[str, str] = field(default_factory=dict)
    given: str = ""
    sql: str = ""
    refusable: bool = False
    fenced: bool = False
    large: tuple[int, ...] = ()

    def merged(self, rows: list[Row]) -> list[Row]:
        """The rows of one execution: of several for one key only the last, as each sets all its columns."""
        if self.kind not in ("update", "upsert") or len(rows) == 1:
            return rows
        width = len(self.key)
        last = {row[:width]: row for row in rows}
        return rows if len(last) == len(rows) else list(last.values())

    def assignments(self) -> dict[str, str | None]:
        """Columns to set, each with its SQL expression; None stands for the row's own value."""
        own: dict[str, str | None] = {name: None for name in self.columns if name not in self.key}
        return {**own, **self.extra}


Op: TypeAlias = tuple[Statement, Row]
