"""A compiled definition: `Flow` and its `Node`s, with the small values in them.

A flow is immutable, holds no text of its definition, and is shared by every run of it.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal, TypeAlias

import msgspec

from flatwater.engine.block import Kind, Recovery
from flatwater.engine.parameter import CompiledParams, ParamType
from flatwater.errors import Problem

Release: TypeAlias = Literal["always", "failure", "never"]
RELEASES: Final = ("always", "failure", "never")


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What one definition may be."""

    max_body_bytes: int = 1024 * 1024
    max_depth: int = 50
    max_nodes: int = 10_000
    max_problems: int = 100
    """Problems listed; the rest are counted."""
    max_json_depth: int = 200
    """Nesting of the JSON itself: three levels a block, and what its parameters hold."""
    max_value_depth: int = 100
    """Nesting of one literal value."""
    max_name_chars: int = 200


class Retry(msgspec.Struct, frozen=True):
    """Attempts in all, and the seconds between them: ``delay_s * factor ** (n - 1)`` after the n-th, at most
    ``max_delay_s``, spread by ± ``jitter`` of itself.
    """

    max_attempts: int = 1
    delay_s: float = 1.0
    factor: float = 2.0
    max_delay_s: float = 300.0
    jitter: float = 0.1

    def pause_s(self, attempt: int, chance: Callable[[], float] = random.random) -> float:
        """Seconds to wait after attempt number ``attempt`` (from 1) has failed."""
        try:
            pause = self.delay_s * self.factor ** (attempt - 1)
        except OverflowError:
            pause = self.max_delay_s
        pause = min(pause, self.max_delay_s)
        return pause * (1 + self.jitter * (2 * chance() - 1))


class InputParam(msgspec.Struct, frozen=True):
    """One input of a definition; ``default`` is of its type already."""

    name: str
    type: ParamType = ParamType.ANY
    required: bool = False
    default: Any = None
    label: str = ""
    remark: str = ""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Node:
    """One block, compiled.

    ``releases`` are the names whose outputs nothing can read any more once this block has ended, however it ended.
    ``keeps`` are the keys of its own outputs that some expression reads (None: all, empty: none). ``index`` is its
    place in ``Flow.nodes``, ``sub_task`` the definition that it starts.
    """

    id: int
    name: str
    kind: Kind
    params: CompiledParams
    branches: Mapping[str, tuple[Node, ...]]
    index: int
    timeout_s: float | None = None
    retry: Retry | None = None
    recovery: Recovery = "rerun"
    disabled: bool = False
    sub_task: str | None = None
    releases: tuple[str, ...] = ()
    keeps: frozenset[str] | None = frozenset()
    type: str = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "type", self.kind.type)

    def __repr__(self) -> str:
        return f"Node({self.name}, id {self.id}, {self.type})"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Flow:
    """A compiled definition. ``nodes`` are its blocks in pre-order, the root first.

    ``live_names`` are the blocks that some expression reads: the outputs of all others need never enter a context.
    ``outputs`` is evaluated at the end of a run.
    """

    hash: str
    label: str
    version: str
    remark: str
    root: Node
    nodes: tuple[Node, ...]
    depth: int
    inputs: tuple[InputParam, ...]
    outputs: CompiledParams
    release: Release = "always"
    timeout_s: float | None = None
    retry: Retry | None = None
    max_parallel: int | None = None
    live_names: frozenset[str] = frozenset()
    sub_tasks: frozenset[str] = frozenset()
    warnings: tuple[Problem, ...] = ()

    def __repr__(self) -> str:
        return f"Flow({self.label!r}, {len(self.nodes)} blocks, {self.hash[:12]})"
