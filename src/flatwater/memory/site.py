"""Places in the program: which of a stack's frames is the user's own, and what function a line is in.

Standard library only: it runs in the process that is examined.
"""

from __future__ import annotations

import ast
import os
import sys
from collections.abc import Iterator, Sequence
from types import CodeType, FunctionType, MappingProxyType, ModuleType
from typing import Any

from flatwater.memory.syntax import parse

Place = tuple[str, str, int]
"""File, function, line."""

_STANDARD = tuple({os.path.dirname(os.__file__) + os.sep, os.path.dirname(os.path.realpath(os.__file__)) + os.sep})  # noqa: PTH120
_INSTALLED = (f"{os.sep}site-packages{os.sep}", f"{os.sep}dist-packages{os.sep}")
MAX_SOURCE_BYTES = 4 << 20
_DEPTH = 6  # of classes in classes and functions in functions


def is_library(file: str) -> bool:
    """True for files of the standard library and of installed packages."""
    return file.startswith((*_STANDARD, "<frozen ")) or any(part in file for part in _INSTALLED)


def own(stack: Sequence[Place]) -> Place:
    """The first frame that is not a library's, innermost first; where all are, the innermost.

    Code without a file (what ``namedtuple`` and ``dataclass`` generate, ``python -c``) counts when nothing else does.
    """
    ours = [place for place in stack if not is_library(place[0])]
    return next((place for place in ours if not place[0].startswith("<")), ours[0] if ours else stack[0])


def to_json(place: Place) -> dict[str, Any]:
    """For reports."""
    return {"file": place[0], "line": place[2], "function": place[1]}


class Functions:
    """Finds the function that a line of a loaded module is in, by the code objects; runs none of the program's code."""

    def __init__(self) -> None:
        self._codes: dict[str, list[CodeType]] = {}
        self._texts: dict[str, list[tuple[int, int, str]]] = {}
        self._known: dict[tuple[str, int], str] = {}

    def place(self, file: str, line: int) -> Place:
        """The place with its function's qualified name, "" where no loaded code has that line."""
        key = file, line
        if key not in self._known:
            self._known[key] = self._find(file, line)
        return file, self._known[key], line

    def _find(self, file: str, line: int) -> str:
        if file not in self._codes:
            self._codes[file] = [code for module in _modules(file) for code in _codes(vars(module), file, _DEPTH)]
        inside = [code for code in self._codes[file] if code.co_firstlineno <= line <= _last_line(code)]
        if inside:
            return max(inside, key=lambda code: code.co_firstlineno).co_qualname
        if file not in self._texts:  # a decorator may hide the function
            self._texts[file] = list(_functions(file))
        named = [(first, name) for first, last, name in self._texts[file] if first <= line <= last]
        return max(named)[1] if named else "<module>" if self._texts[file] or self._codes[file] else ""


def _functions(file: str) -> Iterator[tuple[int, int, str]]:
    """First line, last line and qualified name of every function in a source file; nothing when it cannot be read."""
    try:
        with open(file, "rb") as source:  # noqa: PTH123
            tree = parse(source.read(MAX_SOURCE_BYTES))
    except (OSError, ValueError, SyntaxError, RecursionError, MemoryError):
        return
    waiting: list[tuple[ast.AST, str]] = [(tree, "")]
    while waiting:
        node, scope = waiting.pop()
        for child in ast.iter_child_nodes(node):
            inner = scope
            if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef):
                first = min([child.lineno, *(each.lineno for each in child.decorator_list)])
                yield first, child.end_lineno or first, scope + child.name
                inner = f"{scope}{child.name}.<locals>."
            elif isinstance(child, ast.ClassDef):
                inner = f"{scope}{child.name}."
            waiting.append((child, inner))


def _modules(file: str) -> Iterator[ModuleType]:
    for module in list(sys.modules.values()):
        if type(module) is ModuleType and vars(module).get("__file__") == file:
            yield module


def _codes(scope: dict[str, Any] | MappingProxyType[str, Any], file: str, depth: int) -> Iterator[CodeType]:
    for item in list(scope.values()):
        for one in _unwrapped(item):
            if type(one) is FunctionType and one.__code__.co_filename == file:
                yield from _nested(one.__code__, depth)
            elif issubclass(type(one), type) and depth and _module_of(one) == scope.get("__name__", _module_of(one)):
                yield from _codes(type.__dict__["__dict__"].__get__(one), file, depth - 1)


def _module_of(kind: type) -> Any:
    return type.__dict__["__module__"].__get__(kind)


def _unwrapped(item: Any) -> Iterator[Any]:
    # Exact types, so that no descriptor of the program runs; a decorator's closure often holds the function.
    if type(item) is property:
        yield from (item.fget, item.fset, item.fdel)
    elif type(item) in (staticmethod, classmethod):
        yield item.__func__
    else:
        yield item
        if type(item) is FunctionType:
            yield from (cell.cell_contents for cell in item.__closure__ or () if _filled(cell))
            yield item.__dict__.get("__wrapped__")


def _filled(cell: Any) -> bool:
    try:
        return type(cell.cell_contents) is FunctionType
    except ValueError:
        return False


def _nested(code: CodeType, depth: int) -> Iterator[CodeType]:
    yield code
    if depth:
        for constant in code.co_consts:
            if type(constant) is CodeType:
                yield from _nested(constant, depth - 1)


def _last_line(code: CodeType) -> int:
    return max((line for _, _, line in code.co_lines() if line), default=code.co_firstlineno)
