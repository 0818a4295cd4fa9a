"""Expressions: what they mean, what they read, what they may cost."""

from __future__ import annotations

import re
import time
from typing import Any

import pytest

from flatwater.engine import expression
from flatwater.engine.expression.function import FUNCTIONS
from flatwater.errors import ExpressionError

SCOPE: dict[str, Any] = {
    "taskInputs": {"y": 1, "text": "5", "flag": "true", "nothing": None},
    "blocks": {
        "b1": {"x": 5, "siteId": "A-01", "none": None, "half": 0.5},
        "b2": {"rows": [{"a": 1}, {"a": 2}, {"a": None}], "map": {"k": "v", "n": {"m": 7}}},
    },
    "task": {"id": "T1", "priority": 3, "variables": {"x": [1, 2, 3], "done": False}},
}


def value(source: str, scope: dict[str, Any] = SCOPE) -> Any:
    return expression.compile(source, roots=None).evaluate(scope)


def fault(source: str, scope: dict[str, Any] = SCOPE) -> ExpressionError:
    with pytest.raises(ExpressionError) as caught:
        value(source, scope)
    return caught.value


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        # look-up never fails
        ("blocks.b1.x", 5),
        ("blocks.b1.missing", None),
        ("blocks.b9.x.y.z", None),
        ("blocks.b1.none.deeper", None),
        ("blocks.b1.x.of.a.number", None),
        ("blocks['b1']['x']", 5),
        ("blocks.b2.rows[1].a", 2),
        ("blocks.b2.rows[9].a", None),
        ("blocks.b2.rows[-1]", None),
        ("blocks.b2.rows[null]", None),
        ("blocks.b2.rows[1.0].a", 2),
        ("blocks.b2.map.n.m", 7),
        ("blocks.b2.map['n'].m", 7),
        ("taskInputs.?y", 1),
        ("nowhere.at.all", None),
        ("'abc'[1]", "b"),
        ("has(blocks.b1.x)", True),
        ("has(blocks.b1.none)", False),
        # the conditions people write
        ("blocks.b1.x > 3 && taskInputs.y != null", True),
        ("taskInputs.nothing == null || blocks.b9.x > 1", True),
        ("task.variables.done ? 'a' : 'b'", "b"),
        ("taskInputs.flag && true", True),
        ("!null", True),
        ("null ? 1 : 2", 2),
        ("!(1 == 2) && !false", True),
        ("false ? 1 : false ? 2 : true ? 3 : 4", 3),
        ("false && 1 / 0 > 0", False),
        ("true || 1 / 0 > 0", True),
        # numbers
        ("1 + 0.5", 1.5),
        ("2 / 4", 0.5),
        ("4 / 2", 2),
        ("7 / 2.0", 3.5),
        ("-5 % 3", -2),
        ("5 % -3", 2),
        ("5.5 % 2", 1.5),
        ("1 - 2 - 3", -4),
        ("2 + 3 * 4", 14),
        ("-(2 + 3)", -5),
        ("--3", 3),
        ("0x1F", 31),
        ("1e3", 1000.0),
        ("10L", 10),
        ("-9223372036854775808", -(2**63)),
        ("'6' / '3'", 2),
        ("'5' * 2", 10),
        # comparison
        ("1 == 1.0", True),
        ("'5' == 5", True),
        ("taskInputs.text > 3", True),
        ("'5' == '5.0'", False),
        ("1 == true", False),
        ("[1, [true]] == [1.0, [true]]", True),
        ("[1] == [true]", False),
        ("{'a': 1} == {'a': 1.0}", True),
        ("null < 1 || null > 1 || null <= null", False),
        ("null == null", True),
        ("null != 0", True),
        ("'b' > 'a'", True),
        # text
        ("'x' + 2", "x2"),
        ("2 + 'x' + true + null", "2xtruenull"),
        ("'x' + 1.0 + 4 / 2", "x1.02"),
        ("'it' + [1, 'a']", 'it[1,"a"]'),
        ("\"double\" + 'single'", "doublesingle"),
        (r"'\n\t\'\u00e9\x41\101'", "\n\t'éAA"),
        (r"r'\d'", r"\d"),
        ("'''a'b'''", "a'b"),
        ("'// no comment' // a comment", "// no comment"),
        # lists and maps
        ("[1, 2] + [3]", [1, 2, 3]),
        ("2 in [1, 2.0]", True),
        ("'k' in blocks.b2.map", True),
        ("1 in null", False),
        ("'b' in 'abc'", True),
        ("{'a': [1, {'b': null}], 2: 3}", {"a": [1, {"b": None}], "2": 3}),
        ("blocks.b2.rows.map(r, r.a)", [1, 2, None]),
        ("blocks.b2.rows.filter(r, r.a > 1)", [{"a": 2}]),
        ("blocks.b2.rows.map(r, r.a != null, r.a * 2)", [2, 4]),
        ("task.variables.x.all(i, i > 0)", True),
        ("task.variables.x.exists(i, i > 2)", True),
        ("task.variables.x.exists_one(i, i > 1)", False),
        ("blocks.b9.list.map(i, i)", []),
        ("blocks.b9.list.all(i, i)", True),
        ("blocks.b2.map.map(key, key + '!')", ["k!", "n!"]),
        ("[1, 2].map(x, [3].map(y, x * y))", [[3], [6]]),
        ("[[1]].map(blocks, blocks.map(x, x + 1))", [[2]]),
    ],
)
def test_means(source: str, expected: Any) -> None:
    found = value(source)
    assert found == expected
    assert type(found) is type(expected)


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("size('abc') + size([1]) + size({}) + size(null)", 4),
        ("'abc'.length()", 3),
        ("isEmpty('') && isEmpty(null) && ![1].isEmpty()", True),
        ("'abc'.contains('b') && [1, 2].contains(2) && {'a': 1}.contains('a')", True),
        ("blocks.b9.s.contains('a') || blocks.b9.s.startsWith('a') || blocks.b9.s.matches('a')", False),
        ("'A-01'.startsWith('A') && 'A-01'.endsWith('1') && 'A-01'.indexOf('0') == 2", True),
        ("'A-01'.substring(2)", "01"),
        ("'A-01'.substring(0, 1)", "A"),
        ("' a '.trim().upper() + 'B'.toLowerCase()", "Ab"),
        ("'a-b'.replace('-', '+')", "a+b"),
        ("'a,b'.split(',')", ["a", "b"]),
        ("'ab'.split('')", ["a", "b"]),
        ("['a', 1].join('/')", "a/1"),
        ("'A-01'.matches('^[A-Z]-[0-9]+$')", True),
        ("string(1.5) + string(true) + string([1])", "1.5true[1]"),
        ("int('12') + int(3.9) + int(true) + int('-2.5')", 14),
        ("double('1') / 4", 0.25),
        ("bool('true') && bool(1) && !bool(0) && !bool(null)", True),
        ("json({'a': [1, null]})", '{"a":[1,null]}'),
        ("parseJson('[1, {\"a\": 2}]')[1].a", 2),
        ("type(1) + type('') + type(null) + type([]) + type({}) + type(1.0) + type(true)",
         "LongStringnulllistmapDoubleBoolean"),
        ("round(2.5) + round(-2.5) + round(2.4)", 2),
        ("round(2.675, 2)", 2.68),
        ("floor(-1.5) + ceil(1.2) + abs(-3)", 3),
        ("min(3, 1.5, null) + max([1, 2])", 3.5),
        ("sum([1, 2.5, null])", 3.5),
        ("max([])", None),
        ("keys({'a': 1}) + values({'a': 1})", ["a", 1]),
        ("get({'a': 1}, 'b', 7) + get([5], 0)", 12),
        ("format('%s-%03d %.2f %x %5s|%-3s|%%', 'A', 7, 1.005, 255, 'r', 'l')", "A-007 1.00 ff     r|l  |%"),
        ("'%d'.format([3])", "3"),
        ("size(uuid())", 36),
    ],
)  # fmt: skip
def test_functions(source: str, expected: Any) -> None:
    assert value(source) == expected


