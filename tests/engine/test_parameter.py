"""Parameters: conversion of literals and of what expressions give, defaults, errors with their place."""

from __future__ import annotations

from typing import Annotated, Any

import pytest
from msgspec import Meta

from flatwater.engine import expression
from flatwater.engine.parameter import (
    NEEDED,
    CompiledParams,
    ConversionError,
    Dynamic,
    Param,
    ParamType,
    Row,
    blank,
    convert,
)
from flatwater.errors import ExpressionError


@pytest.mark.parametrize(
    ("to", "value", "expected"),
    [
        (ParamType.STRING, 5, "5"),
        (ParamType.STRING, 1.5, "1.5"),
        (ParamType.STRING, True, "true"),
        (ParamType.STRING, {"a": [1]}, '{"a":[1]}'),
        (ParamType.BOOLEAN, "TRUE", True),
        (ParamType.BOOLEAN, "0", False),
        (ParamType.BOOLEAN, 1, True),
        (ParamType.BOOLEAN, False, False),
        (ParamType.LONG, "12", 12),
        (ParamType.LONG, " -3 ", -3),
        (ParamType.LONG, "4.0", 4),
        (ParamType.LONG, 5.0, 5),
        (ParamType.LONG, "-9223372036854775808", -(2**63)),
        (ParamType.DOUBLE, "1.5e3", 1500.0),
        (ParamType.DOUBLE, 2, 2.0),
        (ParamType.OBJECT, '{"a": 1}', {"a": 1}),
        (ParamType.OBJECT, {"a": 1}, {"a": 1}),
        (ParamType.ARRAY, "[1, 2]", [1, 2]),
        (ParamType.ARRAY, (1, 2), [1, 2]),
        (ParamType.ANY, "5", "5"),
    ],
)
def test_converts(to: ParamType, value: Any, expected: Any) -> None:
    found = convert(value, to)
    assert found == expected
    assert type(found) is type(expected)


@pytest.mark.parametrize(
    ("to", "value"),
    [
        (ParamType.BOOLEAN, "yes"),
        (ParamType.BOOLEAN, 2),
        (ParamType.BOOLEAN, [True]),
        (ParamType.LONG, "1.5"),
        (ParamType.LONG, True),
        (ParamType.LONG, "9223372036854775808"),
        (ParamType.LONG, 2**70),
        (ParamType.LONG, float("nan")),
        (ParamType.LONG, float("inf")),
        (ParamType.LONG, "1_000"),
        (ParamType.DOUBLE, "NaN"),
        (ParamType.DOUBLE, "1e999"),
        (ParamType.DOUBLE, float("nan")),
        (ParamType.DOUBLE, "abc"),
        (ParamType.OBJECT, "[1]"),
        (ParamType.OBJECT, "{"),
        (ParamType.OBJECT, 5),
        (ParamType.ARRAY, '{"a": 1}'),
        (ParamType.ARRAY, "[" * 100_000),
        (ParamType.ARRAY, "a,b"),
    ],
)
def test_refuses(to: ParamType, value: Any) -> None:
    with pytest.raises(ConversionError, match=rf"must be .*\({to}\), not "):
        convert(value, to)


def test_blank_is_not_given() -> None:
    assert blank(None)
    assert blank("")
    assert not blank(" ")  # a separator may be a space
    assert blank(" ", ParamType.LONG)
    assert not blank(0, ParamType.LONG)
    assert not blank(False, ParamType.BOOLEAN)


def params(*dynamic: tuple[Param, str], **constants: Any) -> CompiledParams:
    items = [Dynamic(param, expression.compile(source)) for param, source in dynamic]
    return CompiledParams("b3 (Weigh, id 3)", constants, items)


def test_evaluates_only_what_depends_on_the_run() -> None:
    compiled = params((Param(name="n", type=ParamType.LONG), "blocks.b1.x + 1"), text="a", flag=None)
    assert compiled.evaluate({"blocks": {"b1": {"x": 1}}}) == {"text": "a", "flag": None, "n": 2}
    assert compiled.get("text", {}) == "a"
    assert compiled.get("n", {"blocks": {"b1": {"x": 2}}}) == 3
    assert compiled.names == {("blocks", "b1", "x")}
    assert not compiled.constant
    assert params(a=1).constant


def test_one_parameter_leaves_the_others_alone() -> None:
    compiled = params((Param(name="bad"), "1 / 0"), (Param(name="good"), "1 + 1"))
    assert compiled.get("good", {}) == 2
    with pytest.raises(ExpressionError, match="divided by zero"):
        compiled.evaluate({})


def test_a_block_cannot_change_the_next_runs_literals() -> None:
    compiled = params(rows=[{"a": [1]}])
    first = compiled.evaluate({})
    first["rows"][0]["a"].append(2)
    compiled.get("rows", {}).append(3)
    assert compiled.evaluate({}) == {"rows": [{"a": [1]}]}


def test_null_gives_the_default() -> None:
    known = Param(name="n", type=ParamType.LONG, default=7)
    assert params((known, "blocks.b1.x")).evaluate({}) == {"n": 7}
    assert params((known, "''")).evaluate({}) == {"n": 7}
    needed = Param(name="n", type=ParamType.LONG, required=True, default=NEEDED)
    with pytest.raises(ExpressionError, match="n is required and must not be null") as caught:
        params((needed, "blocks.b1.x")).evaluate({})
    assert caught.value.where == "b3 (Weigh, id 3): n, from `blocks.b1.x`"


def test_errors_name_block_parameter_and_value() -> None:
    param = Param(name="count", type=ParamType.LONG)
    with pytest.raises(ExpressionError, match=r'count must be a whole number.*not String "many"') as caught:
        params((param, "taskInputs.n")).evaluate({"taskInputs": {"n": "many"}})
    assert caught.value.where == "b3 (Weigh, id 3): count, from `taskInputs.n`"
    with pytest.raises(ExpressionError, match="divided by zero") as caught:
        params((param, "1 / 0")).evaluate({})
    assert caught.value.where == "b3 (Weigh, id 3): count, column 3 of `1 / 0`"
    assert caught.value.hint


def test_bounds_hold_at_run_time() -> None:
    param = Param(name="num", type=ParamType.LONG, annotation=Annotated[int, Meta(ge=0, le=100)])
    compiled = params((param, "taskInputs.n"))
    assert compiled.evaluate({"taskInputs": {"n": "100"}}) == {"num": 100}
    with pytest.raises(ExpressionError, match="num does not fit: Expected int <= 100, not Long 101"):
        compiled.evaluate({"taskInputs": {"n": 101}})


def test_rows() -> None:
    rows = (
        Row("a", "x", ParamType.STRING),
        Row("b", expression.compile("taskInputs.n"), ParamType.LONG),
        Row("c", expression.compile("taskInputs.none"), ParamType.STRING),
    )
    compiled = CompiledParams("b1", {}, [Dynamic(Param(name="header", type=ParamType.OBJECT), rows)])
    assert compiled.evaluate({"taskInputs": {"n": "5"}}) == {"header": {"a": "x", "b": 5, "c": None}}
    assert compiled.names == {("taskInputs", "n"), ("taskInputs", "none")}
    with pytest.raises(ExpressionError, match="b must be a whole number"):
        compiled.evaluate({"taskInputs": {"n": "z"}})
