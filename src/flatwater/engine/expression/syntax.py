"""Text of an expression → its tree.

The grammar is that of CEL (https://github.com/google/cel-spec/blob/master/doc/langdef.md) without byte strings,
messages and types. A chain of operators of one level (``a + b - c``, ``a && b && c``) becomes one flat node, so the
height of a tree is the nesting that an author wrote and never the length of a sum.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from sys import intern
from typing import Any, Final, NamedTuple, TypeAlias

from flatwater.engine.expression.operation import LONG_MAX, LONG_MIN, Fault

MAX_SOURCE_CHARS: Final = 10_000
MAX_NESTING: Final = 40
"""Brackets, calls, signs and ``? :`` inside one another. 40 levels take about 300 of Python's 1,000 frames."""

MACROS: Final = {"map": (2, 3), "filter": (2, 2), "all": (2, 2), "exists": (2, 2), "exists_one": (2, 2)}


@dataclass(frozen=True, slots=True)
class Literal:
    value: Any


@dataclass(frozen=True, slots=True)
class Path:
    """A root name and the keys after it that are known from the text: ``blocks.b1.siteId``."""

    root: str
    keys: tuple[str, ...]
    at: int


@dataclass(frozen=True, slots=True)
class Index:
    target: Tree
    key: Tree
    at: int


@dataclass(frozen=True, slots=True)
class Call:
    """A function, or a method when the text put its first argument before the dot."""

    name: str
    arguments: tuple[Tree, ...]
    at: int


@dataclass(frozen=True, slots=True)
class Macro:
    """``target.map(variable, test, body)`` and its kin; ``test`` belongs to the three-part ``map`` alone."""

    name: str
    target: Tree
    variable: str
    test: Tree | None
    body: Tree
    at: int


@dataclass(frozen=True, slots=True)
class Chain:
    """Operators of one level, from left to right."""

    first: Tree
    rest: tuple[tuple[str, Tree, int], ...]


@dataclass(frozen=True, slots=True)
class Logic:
    """All of (``&&``) or any of (``||``)."""

    operator: str
    items: tuple[Tree, ...]
    at: int


@dataclass(frozen=True, slots=True)
class Unary:
    operator: str
    operand: Tree
    at: int


@dataclass(frozen=True, slots=True)
class Choice:
    """``a ? x : b ? y : z``: the first case whose condition holds, else ``otherwise``."""

    cases: tuple[tuple[Tree, Tree], ...]
    otherwise: Tree
    at: int


@dataclass(frozen=True, slots=True)
class ListOf:
    items: tuple[Tree, ...]


@dataclass(frozen=True, slots=True)
class MapOf:
    items: tuple[tuple[Tree, Tree], ...]
    at: int


Tree: TypeAlias = Literal | Path | Index | Call | Macro | Chain | Logic | Unary | Choice | ListOf | MapOf


class Token(NamedTuple):
    kind: str
    text: str
    at: int


_TOKEN = re.compile(
    r"""(?P<space>[\s]+|//[^\n]*)
    |(?P<number>0[xX][0-9a-fA-F]+[uUlL]?|(?:[0-9]+\.[0-9]+|\.[0-9]+|[0-9]+)(?:[eE][+-]?[0-9]+)?[uUlLdDfF]?)
    |(?P<string>[rR]?(?:'''(?:[^\\]|\\.)*?'''|\"\"\"(?:[^\\]|\\.)*?\"\"\"|'(?:[^'\\\n]|\\.)*'|"(?:[^"\\\n]|\\.)*"))
    |(?P<name>[^\W0-9]\w*)
    |(?P<sign>\|\||&&|==|!=|<=|>=|\.\?|[-+*/%<>!?:.,()\[\]{}])""",
    re.VERBOSE | re.DOTALL,
)
_ESCAPE = re.compile(r"\\(?:x([0-9a-fA-F]{2})|u([0-9a-fA-F]{4})|U([0-9a-fA-F]{8})|([0-7]{3})|(.))", re.DOTALL)
_ESCAPED: Final = {"n": "\n", "t": "\t", "r": "\r", "a": "\a", "b": "\b", "f": "\f", "v": "\v"}
_LEVELS: Final = {"||": 1, "&&": 2, **dict.fromkeys(("==", "!=", "<", "<=", ">", ">=", "in"), 3)}
_LEVELS.update({"+": 4, "-": 4, "*": 5, "/": 5, "%": 5})
_WORDS: Final = {"true": True, "false": False, "null": None}
_ADVICE: Final = {
    "=": "compare with ==; an expression cannot assign",
    "&": "write && for a logical and",
    "|": "write || for a logical or",
    ";": "an expression is one value, without statements",
    "and": "write && for a logical and",
    "or": "write || for a logical or",
    "not": "write ! for a logical not",
}


