"""Definitions and kinds of blocks."""

from __future__ import annotations

from typing import Any

from msgspec import Raw, Struct

from flatwater.errors import Problem


class Definition(Struct, frozen=True):
    id: str
    label: str
    version: int
    hash: str
    remark: str | None
    enabled: bool
    created_at: float
    updated_at: float


class DefinitionDetail(Definition, frozen=True, kw_only=True):
    """With the definition itself."""

    definition: Raw


class FlowInfo(Struct, frozen=True):
    """What a valid definition amounts to."""

    nodes: int
    depth: int
    inputs: list[dict[str, Any]]
    warnings: list[Problem] = []


class Verdict(Struct, frozen=True):
    ok: bool
    problems: list[Problem]
    flow: FlowInfo | None = None


class Palette(Struct, frozen=True):
    """The kinds of blocks: each with JSON schemas of its parameters and outputs.

    Also the functions that expressions may call, and the kinds of triggers; ``origin`` is empty for Flatwater's own.
    """

    items: list[dict[str, Any]]
    functions: list[dict[str, Any]] = []
    triggers: list[dict[str, Any]] = []
