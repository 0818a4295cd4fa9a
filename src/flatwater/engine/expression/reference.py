"""The page ``docs/reference/expressions.md``: ``python -m flatwater.engine.expression.reference``.

Every result on the page is computed from its example when the page is written.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

import msgspec

from flatwater.engine import expression
from flatwater.engine.expression import MAX_NESTING, MAX_SOURCE_CHARS
from flatwater.engine.expression.evaluation import MAX_STEPS
from flatwater.engine.expression.function import FUNCTIONS, Function
from flatwater.engine.expression.operation import MAX_ITEMS, MAX_TEXT_CHARS

SCOPE: Final[dict[str, Any]] = {
    "taskInputs": {"amount": 5, "kind": "bolts", "orders": [{"sku": "A", "n": 2}, {"sku": "B", "n": 7}]},
    "blocks": {"b1": {"siteId": "A-1"}},
    "task": {"id": "01KAJ", "priority": 0, "variables": {"done": False, "site": "A-1"}},
}
LANGUAGE: Final = {
    "taskInputs.amount + 1": "an input of the run",
    "blocks.b1.siteId": "an output of the block named `b1`, once it has run",
    "task.variables.site": "a task variable; beside them `id`, `defLabel`, `createdOn`, `status`, `priority`",
    "taskInputs.orders[1].sku": "an item of a list, counted from 0",
    "task.variables['site']": "a key that may be computed",
    "taskInputs.nothing.at.all[3]": "look-up never fails: what is not there is null",
    "has(task.variables.site)": "the same as `x != null`",
    "'box ' + 2": "`+` joins when one side is text",
    "'5' * 2": "text that is a number counts as one beside a number, save for `+`",
    "4 / 2": "two whole numbers stay whole when it comes out even …",
    "2 / 4": "… and else give a Double",
    "-7 % 3": "the sign of the left side",
    "null < 3": "`<`, `<=`, `>`, `>=` beside null are false",
    "taskInputs.amount > 3 && !task.variables.done": "`&&`, `||` and `!`; they stop at the first answer",
    "taskInputs.amount > 3 ? 'many' : 'few'": "a choice",
    "taskInputs.kind in ['bolts', 'gears']": "an item of a list, or a key of a map",
    "{'site': task.variables.site, 'n': [1, 2]}": "a map and a list",
    "taskInputs.orders.map(o, o.sku)": "each item, changed",
    "taskInputs.orders.map(o, o.n > 5, o.sku)": "only some items, changed",
    "taskInputs.orders.filter(o, o.n > 5)": "only some items",
    "taskInputs.orders.all(o, o.n > 5)": "whether all fulfil it; likewise `exists` and `exists_one`",
}
EXAMPLES: Final[dict[str, dict[str, str]]] = {
    "Time and identity": {"now": "now()", "uuid": "uuid()"},
    "Conversion": {
        "string": "string([1, 2])",
        "int": "int('7')",
        "double": "double('1.5')",
        "bool": "bool('true')",
        "json": "json({'a': 1})",
        "parseJson": "parseJson('[1, 2]')",
        "type": "type(1.5)",
    },
    "Numbers": {
        "abs": "abs(-3)",
        "round": "round(2.345, 2)",
        "floor": "floor(2.7)",
        "ceil": "ceil(2.1)",
        "min": "min(3, 1, 2)",
        "max": "max([3, 1, 2])",
        "sum": "sum([3, 1, 2])",
    },
    "Texts, lists and maps": {
        "size": "size('pallet')",
        "isEmpty": "isEmpty([])",
        "contains": "contains('pallet', 'all')",
        "equals": "equals(1, 1.0)",
        "get": "get({'a': 1}, 'b', 0)",
        "keys": "keys({'a': 1})",
        "values": "values({'a': 1})",
        "startsWith": "startsWith('A-1', 'A')",
        "endsWith": "endsWith('A-1', '1')",
        "indexOf": "indexOf('A-1', '-')",
        "substring": "substring('A-17', 2, 4)",
        "trim": "trim('  A ')",
        "upper": "upper('bolts')",
        "lower": "lower('BOLTS')",
        "replace": "replace('A-1', '-', '_')",
        "split": "split('A,B')",
        "join": "join(['A', 'B'], '-')",
        "matches": "matches('A-17', '^A-[0-9]+$')",
        "format": "format('%s-%03d', 'A', 7)",
    },
}
_HEAD: Final = f"""# Expressions

Written from the functions themselves (`python -m flatwater.engine.expression.reference` prints it; a test compares).
Every result below was computed from the example beside it.

A parameter of type `Expression`, the value of an output behind `=`, and a row of `Key-Value` whose value begins with
`=` are computed when their block runs. The language is
[CEL](https://github.com/google/cel-spec/blob/master/doc/langdef.md), read leniently, so that definitions of the known
systems run as they are: a value that is not there is null instead of an error, and numbers in text count as numbers.
There are no assignments, no loops but those below, and no way to reach Python.

Limits: {MAX_SOURCE_CHARS:,} characters of source, {MAX_NESTING} levels, texts of {MAX_TEXT_CHARS:,} characters, lists
of {MAX_ITEMS:,} items, {MAX_STEPS:,} steps where lists are built or walked. Whole numbers have 64 bits; beyond them,
and for an infinite Double, the block fails. In a condition null is false, and a number is an error.

## The language

The examples are computed in a run with these values:

```json
"""
_FUNCTIONS: Final = """## Functions

Each may be written before or behind its first argument: `size(x)` or `x.size()`. *of null*: what it gives when the
first argument is null."""


def reference() -> str:
    """The text of the page."""
    shown = _HEAD + msgspec.json.format(msgspec.json.encode(SCOPE), indent=0).decode() + "\n```"
    rows = [f"| {_code(source)} | {_result(source)} | {meaning} |" for source, meaning in LANGUAGE.items()]
    parts = [shown, "\n".join(["| expression | gives | |", "|---|---|---|", *rows])]
    parts.append(_FUNCTIONS)
    for title, examples in EXAMPLES.items():
        head = ["| function | | example | gives | of null |", "|---|---|---|---|---|"]
        parts.append(f"### {title}\n\n" + "\n".join([*head, *map(_row, examples, examples.values())]))
    return "\n\n".join(parts) + "\n"


def _row(name: str, example: str) -> str:
    function = FUNCTIONS[name]
    names = ", ".join(_code(each) for each in (name, *aliases(function)))
    result = _result(example) if function.pure else "another each time"
    about = function.description.replace("``", "`").replace("|", "\\|")
    return f"| {names} | {about} | {_code(example)} | {result} | {_of_null(function)} |"


def aliases(function: Function) -> Iterator[str]:
    """The other names of a function."""
    return (name for name, each in FUNCTIONS.items() if each.call is function.call and name != function.name)


def _of_null(function: Function) -> str:
    if function.most == 0:
        return ""
    return _code(_json(function.call(None, *[None] * (function.least - 1))))


def _result(source: str) -> str:
    return _code(_json(expression.compile(source).evaluate(SCOPE)))


def _json(value: Any) -> str:
    return msgspec.json.encode(value).decode()


def _code(text: str) -> str:
    return f"`{text}`".replace("|", "\\|")


if __name__ == "__main__":
    print(reference(), end="")  # noqa: T201
