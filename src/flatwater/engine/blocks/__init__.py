"""The built-in block families: one module each, every `@block` function in it is a block type."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from importlib import import_module
from pkgutil import iter_modules
from types import ModuleType
from typing import Any

from flatwater.engine.block import Registry
from flatwater.engine.catalogue import FLOW_KINDS
from flatwater.errors import SettingError


def builtin() -> Registry:
    """A new registry with the Flow family and every family of this package."""
    registry = Registry(FLOW_KINDS)
    for family in sorted(module.name for module in iter_modules(__path__)):
        registry.add_module(import_module(f"{__name__}.{family}"))
    return registry


def load(modules: Iterable[str] = ()) -> Registry:
    """The built-in blocks, those of installed packages, and those of Python ``modules`` by name.

    Raises ``SettingError`` when a module cannot be imported, ``ConflictError`` when two declare one type.
    """
    registry = builtin()
    registry.load_entry_points()
    for module in _imported(modules):
        registry.add_module(module)
    return registry


def functions(modules: Iterable[str]) -> dict[str, Callable[..., Any]]:
    """What ``ScriptBp`` may call by name: the mappings ``FUNCTIONS`` of these modules, together."""
    found: dict[str, Callable[..., Any]] = {}
    for module in _imported(modules):
        found.update(getattr(module, "FUNCTIONS", {}))
    return found


def _imported(modules: Iterable[str]) -> Iterator[ModuleType]:
    for name in modules:
        try:
            yield import_module(name)
        except ImportError as error:
            hint = "give a module's dotted name, as in `import name`, that this Python can find"
            raise SettingError(
                f"the blocks of {name!r} cannot be imported: {error}", where="blocks", hint=hint
            ) from error
