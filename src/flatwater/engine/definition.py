"""Definitions: from the imported JSON format to a `Flow`, their canonical form, and the inputs of runs.

This is the door to the rest: `flatwater.engine.validation` compiles, `flatwater.engine.node` is what comes out.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

import msgspec

from flatwater.engine.block import Registry
from flatwater.engine.document import Document, Problems, check_plain, decode, escape
from flatwater.engine.node import RELEASES, Flow, InputParam, Limits, Node, Release, Retry
from flatwater.engine.parameter import ConversionError, ParamType, blank, convert
from flatwater.engine.validation import compile_definition
from flatwater.errors import InputsError

_USUAL: Final = Limits()


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
    return compile_definition(data, registry, known_definitions, limits or _USUAL)


def canonical(data: Document, limits: Limits | None = None) -> bytes:
    """The definition's canonical JSON: keys sorted, no space, every field kept. Raises `DefinitionError`."""
    return msgspec.json.encode(decode(data, limits or _USUAL), order="sorted")


def content_hash(data: Document, limits: Limits | None = None) -> str:
    """SHA-256 (hex) of the canonical JSON: the same for the same content however it is laid out."""
    return hashlib.sha256(canonical(data, limits)).hexdigest()


def check_inputs(flow: Flow, inputs: Mapping[str, Any]) -> dict[str, Any]:
    """A run's inputs by the types that the definition states, with defaults; undeclared ones pass as they are.

    Raises `InputsError` with every problem, the paths being ``/inputs/<name>``.
    """
    problems = Problems(_USUAL.max_problems)
    found = dict(inputs)
    check_plain(found, problems, _USUAL.max_json_depth, "/inputs")
    for declared in flow.inputs if not problems else ():
        try:
            found[declared.name] = input_value(declared, found.get(declared.name))
        except ConversionError as error:
            problems.add(f"/inputs/{escape(declared.name)}", f"input {declared.name} {error}")
    problems.raise_any(flow.label, InputsError)
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
