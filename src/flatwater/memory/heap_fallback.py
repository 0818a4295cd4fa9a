"""A census in Python alone, for an installation whose C extension was not built. Standard library only."""

from __future__ import annotations

import gc
import sys
from collections import defaultdict, deque
from typing import Any

from flatwater.memory.heap_model import Census, Container, census_of

MISSING = (
    "the C extension flatwater.memory._heap was not built (no C compiler when Flatwater was installed): untracked"
    " containers, atoms and frozen objects are not counted, every object's reference count was touched, and there are"
    " no graphs, paths or retained sizes; install a compiler and the Python headers (Debian: gcc python3-dev), then"
    " reinstall Flatwater"
)

_KINDS = (list, dict, set, frozenset, tuple, deque)
_HEAPTYPE = 1 << 9  # the flag of a class made at run time


def type_name(kind: type) -> str:
    """module.qualname, the module left out for builtins: as the C walker names types."""
    module = type.__dict__["__module__"].__get__(kind)
    name: str = type.__dict__["__qualname__"].__get__(kind)
    return name if module == "builtins" or not isinstance(module, str) else f"{module}.{name}"


def census() -> Census:
    """Count what the collector tracks, by type."""
    rows: dict[type, list[int]] = defaultdict(lambda: [0, 0])
    for item in gc.get_objects():
        row = rows[type(item)]
        row[0] += 1
        row[1] += own_bytes(item)
    return census_of([[type_name(kind), count, size, count] for kind, (count, size) in rows.items()], MISSING)


def containers(min_length: int, max_containers: int) -> list[Container]:
    """Tracked lists, dicts, sets, tuples and deques of at least ``min_length`` entries, longest first."""
    found = [item for item in gc.get_objects() if issubclass(type(item), _KINDS) and _length(item) >= min_length]
    found.sort(key=_length, reverse=True)
    return [
        Container(id(item), type_name(type(item)), _length(item), own_bytes(item)) for item in found[:max_containers]
    ]


def _length(item: Any) -> int:
    # By the base type, so that no __len__ of the program runs.
    base: Any = next(kind for kind in _KINDS if issubclass(type(item), kind))
    return int(base.__len__(item))


def own_bytes(item: Any) -> int:
    """Its own bytes, those of the collector's header included; no ``__sizeof__`` of the program runs."""
    # A class's own __sizeof__ would be the program's code: ask the nearest built-in base.
    for base in type(item).__mro__:
        if not base.__flags__ & _HEAPTYPE:
            measure: Any = base.__sizeof__
            return int(measure(item)) + 16
    return sys.getsizeof(None)
