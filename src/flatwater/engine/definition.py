"""A compiled definition (`Flow`) and what surrounds it: canonical form, inputs, retry policies.

`parse` (in `flatwater.engine.validation`) makes a `Flow` of the imported JSON format. A flow is immutable, holds no
text of its definition, and is shared by every run of it.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Literal, TypeAlias

import msgspec

from flatwater.engine.block import Kind, Recovery, Registry
from flatwater.engine.parameter import CompiledParams, ConversionError, ParamType, blank, convert
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


Document: TypeAlias = "Mapping[str, Any] | bytes | str"


def parse(
    data: Document,
    registry: Registry,
    *,
    known_definitions: Mapping[str, Sequence[InputParam]] | None = None,
    limits: Limits | None = None,
) -> Flow:
    """Compile a definition. ``known_definitions`` are the inputs of those that it may start, by id (None: unchecked).

    Raises `DefinitionError` with every problem, each with its JSON pointer and its block's name, type and id.
    """
    from flatwater.engine.validation import compile_definition  # it makes what is declared here

    return compile_definition(data, registry, known_definitions, limits or Limits())


def canonical(data: Document) -> bytes:
    """The definition's canonical JSON: keys sorted, no space, every field kept. Raises `DefinitionError`."""
    from flatwater.engine.document import decode

    return msgspec.json.encode(decode(data, Limits()), order="sorted")


def content_hash(data: Document) -> str:
    """SHA-256 (hex) of the canonical JSON: the same for the same content however it is laid out."""
    return hashlib.sha256(canonical(data)).hexdigest()


def check_inputs(flow: Flow, inputs: Mapping[str, Any]) -> dict[str, Any]:
    """A run's inputs by the types that the definition states, with defaults; undeclared ones pass as they are.

    Raises `DefinitionError` with every problem, the paths being ``/inputs/<name>``.
    """
    from flatwater.engine.document import Problems, check_plain, escape

    problems = Problems(Limits().max_problems)
    check_plain(inputs, problems, Limits().max_json_depth, "/inputs")
    found = dict(inputs)
    for declared in flow.inputs if not problems else ():
        try:
            found[declared.name] = input_value(declared, found.get(declared.name))
        except ConversionError as error:
            problems.add(f"/inputs/{escape(declared.name)}", f"input {declared.name} {error}")
    problems.raise_any(flow.label)
    return found


def input_value(declared: InputParam, value: Any) -> Any:
    """One input's value; blank gives the default. Raises `ConversionError`."""
    if blank(value, declared.type):
        if declared.required and declared.default is None:
            raise ConversionError(f"is required: {declared.type} {declared.label}".rstrip())
        return value if declared.default is None and declared.type is ParamType.STRING else declared.default
    return convert(value, declared.type)


def sub_task_cycle(references: Mapping[str, Iterable[str]]) -> tuple[str, ...] | None:
    """A circle among definitions that start each other, as ``("a", "b", "a")``; None if there is none.

    ``references`` maps each definition's id to the ids that it starts.
    """
    done: set[str] = set()
    for start in sorted(references):
        trail: dict[str, None] = {}  # in order
        stack: list[tuple[str, bool]] = [(start, True)]
        while stack:
            name, entering = stack.pop()
            if not entering:
                done.add(trail.popitem()[0])
            elif name in trail:
                return (*list(trail)[list(trail).index(name) :], name)
            elif name not in done:
                trail[name] = None
                stack.append((name, False))
                stack.extend((each, True) for each in sorted(references.get(name, ()), reverse=True))
    return None


__all__ = [
    "RELEASES",
    "Flow",
    "InputParam",
    "Limits",
    "Node",
    "Release",
    "Retry",
    "canonical",
    "check_inputs",
    "content_hash",
    "input_value",
    "parse",
    "sub_task_cycle",
]
