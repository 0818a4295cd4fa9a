"""Copy a large table in pieces, each recorded, so that a kill costs one piece: ``python examples/chunks.py``.

The run is a loop whose position is a variable. Only one piece is in memory; what was copied before a crash is not
copied again, and a piece that was copied just before it is copied once more with the same keys, which changes nothing.
"""

import asyncio
import sqlite3
from contextlib import closing
from typing import Any

from flatwater.engine import Engine, block
from flatwater.store import Store

ROWS, PIECE = 20_000, 500

COPY = {
    "label": "copy",
    "outputParams": [{"name": "last", "type": "Long", "value": "=task.variables.after"}],
    "rootBlock": {"id": -1, "name": "root", "blockType": "RootBp", "children": {"default": [
        {"id": 1, "name": "begin", "blockType": "SetTaskVariableBp", "inputParams": {
            "varName": {"type": "Simple", "value": "after"}, "varValue": {"type": "Expression", "value": "0"}}},
        {"id": 2, "name": "pieces", "blockType": "WhileBp", "inputParams": {
            "loopCondition": {"type": "Expression", "value": "task.variables.after != null"},
            "retryPeriod": {"type": "Simple", "value": "0"}}, "children": {"default": [
                {"id": 3, "name": "piece", "blockType": "CopyPiece", "inputParams": {
                    "after": {"type": "Expression", "value": "task.variables.after"}}},
                {"id": 4, "name": "go on", "blockType": "SetTaskVariableBp", "inputParams": {
                    "varName": {"type": "Simple", "value": "after"},
                    "varValue": {"type": "Expression", "value": "blocks.piece.last"}}}]}},
    ]}},
}  # fmt: skip


@block("CopyPiece")
def copy_piece(after: int) -> dict[str, Any]:
    """Copies the next rows by key; ``last`` is the key to go on behind, null at the end."""
    with closing(sqlite3.connect("workspace.db")) as database, database:
        rows = database.execute(
            "SELECT id, text FROM source WHERE id > ? ORDER BY id LIMIT ?", (after, PIECE)
        ).fetchall()
        database.executemany("INSERT OR REPLACE INTO target VALUES (?, ?)", rows)
    return {"last": rows[-1][0] if len(rows) == PIECE else None}


def make_source() -> None:
    """A table to copy, unless it is there."""
    with closing(sqlite3.connect("workspace.db")) as database, database:
        database.execute("CREATE TABLE IF NOT EXISTS source (id INTEGER PRIMARY KEY, text TEXT)")
        database.execute("CREATE TABLE IF NOT EXISTS target (id INTEGER PRIMARY KEY, text TEXT)")
        rows = ((number, f"row {number}") for number in range(1, ROWS + 1))
        database.executemany("INSERT OR IGNORE INTO source VALUES (?, ?)", rows)


async def main() -> None:
    make_source()
    async with Store.open("sqlite:///chunks.db") as store, Engine(store) as engine:
        engine.registry.register(copy_piece)
        await engine.save(COPY)
        run = await engine.submit("copy", idempotency_key="copy of the workspace")
        outcome = await engine.result(run)
    with closing(sqlite3.connect("workspace.db")) as database:
        (copied,) = database.execute("SELECT count(*) FROM target").fetchone()
    print(outcome.state, copied, "rows")


if __name__ == "__main__":
    asyncio.run(main())
