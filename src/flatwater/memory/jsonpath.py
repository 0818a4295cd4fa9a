"""The part of JSONPath that people write to choose processes, as procpath understands it. No ``eval``.

A path is ``$`` and steps: ``.name``, ``['name']``, ``..name`` (at any depth), ``.*``, ``[*]``, ``[0]``,
``[?(condition)]``. A condition compares ``@.stat.pid``, ``@.cmdline`` and literals with ``== != < <= > >= in``,
``not in`` and ``=~``, joined by ``and or not`` (or ``&& || !``) and parentheses; texts have ``startswith`` and
``endswith``; the idiom
``@.pop("children", 1)`` leaves out the descendants of what it matches. What is missing is None: comparing it is false.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from flatwater.errors import InputError

MAX_LENGTH = 10_000
MAX_DEPTH = 50

Node = Any
Value = Callable[[Node], Any]
Step = Callable[[Iterator[Node]], Iterator[Node]]

_TOKEN = re.compile(
    r"""\s*(?:
        (?P<number>-?\d+(?:\.\d+)?)
      | (?P<text>'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*")
      | (?P<regex>(?<==~)\s*/(?:[^/\\]|\\.)*/)
      | (?P<name>[A-Za-z_][A-Za-z_0-9]*)
      | (?P<sign>\.\.|=~|==|!=|<=|>=|&&|\|\||[$@.*?<>!(),\[\]])
    )""",
    re.VERBOSE,
)
_SYNONYMS = {"&&": "and", "||": "or", "!": "not"}
_CONSTANTS = {"True": True, "true": True, "False": False, "false": False, "None": None, "null": None}


class PathError(InputError, code="jsonpath"):
    """The JSONPath is not understood."""


@dataclass(frozen=True, slots=True)
class Path:
    """A parsed path. ``names`` are the fields that it looks at; ``leaf`` is its last name, if it ends in one."""

    text: str
    steps: tuple[Step, ...]
    names: frozenset[tuple[str, int]]
    leaf: str | None
    without_children: bool

    def find(self, document: Node) -> Iterator[Node]:
        """What the path selects in ``document`` (dicts, lists, scalars), in document order."""
        found: Iterator[Node] = iter((document,))
        for step in self.steps:
            found = step(found)
        return found


def parse(text: str) -> Path:
    """Raises `PathError`, whose ``where`` is the position and whose hint shows it."""
    if len(text) > MAX_LENGTH:
        raise PathError(f"longer than {MAX_LENGTH} characters")
    return _Parser(text).path()


@dataclass(slots=True)
class _Parser:
    text: str
    tokens: list[tuple[str, str, int]] = field(default_factory=list)
    at: int = 0
    depth: int = 0
    names: set[tuple[str, int]] = field(default_factory=set)
    without_children: bool = False

    def path(self) -> Path:
        self._split()
        if not self._take("$") and self._peek() not in ("..", "."):
            raise self._refused("a path starts with $")
        steps: list[Step] = []
        leaf = None
        while self._kind() != "end":
            step, leaf = self._step()
            steps.append(step)
        return Path(self.text, tuple(steps), frozenset(self.names), leaf, self.without_children)

    def _split(self) -> None:
        # The JSONPath library that procpath uses wants parentheses inside a condition escaped.
        text = re.sub(r"\\([()])", r" \1", self.text)
        position = 0
        end = len(text.rstrip())
        while position < end:
            match = _TOKEN.match(text, position)
            if match is None:
                position += len(text[position:]) - len(text[position:].lstrip())
                raise self._refused(f"{text[position]!r} cannot stand here", position)
            kind = match.lastgroup or ""
            word = match[kind].strip()
            start = match.end() - len(word)
            self.tokens.append((kind, _SYNONYMS.get(word, word) if kind == "sign" else word, start))
            position = match.end()
        self.tokens.append(("end", "", end))

    def _step(self) -> tuple[Step, str | None]:
        if self._take(".."):
            if self._peek() == "[":
                return _chain(_descend(None), self._bracket()), None
            name = self._name_or_star()
            return _descend(name), None if name == "*" else name
        if self._take("."):
            name = self._name_or_star()
            return (_every, None) if name == "*" else (_member(name), name)
        if self._peek() == "[":
            return self._bracket(), None
        raise self._refused("a step is .name, ..name or [?(condition)]")

    def _bracket(self) -> Step:
        self._expect("[")
        step = self._inside()
        self._expect("]")
        return step

    def _inside(self) -> Step:
        if self._take("*"):
            return _every
        if self._take("?"):
            return _filter(self._either())
        kind, word, position = self._next()
        if kind == "text":
            return _member(_unquote(word))
        if kind == "number" and "." not in word:
            return _index(int(word))
        raise self._refused("brackets hold ?(condition), 'name', a number or *", position)

    def _name_or_star(self) -> str:
        kind, word, position = self._next()
        if kind != "name" and word != "*":
            raise self._refused("a name is missing", position)
        return word

    # A condition, by falling precedence: or, and, not, comparison, value.

    def _either(self) -> Value:
        self.depth += 1
        if self.depth > MAX_DEPTH:
            raise self._refused(f"nested deeper than {MAX_DEPTH}")
        left = self._both()
        while self._take("or"):
            left = _or(left, self._both())
        self.depth -= 1
        return left

    def _both(self) -> Value:
        left = self._negation()
        while self._take("and"):
            left = _and(left, self._negation())
        return left

    def _negation(self) -> Value:
        count = 0
        while self._take("not"):
            count += 1
        value = self._comparison()
        return _not(value) if count % 2 else value

    def _comparison(self) -> Value:
        left = self._value()
        word = self._peek()
        if word == "=~":
            self._next()
            return _matches(left, self._pattern())
        if word == "not" and self.tokens[self.at + 1][1] == "in":
            self.at += 2
            return _not(_in(left, self._value()))
        if word == "in":
            self._next()
            return _in(left, self._value())
        if word in _COMPARE:
            self._next()
            return _compare(_COMPARE[word], left, self._value())
        return left

    def _pattern(self) -> re.Pattern[str]:
        kind, word, position = self._next()
        if kind not in ("regex", "text"):
            raise self._refused("=~ wants /a regular expression/", position)
        try:
            return re.compile(word[1:-1])
        except re.error as error:
            raise self._refused(f"no regular expression: {error}", position) from None

    def _value(self) -> Value:
        kind, word, position = self._next()
        if word == "(":
            inner = self._either()
            self._expect(")")
            return inner
        if word == "[":
            return self._list()
        if word == "@":
            return self._field()
        if kind == "text":
            return _constant(_unquote(word))
        if kind == "number":
            return _constant(float(word) if "." in word else int(word))
        if word in _CONSTANTS:
            return _constant(_CONSTANTS[word])
        raise self._refused("a value is missing: @.field, 'text', a number or [a, list]", position)

    def _list(self) -> Value:
        items: list[Value] = []
        while not self._take("]"):
            if items:
                self._expect(",")
                if self._take("]"):
                    break
            items.append(self._value())
        return lambda node: [item(node) for item in items]

    def _field(self) -> Value:
        value: Value = _itself
        top = True
        while self._peek() in (".", "["):
            _, sign, _ = self._next()
            kind, word, position = self._next()
            if sign == "." and self._peek() == "(":
                value = self._call(value, word, position)
                continue
            if kind not in (("name",) if sign == "." else ("text", "number")):
                raise self._refused("a name is missing", position)
            key = word if kind == "name" else _unquote(word) if kind == "text" else int(word)
            if top:
                self.names.add((str(key), position))
            top = False
            value = _get(value, key)
            if sign == "[":
                self._expect("]")
        return value

    def _call(self, value: Value, name: str, position: int) -> Value:
        self._expect("(")
        arguments: list[Value] = []
        while not self._take(")"):
            if arguments:
                self._expect(",")
            arguments.append(self._value())
        if name == "pop" and arguments and arguments[0](None) == "children":
            self.without_children = True
            return _constant(True)
        if name in ("startswith", "endswith") and len(arguments) == 1:
            return _call(name, value, arguments[0])
        raise self._refused(
            f"there is no {name}(); there are startswith(), endswith() and pop('children', 1)", position
        )

    def _kind(self) -> str:
        return self.tokens[self.at][0]

    def _peek(self) -> str:
        kind, word, _ = self.tokens[self.at]
        return "" if kind == "text" else word

    def _next(self) -> tuple[str, str, int]:
        token = self.tokens[self.at]
        if token[0] != "end":
            self.at += 1
        return token

    def _take(self, word: str) -> bool:
        if self._peek() != word or self._kind() == "end":
            return False
        self.at += 1
        return True

    def _expect(self, word: str) -> None:
        if not self._take(word):
            found = self._peek() or "the end" if self._kind() in ("end", "sign", "name") else self.tokens[self.at][1]
            raise self._refused(f"{word} is missing before {found}")

    def _refused(self, message: str, position: int | None = None) -> PathError:
        place = self.tokens[self.at][2] if position is None else position
        shown = f"{self.text[max(0, place - 30) : place]}»{self.text[place : place + 20]}"
        return PathError(message, where=f"position {place + 1}", hint=f"at the mark in {shown}")


def _unquote(word: str) -> str:
    return re.sub(r"\\(.)", r"\1", word[1:-1])


def _constant(value: Any) -> Value:
    return lambda node: value


def _itself(node: Node) -> Node:
    return node


def _get(value: Value, key: str | int) -> Value:
    def get(node: Node) -> Any:
        holder = value(node)
        if isinstance(holder, Mapping):
            return holder.get(key)
        if isinstance(holder, list) and isinstance(key, int) and -len(holder) <= key < len(holder):
            return holder[key]
        return None

    return get


def _call(name: str, value: Value, argument: Value) -> Value:
    def call(node: Node) -> bool:
        text, part = value(node), argument(node)
        return isinstance(text, str) and isinstance(part, str) and bool(getattr(text, name)(part))

    return call


def _or(left: Value, right: Value) -> Value:
    return lambda node: left(node) or right(node)


def _and(left: Value, right: Value) -> Value:
    return lambda node: left(node) and right(node)


def _not(value: Value) -> Value:
    return lambda node: not value(node)


def _in(left: Value, right: Value) -> Value:
    def contains(node: Node) -> bool:
        item, holder = left(node), right(node)
        if isinstance(holder, str):
            return isinstance(item, str) and item in holder
        return isinstance(holder, (list, Mapping)) and item in holder

    return contains


_COMPARE: dict[str, Callable[[Any, Any], bool]] = {
    "==": lambda one, other: one == other,
    "!=": lambda one, other: one != other,
    "<": lambda one, other: one < other,
    "<=": lambda one, other: one <= other,
    ">": lambda one, other: one > other,
    ">=": lambda one, other: one >= other,
}


def _compare(compare: Callable[[Any, Any], bool], left: Value, right: Value) -> Value:
    def hold(node: Node) -> bool:
        try:
            return bool(compare(left(node), right(node)))
        except TypeError:  # None or a text beside a number: neither smaller nor larger
            return False

    return hold


def _matches(left: Value, pattern: re.Pattern[str]) -> Value:
    def matches(node: Node) -> bool:
        text = left(node)
        return isinstance(text, str) and pattern.search(text) is not None

    return matches


def _chain(first: Step, second: Step) -> Step:
    return lambda nodes: second(first(nodes))


def _children(node: Node) -> list[Node]:
    if isinstance(node, Mapping):
        return list(node.values())
    return node if isinstance(node, list) else []


def _every(nodes: Iterator[Node]) -> Iterator[Node]:
    for node in nodes:
        yield from _children(node)


def _member(name: str) -> Step:
    def member(nodes: Iterator[Node]) -> Iterator[Node]:
        return (node[name] for node in nodes if isinstance(node, Mapping) and name in node)

    return member


def _index(number: int) -> Step:
    def index(nodes: Iterator[Node]) -> Iterator[Node]:
        return (node[number] for node in nodes if isinstance(node, list) and -len(node) <= number < len(node))

    return index


def _descend(name: str | None) -> Step:
    """The value of ``name`` (None: the node itself, ``*``: each value) in every node and all below it."""

    def descend(nodes: Iterator[Node]) -> Iterator[Node]:
        stack = list(nodes)[::-1]  # no recursion: trees of processes may be deep
        while stack:
            node = stack.pop()
            below = _children(node)
            if name is None and below:
                yield node
            elif name == "*":
                yield from below
            elif isinstance(node, Mapping) and name in node:
                yield node[name]
            stack.extend(child for child in reversed(below) if isinstance(child, (Mapping, list)))

    return descend


def _filter(condition: Value) -> Step:
    def choose(nodes: Iterator[Node]) -> Iterator[Node]:
        return (child for node in nodes for child in _children(node) if condition(child))

    return choose
