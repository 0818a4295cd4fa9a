"""Runs block flows: definitions, activations, scheduling. Start with `Engine`."""

from flatwater.engine.block import Registry, block
from flatwater.engine.engine import Engine
from flatwater.engine.option import EngineOptions

__all__ = ["Engine", "EngineOptions", "Registry", "block"]