def tokens(source: str) -> list[Token]:
    """Split ``source``; the last token is ``end``. Raises `Fault`."""
    found: list[Token] = []
    at = 0
    while at < len(source):
        match = _TOKEN.match(source, at)
        if match is None:
            raise _unreadable(source, at)
        if match.lastgroup != "space":
            found.append(Token(str(match.lastgroup), match.group(), at))
        at = match.end()
    found.append(Token("end", "", at))
    return found


def _unreadable(source: str, at: int) -> Fault:
    sign = source[at]
    if sign in "'\"":
        return Fault("the text is not closed", hint=f"end it with {sign}", at=at)
    return Fault(f"unexpected {sign!r}", hint=_ADVICE.get(sign, ""), at=at)


def parse(source: str) -> Tree:
    """The tree of ``source``. Raises `Fault` with the position of what is wrong."""
    if len(source) > MAX_SOURCE_CHARS:
        raise Fault(f"the expression has {len(source):,} characters", hint=f"at most {MAX_SOURCE_CHARS:,} are allowed")
    parser = _Parser(tokens(source))
    tree = parser.choice()
    parser.finish()
    return tree


class _Parser:
    def __init__(self, found: list[Token]) -> None:
        self._tokens = found
        self._next = 0
        self._nesting = 0

    # ---- tokens ---------------------------------------------------------------------------------

    @property
    def _token(self) -> Token:
        return self._tokens[self._next]

    def _take(self, *texts: str) -> Token | None:
        """The present token if it is one of these signs or words, which is then behind us."""
        token = self._token
        if token.text in texts and token.kind in ("sign", "name"):
            self._next += 1
            return token
        return None

    def _need(self, text: str) -> Token:
        token = self._take(text)
        if token is None:
            raise self._unexpected(f"{text!r} is expected")
        return token

    def _unexpected(self, wanted: str) -> Fault:
        token = self._token
        if token.kind == "end":
            return Fault(f"the expression ends too early: {wanted}", at=token.at)
        return Fault(f"unexpected {token.text[:40]!r}: {wanted}", hint=_ADVICE.get(token.text, ""), at=token.at)

    def finish(self) -> None:
        if self._token.kind != "end":
            raise self._unexpected("the expression should end here")

    def _deeper(self) -> None:
        self._nesting += 1
        if self._nesting > MAX_NESTING:
            hint = f"at most {MAX_NESTING} levels are allowed; split it over task variables"
            raise Fault("the expression is nested too deeply", hint=hint, at=self._token.at)

    # ---- grammar --------------------------------------------------------------------------------

    def choice(self) -> Tree:
        self._deeper()
        cases: list[tuple[Tree, Tree]] = []
        at = self._token.at
        tree = self._operators(1)
        while self._take("?"):
            value = self.choice()
            self._need(":")
            cases.append((tree, value))
            tree = self._operators(1)
        self._nesting -= 1
        return Choice(tuple(cases), tree, at) if cases else tree

    def _operators(self, lowest: int) -> Tree:
        """Operators that bind at least as tightly as level ``lowest``."""
        tree = self._unary()
        while (level := self._level()) >= lowest:
            rest: list[tuple[str, Tree, int]] = []
            while self._level() == level:
                sign = self._tokens[self._next]
                self._next += 1
                rest.append((sign.text, self._operators(level + 1), sign.at))
            if level <= 2:
                tree = Logic(rest[0][0], (tree, *(item for _, item, _ in rest)), rest[0][2])
            else:
                tree = Chain(tree, tuple(rest))
        return tree

    def _level(self) -> int:
        token = self._token
        return _LEVELS.get(token.text, 0) if token.kind in ("sign", "name") else 0

    def _unary(self) -> Tree:
        sign = self._take("!", "-")
        if sign is None:
            return self._postfix(self._primary())
        if sign.text == "-" and self._token.kind == "number":
            return self._postfix(self._number("-"))
        self._deeper()
        tree = Unary(sign.text, self._unary(), sign.at)
        self._nesting -= 1
        return tree

    def _postfix(self, tree: Tree) -> Tree:
        """``.name``, ``.name(…)`` and ``[…]`` after a value. Each adds a level, save where a path only grows longer."""
        before = self._nesting
        while sign := self._take(".", ".?", "["):
            tree = self._subscript(tree, sign.at) if sign.text == "[" else self._member(tree)
            if not isinstance(tree, Path):
                self._deeper()
        self._nesting = before
        return tree

    def _subscript(self, target: Tree, at: int) -> Tree:
        key = self.choice()
        self._need("]")
        if isinstance(target, Path) and isinstance(key, Literal) and isinstance(key.value, str):
            return Path(target.root, (*target.keys, intern(key.value)), target.at)
        return Index(target, key, at)

    def _member(self, target: Tree) -> Tree:
        token = self._token
        if token.kind != "name":
            raise self._unexpected("a name is expected after the dot")
        self._next += 1
        if self._take("("):
            return self._method(target, token)
        if isinstance(target, Path):
            return Path(target.root, (*target.keys, intern(token.text)), target.at)
        return Index(target, Literal(token.text), token.at)

    def _method(self, target: Tree, name: Token) -> Tree:
        arguments = self._items(")")
        counts = MACROS.get(name.text)
        if counts is None:
            return Call(name.text, (target, *arguments), name.at)
        variable = arguments[0] if arguments else None
        if len(arguments) not in counts or not isinstance(variable, Path) or variable.keys:
            hint = f"write list.{name.text}(x, expression of x)"
            raise Fault(f"{name.text} needs a variable and an expression", hint=hint, at=name.at)
        test = arguments[1] if len(arguments) == 3 else None
        return Macro(name.text, target, variable.root, test, arguments[-1], name.at)

    def _items(self, close: str) -> tuple[Tree, ...]:
        items: list[Tree] = []
        while not self._take(close):
            items.append(self.choice())
            if not self._take(","):
                self._need(close)
                break
        return tuple(items)

    def _primary(self) -> Tree:
        token = self._token
        if token.kind == "number":
            return self._number()
        if token.kind == "string":
            self._next += 1
            return Literal(_text(token))
        if token.kind == "name":
            return self._name(token)
        if self._take("("):
            tree = self.choice()
            self._need(")")
            return tree
        if self._take("["):
            return ListOf(self._items("]"))
        if self._take("{"):
            return self._map(token.at)
        raise self._unexpected("a value is expected")

    def _name(self, token: Token) -> Tree:
        if token.text in ("in", "not", "and", "or"):
            raise self._unexpected("a value is expected")
        self._next += 1
        if token.text in _WORDS:
            return Literal(_WORDS[token.text])
        if self._take("("):
            return Call(token.text, self._items(")"), token.at)
        return Path(intern(token.text), (), token.at)

    def _map(self, at: int) -> Tree:
        items: list[tuple[Tree, Tree]] = []
        while not self._take("}"):
            key = self.choice()
            self._need(":")
            items.append((key, self.choice()))
            if not self._take(","):
                self._need("}")
                break
        return MapOf(tuple(items), at)

    def _number(self, sign: str = "") -> Literal:
        token = self._token
        self._next += 1
        if self._token.kind in ("name", "number") and self._token.at == token.at + len(token.text):
            raise Fault(f"{token.text + self._token.text!r} is not a number", at=token.at)
        return Literal(_number(sign, token))


