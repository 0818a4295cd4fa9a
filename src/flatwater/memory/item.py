"""What a container holds: its newest items, their types, and where each was made. Standard library only.

No code of the program runs: everything goes through the built-in base types.
"""

from __future__ import annotations

import gc
from collections import deque
from dataclasses import dataclass
from itertools import islice
from types import AsyncGeneratorType, CoroutineType, GeneratorType
from typing import Any

from flatwater.memory.heap_fallback import own_bytes, type_name
from flatwater.memory.site import Place
from flatwater.memory.trace import made_at

_SCANNED = 100_000  # entries of a set, which does not tell the newest
_TRIES = 5
_KINDS = list, dict, set, frozenset, deque, bytearray
_BUFFERS = "_io.BytesIO", "_io.StringIO", "array.array", "mmap.mmap", "numpy.ndarray"
_NESTED = 2  # how deep a tuple is searched for something that was traced


@dataclass(frozen=True, slots=True)
class Item:
    """``stack`` is where it was made (file and line, innermost first), empty where that is not known.

    ``coroutine`` is the place of the coroutine that a task runs, or that the item itself is.
    """

    type: str
    stack: tuple[tuple[str, int], ...]
    coroutine: Place | None


def growable(item: Any) -> bool:
    """Whether the walker follows its length."""
    return issubclass(type(item), _KINDS) or type_name(type(item)) in _BUFFERS


def length(container: Any) -> int:
    """The number of entries, of a buffer its own bytes: no ``__len__`` of the program runs."""
    base: Any = next((kind for kind in _KINDS if issubclass(type(container), kind)), None)
    return own_bytes(container) if base is None else int(base.__len__(container))


def newest(container: Any, limit: int) -> list[Any]:
    """The items that came last, at most ``limit``; of a set, which does not tell, those whose making was traced.

    Of a dict's entry the value, or the key where the value is nobody's making (None, a number that is shared).
    """
    for _ in range(_TRIES):
        try:
            return _newest(container, limit) if limit > 0 else []
        except RuntimeError:  # it changed meanwhile: a finalizer ran
            continue
    return []


def _newest(container: Any, limit: int) -> list[Any]:
    kind = type(container)
    if issubclass(kind, list):
        return list.__getitem__(container, slice(-limit, None))
    if issubclass(kind, dict):
        pairs = islice(reversed(dict.items(container)), limit)
        return [key if made_at(key) and not _made(value, _NESTED) else value for key, value in list(pairs)]
    if issubclass(kind, deque):
        right = list(islice(deque.__reversed__(container), limit))
        return right if any(_made(item, _NESTED) for item in right) else list(islice(deque.__iter__(container), limit))
    if not issubclass(kind, set | frozenset):  # a container of C code, which tells its newest last
        return gc.get_referents(container)[-limit:]
    base: Any = set if issubclass(kind, set) else frozenset
    scanned = list(islice(base.__iter__(container), _SCANNED))
    return list(islice((item for item in scanned if _made(item, _NESTED)), limit))


def sighted(items: list[Any]) -> list[Item]:
    """What there is to say of each item."""
    return [_sight(item) for item in items]


def _sight(item: Any) -> Item:
    return Item(type_name(type(item)), _made(item, _NESTED), _coroutine(item))


def _made(item: Any, depth: int) -> tuple[tuple[str, int], ...]:
    """Where it was made. Tuples, lists and dicts may come from a free list, in memory that was not traced when it was
    allocated: then what they hold, made for them as a rule, speaks."""
    found = made_at(item)
    if found or not depth or type(item) not in (tuple, list, dict):
        return found
    return next((at for one in islice(gc.get_referents(item), 20) if (at := _made(one, depth - 1))), ())


def _coroutine(item: Any) -> Place | None:
    kinds = CoroutineType, GeneratorType, AsyncGeneratorType
    if type(item) in kinds:
        found = item
    elif "Task" in type(item).__name__:
        found = next((one for one in gc.get_referents(item) if type(one) in kinds), None)
    else:
        return None
    for name in ("cr_code", "gi_code", "ag_code"):
        code = getattr(found, name, None)
        if code is not None:
            return code.co_filename, code.co_qualname, code.co_firstlineno
    return None
