"""The built-in block families: one module each, every `@block` function in it is a block type."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from importlib import import_module
from pkgutil import iter_modules
from typing import Any

from flatwater.engine.block import Registry
from flatwater.engine.catalogue import FLOW_KINDS
from flatwater.extension import imported


def builtin() -> Registry:
    """A new registry with the Flow family and every family of this package."""
    registry = Registry(FLOW_KINDS)
    for family in sorted(module.name for module in iter_modules(__path__)):
        registry.add_module(import_module(f"{__name__}.{family}"))
    return registry


def load(modules: Iterable[str] = ()) -> Registry:
    """The built-in blocks, those of installed packages, and those of Python ``modules`` by name.

    With them come their functions of expressions and their kinds of triggers.

    Raises ``SettingError`` when a module cannot be imported, ``ConflictError`` when two declare one type.
    """
    registry = builtin()
    registry.load_entry_points()
    for module in imported(modules, "blocks"):
        registry.add_module(module)
    return registry


def functions(modules: Iterable[str]) -> dict[str, Callable[..., Any]]:
    """What ``ScriptBp`` may call by name: the mappings ``FUNCTIONS`` of these modules, together."""
    found: dict[str, Callable[..., Any]] = {}
    for module in imported(modules, "blocks"):
        found.update(getattr(module, "FUNCTIONS", {}))
    return found
