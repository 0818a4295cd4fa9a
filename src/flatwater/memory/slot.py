"""Slots that are watched: an attribute, a dict's value or a cell in which one object takes the place of another.

``self.rows = self.rows + [row]`` and ``self.head = Node(self.head)`` lengthen no container, but they change a slot.
Standard library only: it runs in the process that is examined. A slot is a pair (object, attribute's name or key; None
for a cell's), as ``_watch.open`` takes it.
"""

from __future__ import annotations

import gc
from collections import deque
from types import BuiltinFunctionType, CellType, CodeType, FrameType, FunctionType, ModuleType
from typing import Any

from flatwater.memory.trace import extension, made_at

_SCANNED = 20_000  # objects below a slot
_OPEN = ModuleType, type, FunctionType, BuiltinFunctionType, CodeType, FrameType  # what they hold is everybody's


def resolved(holder: Any, name: str | None, child: int) -> tuple[Any, Any] | None:
    """The slot in ``holder`` that is called so, or that holds the object at the address ``child``; else None."""
    if type(holder) is CellType:
        return holder, None
    if issubclass(type(holder), dict):
        if name is not None and dict.__contains__(holder, name):
            return holder, name
        return next(((holder, key) for key, value in list(dict.items(holder)) if id(value) == child), None)
    return (holder, name) if name is not None and not issubclass(type(holder), type) else None


def content(slot: tuple[Any, Any]) -> Any:
    """The object that is in the slot now, None where none is. No descriptor of the program runs."""
    return extension().slot(*slot)


def new_below(top: Any, limit: int) -> list[Any]:
    """Of what an object holds, itself included, the nearest objects whose making was traced."""
    found: list[Any] = []
    waiting = deque([top])
    seen = {id(waiting), id(found)}
    while waiting and len(found) < limit and len(seen) < _SCANNED:
        item = waiting.popleft()
        if id(item) in seen or issubclass(type(item), _OPEN):
            continue
        seen.add(id(item))
        if made_at(item):
            found.append(item)
        waiting.extend(gc.get_referents(item)[:_SCANNED])
    return found