def test_now_is_the_time_in_seconds() -> None:
    assert abs(value("now()") - time.time()) < 60
    assert not expression.compile("now() > 0 && true").pure
    assert expression.compile("1 + 1").pure


@pytest.mark.parametrize(
    ("source", "message", "column"),
    [
        ("", "ends too early", 1),
        ("1 +", "ends too early", 4),
        ("(1", "')' is expected", 3),
        ("1 2", "should end here", 3),
        ("a = 1", "unexpected '='", 3),
        ("a and b", "unexpected 'and'", 3),
        ("'abc", "not closed", 1),
        ("1 + 'a\nb'", "not closed", 5),
        ("a.1", "should end here", 2),
        ("a..b", "a name is expected", 3),
        ("12abc", "not a number", 1),
        ("a ? b", "':' is expected", 6),
        ("sze(1)", "no function sze", 1),
        ("size()", "takes 1 arguments, not 0", 1),
        ("[1].map(x)", "needs a variable", 5),
        ("[1].map(1, 2)", "needs a variable", 5),
        (r"'\q'", "not an escape", 1),
        (r"'\ud800'", "not a character", 1),
        ("1e999", "beyond what a Double", 1),
        ("99999999999999999999", "beyond what a Long", 1),
        ("#", "unexpected '#'", 1),
    ],
)
def test_bad_syntax_says_where(source: str, message: str, column: int) -> None:
    error = fault(source)
    assert message in error.detail
    assert error.where.startswith(f"column {column} of ")


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("null + 1", "null + Long 1"),
        ("'a' * 2", 'String "a" * Long 2'),
        ("true + 1", "Boolean true + Long 1"),
        ("1 / 0", "divided by zero"),
        ("1.5 % 0", "divided by zero"),
        ("9223372036854775807 + 1", "beyond what a Long"),
        ("1e308 * 10", "beyond what a Double"),
        ("1 && true", "must be true or false, not Long 1"),
        ("'a' < 1", "have no order"),
        ("[1] < [2]", "have no order"),
        ("[1][true]", "indexed by a whole number"),
        ("[1][1.5]", "indexed by a whole number"),
        ("1 in 2", "nothing can be in"),
        ("int('a')", "needs a number"),
        ("int(1e300)", "beyond what a Long"),
        ("'a'.matches('(')", "not a pattern"),
        ("parseJson('{')", "not JSON"),
        ("format('%d')", "more places than values"),
        ("format('%q', 1)", "format knows"),
        ("format('a', 1)", "more than places"),
        ("[1].upper()", "works on text"),
        ("'a'.map(x, x)", "works on a list"),
        ("-'a'", "has no meaning"),
    ],
)
def test_bad_values_say_what(source: str, message: str) -> None:
    error = fault(source)
    assert message in error.detail
    assert "column" in error.where
    assert source in error.where


