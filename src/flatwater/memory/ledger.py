"""The bounded holders of this process: found without being told of, asked for their size. Standard library only."""

from __future__ import annotations

import contextlib
import sys
from typing import Any

from flatwater.memory.work import living

_MAX_LEDGERS = 20
_MAX_NAME = 80


def ledger(session: Any, *, limit: int = 20) -> list[dict[str, Any]]:
    """A command: what Flatwater's ledgers list (:mod:`flatwater.bounded.ledger`), the fullest ``limit`` first.

    Rows have ``name``, ``kind``, ``size`` of ``bound`` entries, ``bytes`` of ``max_bytes`` (None where bytes are not
    counted) and ``evictions``. Empty where there is no ledger. Costs a walk of what the collector tracks.
    """
    kind = getattr(sys.modules.get("flatwater.bounded.ledger"), "Ledger", None)
    if not isinstance(kind, type):
        return []
    rows: dict[str, dict[str, Any]] = {}
    for one in living([kind], _MAX_LEDGERS):
        for name, holder in one.holders():
            with contextlib.suppress(Exception):  # it changes meanwhile, in a thread of its own
                row = _row(name, holder)
                if row["name"] not in rows or _full(row) > _full(rows[row["name"]]):
                    rows[row["name"]] = row
    return sorted(rows.values(), key=lambda row: (-_full(row), -row["size"], row["name"]))[:limit]


def _row(name: str, holder: Any) -> dict[str, Any]:
    usage = holder.statistics()
    figures = {key: getattr(usage, key) for key in ("size", "bound", "bytes", "max_bytes", "evictions")}
    return {"name": name[:_MAX_NAME], "kind": str(holder.kind), **figures}


def _full(row: dict[str, Any]) -> float:
    """The part of its bound that a holder holds."""
    held = row["bytes"] / row["max_bytes"] if row["bytes"] is not None and row["max_bytes"] else 0.0
    return max(held, row["size"] / row["bound"] if row["bound"] else 0.0)
