"""Which statement keeps what a line makes, read from the source: for growth whose moment nobody can watch.

A new leaf of a tree changes a slot that was not known before. Standard library only: it runs in the process that is
examined, and reads no source but the one named.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator, Sequence
from typing import Any

from flatwater.memory.site import MAX_SOURCE_BYTES, Place, is_library
from flatwater.memory.syntax import parse

_Function = ast.FunctionDef | ast.AsyncFunctionDef | ast.Module


def kept_at(stack: Sequence[Place]) -> Place | None:
    """Where an object that was made at the first of the places is stored or handed on; None when that is not clear.

    A statement that returns it hands it to the place below.
    """
    for file, function, line in stack:
        if is_library(file):
            continue
        found = _kept(file, line)
        if found is not None:
            return (file, function, found) if found else None
    return None


def _kept(file: str, line: int) -> int | None:
    """A line; 0 when it is not clear; None when the statement returns it."""
    try:
        with open(file, "rb") as source:  # noqa: PTH123
            tree = parse(source.read(MAX_SOURCE_BYTES))
    except (OSError, ValueError, SyntaxError, RecursionError, MemoryError):
        return 0
    around = [node for node in ast.walk(tree) if isinstance(node, _Function) and _spans(node, line)]
    inner = max(around, key=lambda node: getattr(node, "lineno", 0), default=tree)
    statement = max(
        (node for node in ast.walk(inner) if isinstance(node, ast.stmt) and _spans(node, line)),
        key=lambda node: (node.lineno, -(node.end_lineno or 0)),
        default=None,
    )
    if isinstance(statement, ast.Return):
        return None
    if isinstance(statement, ast.Expr):
        return line
    if isinstance(statement, ast.Assign):
        if isinstance(statement.value, ast.Call) and any(map(_makes, statement.value.args)):
            return line  # handed to what is called: node.setdefault(key, {})
        names = [target.id for target in statement.targets if isinstance(target, ast.Name)]
        return next(_uses(inner, names, statement.lineno), 0) if len(names) == len(statement.targets) else line
    return 0


def _makes(node: ast.expr) -> bool:
    return isinstance(node, ast.Dict | ast.List | ast.Set | ast.Tuple | ast.JoinedStr)


def _spans(node: Any, line: int) -> bool:
    return isinstance(node, ast.Module) or node.lineno <= line <= (node.end_lineno or node.lineno)


def _uses(function: ast.AST, names: list[str], after: int) -> Iterator[int]:
    """Lines on which one of the variables is stored in something, or handed to a call, those that come next first."""
    rows: list[tuple[bool, int]] = []
    for node in ast.walk(function):
        if not isinstance(node, ast.Call | ast.Assign):
            continue
        given: list[ast.expr] = []
        if isinstance(node, ast.Call):
            given = [*node.args, *(word.value for word in node.keywords)]
        elif not all(isinstance(target, ast.Name) for target in node.targets):
            given = [node.value]
        held = [*given, *(part for one in given if isinstance(one, ast.Tuple | ast.List) for part in one.elts)]
        if any(isinstance(one, ast.Name) and one.id in names for one in held):
            rows.append((node.lineno <= after, node.lineno))
    yield from (line for _, line in sorted(rows))
