"""Expressions by properties: no text breaks them, they agree with CEL, and they read what they say they read."""

from __future__ import annotations

import copy
from typing import Any

import cel
from hypothesis import example, given, settings
from hypothesis import strategies as st

from flatwater.engine import expression
from flatwater.errors import ExpressionError
from tests.long import often

WORDS = [
    "blocks",
    "b1",
    "x",
    "taskInputs",
    "task",
    "variables",
    "true",
    "false",
    "null",
    "in",
    "size",
    "map",
    "filter",
    "all",
    "exists",
    "has",
    "json",
    "format",
    "matches",
    "1",
    "0",
    "2.5",
    "1e3",
    "'a'",
    '"b"',
    "r'c'",
    "(",
    ")",
    "[",
    "]",
    "{",
    "}",
    ",",
    ".",
    ".?",
    ":",
    "?",
    "!",
    "-",
    "+",
    "*",
    "/",
    "%",
    "<",
    "<=",
    ">",
    ">=",
    "==",
    "!=",
    "&&",
    "||",
    "_",
    "\\",
    "'",
    '"',
    "\n",
    "é",
    "0x",
    "1L",
]
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["x", "y", "1"]), inner, max_size=3),
    max_leaves=8,
)  # fmt: skip
SCOPES = st.fixed_dictionaries(
    {
        "blocks": st.dictionaries(st.sampled_from(["b1", "b2", "x"]), JSON, max_size=3),
        "taskInputs": st.dictionaries(st.sampled_from(["x", "y"]), JSON, max_size=2),
        "task": st.just({"variables": {"x": 1}}),
    }
)


def run(source: str, scope: dict[str, Any]) -> Any:
    """The value, or what the error says."""
    try:
        return expression.compile(source).evaluate(scope)
    except ExpressionError as error:
        return (error.detail, error.where)


@settings(max_examples=often(500), deadline=None)
@given(st.text(max_size=40) | st.lists(st.sampled_from(WORDS), max_size=25).map(" ".join), SCOPES)
@example("((((((((((", {})
@example("'\\", {})
@example("1.e", {})
def test_no_text_breaks_them(source: str, scope: dict[str, Any]) -> None:
    found = run(source, scope)
    assert not isinstance(found, tuple) or all(found)


# ---- well-formed expressions over paths ---------------------------------------------------------

PATHS = st.sampled_from(
    [
        "blocks.b1.x",
        "blocks.b1",
        "blocks.b2.y",
        "blocks['b1'].x",
        "taskInputs.x",
        "taskInputs.y[0]",
        "task.variables.x",
        "blocks.x[taskInputs.x]",
        "blocks[taskInputs.y]",
        "blocks",
        "v",
    ]
)
ATOMS = PATHS | st.sampled_from(["1", "0", "-2", "1.5", "'x'", "'1'", "true", "null", "[]", "{}", "[1, 'x']"])
BINARY = ("+", "-", "*", "/", "%", "==", "!=", "<", "<=", ">", ">=", "&&", "||", "in")