def _number(sign: str, token: Token) -> int | float:
    text = token.text.lower()
    if text.startswith("0x"):
        value: int | float = int(sign + text.rstrip("ul"), 16)
    elif text[-1] in "df" or any(mark in text for mark in ".e"):
        value = float(sign + text.rstrip("dful"))
    else:
        value = int(sign + text.rstrip("ul")[:30])
    if isinstance(value, float) and value in (float("inf"), float("-inf")):
        raise Fault(f"the number {token.text[:40]} is beyond what a Double can hold", at=token.at)
    if isinstance(value, int) and not LONG_MIN <= value <= LONG_MAX:
        raise Fault(f"the number {token.text[:40]} is beyond what a Long can hold (64 bits)", at=token.at)
    return value


def _text(token: Token) -> str:
    text = token.text
    raw = text[0] in "rR"
    text = text[1:] if raw else text
    width = 3 if text[:3] in ("'''", '"""') else 1
    body = text[width : len(text) - width]
    return body if raw else _ESCAPE.sub(lambda match: _escaped(match, token.at), body)


def _escaped(match: re.Match[str], at: int) -> str:
    hexadecimal = match[1] or match[2] or match[3]
    if hexadecimal or match[4]:
        code = int(hexadecimal, 16) if hexadecimal else int(match[4], 8)
        if code > 0x10FFFF or 0xD800 <= code <= 0xDFFF:
            raise Fault(f"{match[0]} is not a character", at=at)
        return chr(code)
    if match[5].isalnum() and match[5] not in _ESCAPED:
        hint = "double the backslash, or write r'…' for text without escapes"
        raise Fault(f"{match[0]} is not an escape", hint=hint, at=at)
    return _ESCAPED.get(match[5], match[5])
