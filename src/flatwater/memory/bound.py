"""How long a container may become, where the standard library sees to it. Standard library only.

Runs in the process that is examined; none of the program's code runs.
"""

from __future__ import annotations

import functools
import sys
from collections import deque
from types import FunctionType
from typing import Any

from flatwater.memory.maker import take

_maxlen: Any = deque.__dict__["maxlen"].__get__
_QUEUES = (("queue", "maxsize"), ("asyncio.queues", "_maxsize"))


def bounds(session: Any, *, pairs: list[tuple[int, int]]) -> list[int | None]:
    """A command: of each container (its address, and that of what holds it) the most entries that it will ever have.

    Known are deques with a length, ``lru_cache`` and the queues of ``queue`` and ``asyncio``; None for everything else.
    """
    found, _ = take([address for pair in pairs for address in pair]) if pairs else ([], [])
    return [_bound(container, holder) for container, holder in zip(found[::2], found[1::2], strict=True)]


def _bound(container: Any, holder: Any) -> int | None:
    if issubclass(type(container), deque) and (most := _maxlen(container)) is not None:
        return int(most)
    if type(holder) is functools._lru_cache_wrapper:
        return _cache_size(holder)
    for module, attribute in _QUEUES:
        kind = getattr(sys.modules.get(module), "Queue", None)
        if isinstance(kind, type) and issubclass(type(holder), kind):
            size = vars(holder).get(attribute)
            return size if type(size) is int and size > 0 else None
    return None


def _cache_size(wrapper: Any) -> int | None:
    """``functools`` leaves it in the closure of ``cache_parameters`` alone."""
    told = vars(wrapper).get("cache_parameters")
    if type(told) is not FunctionType or "maxsize" not in told.__code__.co_freevars:
        return None
    cell = (told.__closure__ or ())[told.__code__.co_freevars.index("maxsize")]
    return cell.cell_contents if type(cell.cell_contents) is int else None