def test_unknown_roots_are_refused_with_a_suggestion() -> None:
    with pytest.raises(ExpressionError, match=r"no 'taskInput'.*column 5.*taskInputs"):
        expression.compile("1 + taskInput.x")
    assert expression.compile("[1].map(taskInput, taskInput)").evaluate({}) == [1]


@pytest.mark.parametrize(
    ("source", "names"),
    [
        ("1 + 2", set()),
        ("blocks.b1.siteId != null", {("blocks", "b1", "siteId")}),
        ("blocks['b1'].siteId", {("blocks", "b1", "siteId")}),
        ("task.variables.x + taskInputs.y", {("task", "variables", "x"), ("taskInputs", "y")}),
        ("blocks[taskInputs.y].x", {("blocks",), ("taskInputs", "y")}),
        ("blocks.b1.rows[blocks.b2.i].a", {("blocks", "b1", "rows"), ("blocks", "b2", "i")}),
        ("blocks.b1.x + size(blocks.b1)", {("blocks", "b1")}),
        ("blocks.b1.list.map(b, b.x + blocks.b2.y)", {("blocks", "b1", "list"), ("blocks", "b2", "y")}),
        ("taskInputs.l.map(blocks, blocks.b1.x)", {("taskInputs", "l")}),
        ("has(blocks.b1.x) ? {'a': blocks.b2} : [blocks.b3.z]",
         {("blocks", "b1", "x"), ("blocks", "b2"), ("blocks", "b3", "z")}),
        ("!(blocks.a.x in blocks.b.y) || -blocks.c.z < 0",
         {("blocks", "a", "x"), ("blocks", "b", "y"), ("blocks", "c", "z")}),
    ],
)  # fmt: skip
def test_names(source: str, names: set[tuple[str, ...]]) -> None:
    assert expression.compile(source).names == names


