"""The reference pages that are written from the code say what the code says."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from flatwater.cli.reference import reference as cli
from flatwater.engine.expression import reference as expressions
from flatwater.engine.expression.function import FUNCTIONS

DOCS = Path(__file__).parents[1] / "docs" / "reference"


def test_the_reference_of_the_command_line_is_current() -> None:
    assert (DOCS / "cli.md").read_text("utf-8") == cli()


def test_the_reference_of_expressions_is_current() -> None:
    assert (DOCS / "expressions.md").read_text("utf-8") == expressions.reference()


def test_every_function_is_in_the_reference_once() -> None:
    shown = [name for examples in expressions.EXAMPLES.values() for name in examples]
    shown += [alias for name in tuple(shown) for alias in expressions.aliases(FUNCTIONS[name])]
    assert Counter(shown) == Counter(list(FUNCTIONS))


def test_every_example_uses_its_function() -> None:
    for examples in expressions.EXAMPLES.values():
        assert [name for name, example in examples.items() if not example.startswith(f"{name}(")] == []