def grow(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    pair = st.tuples(inner, st.sampled_from(BINARY), inner)
    return st.one_of(
        pair.map(lambda parts: f"({parts[0]} {parts[1]} {parts[2]})"),
        st.tuples(inner, inner, inner).map(lambda parts: f"({parts[0]} ? {parts[1]} : {parts[2]})"),
        st.tuples(inner, inner).map(lambda parts: f"{parts[0]}[{parts[1]}]"),
        inner.map(lambda part: f"!{part}"),
        inner.map(lambda part: f"size({part})"),
        inner.map(lambda part: f"[{part}, 1]"),
        inner.map(lambda part: f"{{'x': {part}}}.x"),
        st.tuples(st.sampled_from(["map", "filter", "all", "exists"]), inner, inner).map(
            lambda parts: f"{parts[1]}.{parts[0]}(v, {parts[2]})"
        ),
    )


EXPRESSIONS = st.recursive(ATOMS, grow, max_leaves=8)


def keep(scope: dict[str, Any], names: frozenset[tuple[str, ...]]) -> dict[str, Any]:
    """``scope`` reduced to what ``names`` say is read."""
    kept: dict[str, Any] = {}
    for path in names:
        source: Any = scope
        target = kept
        for depth, key in enumerate(path):
            if not isinstance(source, dict) or key not in source:
                break
            source = source[key]
            if depth + 1 == len(path) or not isinstance(source, dict):
                target[key] = source
                break
            target = target.setdefault(key, {})
    return kept


@settings(max_examples=often(500), deadline=None)
@given(EXPRESSIONS, SCOPES)
def test_they_read_nothing_but_their_names(source: str, scope: dict[str, Any]) -> None:
    try:
        compiled = expression.compile(source, roots=None)
    except ExpressionError:
        return
    before = copy.deepcopy(scope)
    results: list[Any] = []
    for each in (scope, keep(scope, compiled.names)):
        try:
            results.append(compiled.evaluate(each))
        except ExpressionError as error:
            results.append(error.detail)
    assert results[0] == results[1]
    assert scope == before


# ---- agreement with CEL ---------------------------------------------------------------------------

LONGS = st.integers(-50, 50).map(str)
DOUBLES = st.sampled_from(["0.5", "1.25", "-2.0", "3.0", "1e2"])
TEXTS = st.sampled_from(["'a'", '"b"', "'abc'", "''", "'\\n'"])  # not é: the library counts bytes, CEL says characters
FLAGS = st.sampled_from(["true", "false"])


def join(left: st.SearchStrategy[str], signs: str, right: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    return st.tuples(left, st.sampled_from(signs.split()), right).map(" ".join).map("({})".format)


longs = st.deferred(
    lambda: (
        LONGS
        | join(longs, "+ - *", longs)
        | join(longs, "%", st.sampled_from(["3", "-4", "7"]))
        | st.tuples(flags, longs, longs).map(lambda parts: f"({parts[0]} ? {parts[1]} : {parts[2]})")
        | st.tuples(texts).map(lambda parts: f"size({parts[0]})")
        | st.tuples(lists).map(lambda parts: f"{parts[0]}.size()")
    )
)
doubles = st.deferred(lambda: DOUBLES | join(doubles, "+ - *", doubles) | join(doubles, "/", st.just("4.0")))
texts = st.deferred(lambda: TEXTS | join(texts, "+", texts))
lists = st.deferred(
    lambda: (
        st.lists(longs, max_size=3).map(lambda items: f"[{', '.join(items)}]")
        | join(lists, "+", lists)
        | st.tuples(lists, longs).map(lambda parts: f"{parts[0]}.map(v, v + {parts[1]})")
        | st.tuples(lists, longs).map(lambda parts: f"{parts[0]}.filter(v, v > {parts[1]})")
    )
)
flags = st.deferred(
    lambda: (
        FLAGS
        | join(longs, "== != < <= > >=", longs)
        | join(longs, "== != < <= > >=", doubles)
        | join(texts, "== != < <= > >=", texts)
        | join(lists, "== !=", lists)
        | join(longs, "in", lists)
        | join(flags, "&& || == !=", flags)
        | flags.map(lambda part: f"!{part}")
        | st.tuples(lists, longs).map(lambda parts: f"{parts[0]}.exists(v, v == {parts[1]})")
        | st.tuples(lists, longs).map(lambda parts: f"{parts[0]}.all(v, v < {parts[1]})")
        | st.tuples(lists, longs).map(lambda parts: f"{parts[0]}.exists_one(v, v == {parts[1]})")
        | st.tuples(texts, texts).map(lambda parts: f"{parts[0]}.contains({parts[1]})")
        | st.tuples(texts, texts).map(lambda parts: f"{parts[0]}.startsWith({parts[1]})")
    )
)


@settings(max_examples=often(400), deadline=None)
@given(longs | doubles | texts | lists | flags)
def test_what_cel_can_say_means_the_same(source: str) -> None:
    try:
        expected = cel.evaluate(source)
    except OverflowError:
        return
    try:
        found = expression.compile(source).evaluate({})
    except ExpressionError as error:
        assert "nested too deeply" in error.detail or "characters" in error.detail  # noqa: PT017
        return
    assert found == expected
    assert type(found) is type(expected)
