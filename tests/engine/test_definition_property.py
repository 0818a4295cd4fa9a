"""Definitions by properties: whatever comes in, problems come out and nothing else is raised."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
from hypothesis import example, given, settings
from hypothesis import strategies as st

from flatwater.engine.definition import Flow, InputParam, ParamType, canonical, check_inputs, content_hash, parse
from flatwater.errors import DefinitionError, ExpressionError
from tests.long import often

from .kinds import sample_registry

REGISTRY = sample_registry()
KNOWN = {"line-supply": (InputParam("siteId", ParamType.STRING, required=True),)}
SAMPLES = [json.loads(path.read_text()) for path in sorted((Path(__file__).parent / "samples").glob("*.json"))]

WORDS = st.sampled_from(
    sorted(
        {"id", "name", "blockType", "children", "inputParams", "rootBlock", "default", "type", "value", "label", "b1"}
        | {
            "Simple",
            "Expression",
            "Key-Value",
            "=blocks.b1.x",
            "blocks[1]",
            "SubTask::line-supply",
            "SubTask::",
            "1e999",
        }
        | {"taskInputs.x +", "true", "[1]", "{}", "-1", "retry", "maxAttempts", "if", "catch", "String", "Long"}
        | {kind.type for kind in REGISTRY}
    )
)
SCALARS = (
    st.none() | st.booleans() | st.integers(-2, 5) | st.integers(-(2**80), 2**80) | st.floats() | WORDS
    | st.text(max_size=8)
)  # fmt: skip
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(WORDS | st.text(max_size=4), inner, max_size=5),
    max_leaves=12,
)
BLOCKS = st.deferred(
    lambda: st.fixed_dictionaries(
        {"id": st.integers(-1, 9) | VALUES, "blockType": st.sampled_from([kind.type for kind in REGISTRY]) | VALUES},
        optional={
            "name": WORDS | VALUES,
            "children": st.dictionaries(WORDS, st.lists(BLOCKS, max_size=2), max_size=2) | VALUES,
            "inputParams": st.dictionaries(WORDS, VALUES, max_size=3) | VALUES,
            "retry": VALUES,
            "timeoutMs": VALUES,
            "recovery": VALUES,
            "disabled": VALUES,
        },
    )
)
DOCUMENTS = st.fixed_dictionaries(
    {"rootBlock": BLOCKS | VALUES},
    optional=dict.fromkeys(
        ["label", "version", "inputParams", "outputParams", "releaseSites", "retry", "maxParallel", "remark"], VALUES
    ),
)


def compiled(data: Any) -> Flow | None:
    """The flow, or None after checking that the problems are well made."""
    try:
        return parse(data, REGISTRY, known_definitions=KNOWN)
    except DefinitionError as error:
        for problem in error.problems:
            assert problem.message
            assert problem.path == "" or problem.path.startswith("/")
        msgspec.json.encode(error.problems)
        return None


@settings(max_examples=often(400), deadline=None)
@given(DOCUMENTS | VALUES.filter(lambda value: isinstance(value, dict)))
def test_any_document(data: dict[str, Any]) -> None:
    compiled(data)


@settings(max_examples=often(200), deadline=None)
@given(st.binary(max_size=50) | st.text(max_size=50))
@example('{"rootBlock": {"id": -1, "blockType": "RootBp", "children": {"default": [null]}}}')
def test_any_bytes(data: bytes | str) -> None:
    compiled(data)


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    yield path
    if isinstance(value, (dict, list)):
        for key in value if isinstance(value, dict) else range(len(value)):
            yield from places(value[key], (*path, key))


def mutate(data: Any, place: tuple[Any, ...], action: str, value: Any) -> Any:
    """A copy of ``data`` with what is at ``place`` replaced, removed, repeated or wrapped."""
    data = copy.deepcopy(data)
    if not place:
        return value if action == "replace" else data
    target = data
    for key in place[:-1]:
        target = target[key]
    key = place[-1]
    if action == "replace":
        target[key] = value
    elif action == "remove":
        del target[key]
    elif action == "repeat" and isinstance(target, list):
        target.insert(key, copy.deepcopy(target[key]))
    else:
        target[key] = [target[key]]
    return data


MUTATIONS = st.lists(
    st.tuples(st.integers(0, 10_000), st.sampled_from(["replace", "remove", "repeat", "wrap"]), VALUES), max_size=3
)


@settings(max_examples=often(500), deadline=None)
@given(st.sampled_from(SAMPLES), MUTATIONS)
def test_mutated_samples(data: Any, mutations: list[tuple[int, str, Any]]) -> None:
    for number, action, value in mutations:
        found = list(places(data))
        data = mutate(data, found[number % len(found)], action, value)
    flow = compiled(data if isinstance(data, dict) else json.dumps(data))
    if flow is not None:
        assert flow.hash == content_hash(data)
        for node in flow.nodes:
            try:
                node.params.evaluate({"taskInputs": {}, "blocks": {}, "task": {}})
            except ExpressionError as error:
                assert node.name in error.where  # noqa: PT017


@settings(max_examples=often(200), deadline=None)
@given(st.binary(min_size=1, max_size=4), st.integers(0, 10_000), st.sampled_from(SAMPLES))
def test_damaged_text(damage: bytes, place: int, data: Any) -> None:
    body = json.dumps(data).encode()
    place %= len(body)
    compiled(body[:place] + damage + body[place + 1 :])


PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)  # fmt: skip


@settings(max_examples=often(200), deadline=None)
@given(st.sampled_from(SAMPLES), st.dictionaries(st.text(min_size=1, max_size=8).map("x-{}".format), PLAIN, max_size=3))
def test_round_trip_with_unknown_members(data: Any, extra: dict[str, Any]) -> None:
    data = {**data, **extra, "rootBlock": {**data["rootBlock"], **extra}}
    body = canonical(data)
    assert msgspec.json.decode(body) == data
    assert canonical(body) == body
    assert content_hash(body) == content_hash(json.dumps(data, indent=2)) == content_hash(data)
    assert compiled(body) is not None


INPUTS = parse(
    {
        **SAMPLES[0],
        "inputParams": [
            {"name": each.value, "type": each.value, "required": index % 2 == 0} for index, each in enumerate(ParamType)
        ],
        "outputParams": [],
        "rootBlock": {"id": -1, "blockType": "RootBp"},
    },
    REGISTRY,
)


@settings(max_examples=often(300), deadline=None)
@given(st.dictionaries(st.sampled_from([each.value for each in ParamType]) | st.text(max_size=3), VALUES, max_size=6))
def test_any_inputs(inputs: dict[str, Any]) -> None:
    try:
        found = check_inputs(INPUTS, inputs)
    except DefinitionError as error:
        assert all(problem.path.startswith("/inputs") for problem in error.problems)  # noqa: PT017
        return
    assert set(found) == set(inputs) | {each.value for each in ParamType}
    assert check_inputs(INPUTS, found) == found
    msgspec.json.encode(found)
