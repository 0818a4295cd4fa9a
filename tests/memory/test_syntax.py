"""Parsing while somebody else parses."""

from __future__ import annotations

import ast
import gc

import pytest

from flatwater.memory.syntax import parse

SOURCE = "\n".join(f"def f{n}(a, *b, c=[{n}]):\n    return [a, b, {{c: {n}}}]" for n in range(300))


def test_another_one_that_parses_meanwhile_does_no_harm() -> None:
    """What a garbage collection lets run in the middle stands for another thread."""
    nested = 0

    def meanwhile(phase: str, _: object) -> None:
        nonlocal nested
        if phase == "start" and nested < 2:
            nested += 1
            ast.parse("1 + 1")

    expected = ast.dump(ast.parse(SOURCE))
    before = gc.get_threshold()
    gc.callbacks.append(meanwhile)
    try:
        gc.set_threshold(500)
        found = parse(SOURCE)
    finally:
        gc.set_threshold(*before)
        gc.callbacks.remove(meanwhile)
    assert nested == 2
    assert ast.dump(found) == expected


def test_what_is_wrong_with_a_source_is_told() -> None:
    with pytest.raises(SyntaxError):
        parse("def f(:")
    with pytest.raises((SyntaxError, ValueError)):  # by the version of Python
        parse("\0")
