"""What grows, for each task, request or run that was completed meanwhile."""

from __future__ import annotations

from typing import Any

from flatwater.memory.suspect import Suspect
from flatwater.memory.work import RUNNING


def per(one: Suspect, work: dict[str, dict[str, int]], seconds: float) -> dict[str, Any] | None:
    """Growth per piece of work that was completed in the window: ``{"unit", "name", "count", "items", "bytes"}``.

    Of several sorts that were busy the one completed most often is named; where nothing ended but a task ran all the
    time, what is held counts for it. None when nobody counts.
    """
    item = one.items.type.rpartition(".")[2] or "entry"
    rows = [(count, unit, name) for unit, names in work.items() for name, count in names.items() if count > 0]
    rows = [row for row in rows if row[1] != RUNNING] or rows
    if not rows:
        return None
    count, unit, name = max(rows)
    if unit == RUNNING:  # nothing ended: what there is belongs to what runs
        items, retained = one.length / count, one.retained / count
        text = f"{items:,.0f} {item} so far per {name} that runs"
        return {"unit": unit, "name": name, "count": count, "items": items, "bytes": retained, "text": text}
    items, retained = one.per_s * seconds / count, one.bytes_per_s * seconds / count
    label = f"{unit} {name}".strip()
    text = f"+{items:,.3g} {item} per {label}" if items < 1000 else f"+{items:,.0f} {item} per {label}"
    return {"unit": unit, "name": name, "count": count, "items": items, "bytes": retained, "text": text}
