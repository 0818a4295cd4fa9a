"""The built-in block families: one module each, every `@block` function in it is a block type."""

from __future__ import annotations

from importlib import import_module
from pkgutil import iter_modules

from flatwater.engine.block import Registry
from flatwater.engine.catalogue import FLOW_KINDS


def builtin() -> Registry:
    """A new registry with the Flow family and every family of this package."""
    registry = Registry(FLOW_KINDS)
    for family in sorted(module.name for module in iter_modules(__path__)):
        registry.add_module(import_module(f"{__name__}.{family}"))
    return registry
