"""What users' packages add to Flatwater: how it is found, and kept by name.

A package offers items by entry points: an item, a list of items, or a module whose marked items are meant. A module
that is named (``--blocks plant.blocks``) offers the same without being installed. An item is a function that a
decorator has marked; what it is marked as decides where it goes.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from difflib import get_close_matches
from importlib import import_module
from importlib.metadata import entry_points
from types import ModuleType
from typing import Any, Generic, TypeVar

from flatwater.errors import ConflictError, NotFoundError, SettingError

T = TypeVar("T")
MAX_NAME_CHARS = 100


def installed(group: str) -> Iterator[Any]:
    """What installed packages offer in ``group``: items and modules. Raises `SettingError` for one that fails."""
    for point in entry_points(group=group):
        try:
            found = point.load()
        except Exception as error:  # whatever a package does while it is imported
            package = point.dist.name if point.dist is not None else "?"
            raise SettingError(
                f"package {package} offers {point.name!r}, which cannot be loaded: {type(error).__name__}: {error}",
                where=group,
                hint=f"repair the package, or uninstall it ({point.value})",
            ) from error
        yield from found if isinstance(found, list | tuple) else (found,)


def imported(modules: Iterable[str], what: str) -> Iterator[ModuleType]:
    """Modules by name, which offer ``what``. Raises `SettingError` when one cannot be imported."""
    for name in modules:
        try:
            yield import_module(name)
        except ImportError as error:
            hint = "give a module's dotted name, as in `import name`, that this Python can find"
            raise SettingError(f"the {what} of {name!r} cannot be imported: {error}", where=what, hint=hint) from error


def marked(item: Any, *marks: str) -> list[Any]:
    """The item itself, or those that the module ``item`` defines: whatever bears one of ``marks``, each once."""
    if not isinstance(item, ModuleType):
        return [item]
    found = [
        each
        for each in vars(item).values()
        if any(hasattr(each, mark) for mark in marks) and getattr(each, "__module__", None) == item.__name__
    ]
    return list({id(each): each for each in found}.values())


class Catalogue(Generic[T]):
    """Extensions of one sort by name, beside the built-in ones. ``sort`` is what messages call one of them."""

    def __init__(self, sort: str, built_in: Mapping[str, T]) -> None:
        self.sort = sort
        self._items = dict(built_in)
        self._built_in = frozenset(built_in)
        self._origins: dict[str, str] = {}

    def add(self, name: str, item: T, origin: str) -> None:
        """Add one; the same twice is one. Raises `ConflictError` when the name is another's."""
        known = self._items.get(name)
        if known is not None and known != item:
            by = self._origins.get(name, "Flatwater")
            hint = "give it another name" if name in self._built_in else "give one another name, or load only one"
            raise ConflictError(f"{self.sort} {name} is declared by {by} and by {origin}", hint=hint)
        self._items[name] = item
        self._origins[name] = origin

    def require(self, name: str) -> T:
        """By name. Raises `NotFoundError`, with the name that may have been meant."""
        found = self._items.get(name)
        if found is None:
            raise NotFoundError(f"{self.sort} {name[:MAX_NAME_CHARS]!r}", hint=self.suggest(name))
        return found

    def suggest(self, name: str) -> str:
        """What whoever wrote an unknown name may have meant."""
        near = get_close_matches(name[:MAX_NAME_CHARS], self._items, 1)
        return f"did you mean {near[0]}?" if near else f"there are {', '.join(sorted(self._items))}"

    @property
    def items(self) -> Mapping[str, T]:
        """All by name."""
        return self._items

    @property
    def added(self) -> dict[str, T]:
        """Those that are not built in."""
        return {name: item for name, item in self._items.items() if name not in self._built_in}