def test_source_and_nesting_are_bounded() -> None:
    assert "characters" in fault("1+" * 6_000 + "1").detail
    assert value("+".join(["1"] * 4_000)) == 4_000
    assert value(" && ".join(["true"] * 1_000)) is True
    assert value("false ? 0 : " * 500 + "1") == 1
    deep = [
        ("(", "1", ")"),
        ("[", "1", "]"),
        ("{'a':", "1", "}"),
        ("!", "true", ""),
        ("-", "x", ""),
        ("true?", "1", ":2"),
        ("abs(", "1", ")"),
        ("1||(1&&(1==(1+(1*", "1", "))))"),
        ("x[", "0", "]"),
        ("", "x[0]", "[0]"),
        ("", "'a'", ".trim()"),
        ("[1].map(x,", "x", ")"),
    ]
    for before, middle, after in deep:
        assert "nested too deeply" in fault(before * 400 + middle + after * 400).detail


@pytest.mark.parametrize(
    "source",
    [
        "L.all(a, " * 9 + "true" + ")" * 9,
        "[1]" + ".map(a, [a, a])" * 38,
        "['aaaaaaaaaaaaaaaaaaaa']" + ".map(a, a + a)" * 30,
        "L.map(a, L.map(b, L.map(c, L.map(d, L.map(e, L)))))",
        "L.map(a, L.map(b, L.map(c, L.map(d, 'aaaaaaaa'.replace('a', 'aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa')))))",
        "L.map(a, L.map(b, L.map(c, L.map(d, L.map(e, 'a'.matches('(a+)+$'))))))",
    ],
)
def test_what_multiplies_is_stopped(source: str) -> None:
    """Each would touch millions of values; the library that was measured for this ran the first for minutes."""
    begun = time.process_time()
    error = fault(source.replace("L", "[1,2,3,4,5,6,7,8,9,10,11,12]"))
    assert re.search(r"more than 200,000 steps|grows beyond", error.detail)
    assert time.process_time() - begun < 30


def test_results_are_bounded_without_loops() -> None:
    scope = {"big": "a" * 600_000, "list": list(range(60_000))}
    assert "grows beyond" in fault("big + big", scope).detail
    assert "grows beyond" in fault("list + list", scope).detail
    assert "grows beyond" in fault("big.replace('a', 'bbb')", scope).detail
    assert "grows beyond" in fault("list.join('aaaaaaaaaaaaaaaaaaaaaaaa')", scope).detail
    assert "too long for a pattern" in fault("big.matches('(.*a.{300}){3}z')", scope).detail


def test_a_pattern_cannot_backtrack() -> None:
    begun = time.process_time()
    assert value("text.matches('(a+)+$')", {"text": "a" * 5_000 + "b"}) is False
    assert time.process_time() - begun < 10


def test_nothing_is_shared_with_the_program() -> None:
    compiled = expression.compile("keys(taskInputs.none)")
    compiled.evaluate({}).append("spoiled")
    assert compiled.evaluate({}) == []
    listed = expression.compile("[1, 2]")
    listed.evaluate({}).append("spoiled")
    assert listed.evaluate({}) == [1, 2]


def test_the_scope_is_not_copied() -> None:
    rows = [{"a": index} for index in range(10)]
    assert expression.compile("blocks.b.rows").evaluate({"blocks": {"b": {"rows": rows}}}) is rows


def test_deep_values_do_not_overflow() -> None:
    deep: Any = []
    for _ in range(5_000):
        deep = [deep]
    for source in ("json(x)", "x == y", "'a' + x"):
        assert fault(source, {"x": deep, "y": [deep[0]]}).detail


def test_every_function_says_what_it_does() -> None:
    assert all(function.description for function in FUNCTIONS.values())
