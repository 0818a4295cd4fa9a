"""The ledger: what may hold things for long, how much it holds, and its bound."""

from __future__ import annotations

import weakref
from typing import Protocol, runtime_checkable

import msgspec

from flatwater.errors import SettingError


class Usage(msgspec.Struct, frozen=True, kw_only=True):
    """What a holder holds now. Each holder's own statistics extend this.

    ``size`` and ``bound`` count entries (tasks, items, buckets); ``bytes`` and ``max_bytes`` are None where bytes are
    not counted; ``evictions`` counts entries dropped to stay within a bound.
    """

    size: int
    bound: int
    bytes: int | None = None
    max_bytes: int | None = None
    evictions: int = 0


@runtime_checkable
class Holder(Protocol):
    """Anything that the ledger can list."""

    name: str
    kind: str

    def statistics(self) -> Usage: ...


class Entry(msgspec.Struct, frozen=True, kw_only=True):
    """One line of the ledger: a holder's name and kind beside its :class:`Usage`."""

    name: str
    kind: str
    size: int
    bound: int
    bytes: int | None
    max_bytes: int | None
    evictions: int
    statistics: Usage


class Ledger:
    """The list of the living holders, by name.

    References are weak: registering never keeps a holder alive, and a dead holder leaves the list by itself. A second
    holder of the same name is listed as ``name#2``. Pass one ledger to every constructor; there is no global one.
    """

    def __init__(self) -> None:
        self._holders: dict[str, weakref.ref[Holder]] = {}

    def register(self, holder: Holder) -> str:
        """List ``holder`` for as long as it lives; return the name under which it is listed."""
        name = self._free_name(holder.name)
        holders = self._holders  # the callback must not keep the ledger alive

        def leave(dead: weakref.ref[Holder]) -> None:
            if holders.get(name) is dead:
                del holders[name]

        holders[name] = weakref.ref(holder, leave)
        return name

    def entries(self) -> list[Entry]:
        """A snapshot, sorted by name."""
        return [_entry(name, holder) for name, holder in self.holders()]

    def holders(self) -> list[tuple[str, Holder]]:
        """The living holders with their listed names, sorted by name."""
        # list() of a dict is one step under the interpreter's lock: weak references may die in any thread.
        alive = [(name, reference()) for name, reference in list(self._holders.items())]
        return sorted(((name, holder) for name, holder in alive if holder is not None), key=lambda pair: pair[0])

    def __len__(self) -> int:
        return len(self._holders)

    def _free_name(self, wanted: str) -> str:
        name, number = wanted, 1
        while name in self._holders:
            number += 1
            name = f"{wanted}#{number}"
        return name


def _entry(name: str, holder: Holder) -> Entry:
    usage = holder.statistics()
    return Entry(
        name=name,
        kind=holder.kind,
        size=usage.size,
        bound=usage.bound,
        bytes=usage.bytes,
        max_bytes=usage.max_bytes,
        evictions=usage.evictions,
        statistics=usage,
    )


def check_bound(setting: str, value: float, *, where: str) -> None:
    """Refuse a bound that would hold nothing (zero, negative) or everything (NaN, infinity). Raises SettingError."""
    if not 0 < value < float("inf"):
        raise SettingError(f"{setting} is {value}", where=where, hint="give a finite number above zero")
