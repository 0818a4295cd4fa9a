"""Which processes are meant: by pid, name, command line or JSONPath.

======================  =======================================================================
``4711`` ``12,15``      these pids
``celery``              processes of this name, and those whose command line contains it
``name:python3``        of exactly this name (the kernel keeps 15 characters)
``command:celery -A``   whose command line contains this
``regex:worker-[0-9]``  whose command line matches somewhere (Python's syntax)
``$..children[?(…)]``   :mod:`flatwater.memory.jsonpath`, over ``stat`` and ``cmdline``
======================  =======================================================================
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from flatwater.errors import InputError
from flatwater.memory import jsonpath
from flatwater.memory.scan import Process, Table

Roots = Callable[[Table], set[int]]

_KNOWN = {"stat", "cmdline", "children"}
_PIDS = re.compile(r"\s*\d+(\s*,\s*\d+)*\s*")


class SelectorError(InputError, code="selector"):
    """The selection is not understood."""


@dataclass(frozen=True, slots=True)
class Selector:
    """A parsed selection. ``pids`` are those it names, when it names nothing else; ``by_text`` selections look at
    command lines, so whoever typed them (shells, sudo, this program) carries the text too and is not meant.
    """

    text: str
    roots: Roots
    pids: frozenset[int] = frozenset()
    by_text: bool = False
    children: bool = True

    def choose(self, table: Table, own: int | None = None) -> tuple[set[int], set[int]]:
        """The pids meant themselves, and those with their descendants. ``own`` (this process) is never among them."""
        own = os.getpid() if own is None else own
        unmeant = {own} | (table.above(own) if self.by_text else frozenset())
        found = {pid for pid in self.roots(table) if pid in table} - unmeant
        return found, table.below(found, frozenset({own})) if self.children else found


def parse(texts: str | tuple[str, ...], *, children: bool = True) -> Selector:
    """One selection of ``texts``, joined; raises `SelectorError` or `jsonpath.PathError`.

    Several texts mean what any of them means. ``children=False`` leaves out the descendants.
    """
    parts = [_part(text, children) for text in ((texts,) if isinstance(texts, str) else texts)]
    if not parts:
        raise SelectorError("it is empty", hint="give a pid, a name, a part of the command line, or a JSONPath")
    if len(parts) == 1:
        return parts[0]
    if len({part.children for part in parts}) > 1:
        raise SelectorError("pop('children', 1) holds for all parts of a selection or for none")
    pids = frozenset[int]().union(*(part.pids for part in parts)) if all(part.pids for part in parts) else frozenset()

    def roots(table: Table) -> set[int]:
        return set().union(*(part.roots(table) for part in parts))

    joined = " or ".join(part.text for part in parts)
    return Selector(joined, roots, pids, any(part.by_text for part in parts), parts[0].children)


def _part(text: str, children: bool) -> Selector:
    given = text.strip()
    if not given:
        raise SelectorError("it is empty", hint="give a pid, a name, a part of the command line, or a JSONPath")
    if _PIDS.fullmatch(given):
        return _by_pid(given, children)
    if given.startswith(("$", "..")):
        return _by_path(given, children)
    kind, colon, rest = given.partition(":")
    make = _KINDS.get(kind) if colon else None
    if make is None:
        return _by_word(given, children)
    if not rest.strip() or (kind == "pid" and not _PIDS.fullmatch(rest)):
        raise SelectorError(f"{kind}: needs {'pids' if kind == 'pid' else 'a text'} after it", where=given)
    return make(rest, children)


def _by_pid(text: str, children: bool) -> Selector:
    pids = frozenset(int(word) for word in text.split(","))
    return Selector(text, lambda table: set(pids), pids, children=children)


def _roots(meant: Callable[[Process], bool]) -> Roots:
    return lambda table: {pid for pid, process in table.items() if meant(process)}


def _by_word(text: str, children: bool) -> Selector:
    meant = _roots(lambda process: process.name == text or text in process.command)
    return Selector(text, meant, by_text=True, children=children)


def _by_name(text: str, children: bool) -> Selector:
    meant = _roots(lambda process: process.name == text[:15] or process.name == text)
    return Selector(f"name:{text}", meant, children=children)


def _by_command(text: str, children: bool) -> Selector:
    return Selector(f"command:{text}", _roots(lambda process: text in process.command), by_text=True, children=children)


def _by_regex(text: str, children: bool) -> Selector:
    try:
        pattern = re.compile(text)
    except re.error as error:
        where = f"position {error.pos + 1}" if error.pos is not None else text
        raise SelectorError(f"no regular expression: {error.msg}", where=where) from None
    meant = _roots(lambda process: pattern.search(process.command) is not None)
    return Selector(f"regex:{text}", meant, by_text=True, children=children)


def _by_path(text: str, children: bool) -> Selector:
    path = jsonpath.parse(text)
    for name, position in sorted(path.names):
        if name not in _KNOWN:
            hint = "a selection may look at @.stat.… and @.cmdline"
            raise SelectorError(f"there is no {name}", where=f"position {position + 1} of {text}", hint=hint)
    by_text = any(name == "cmdline" for name, _ in path.names)
    children = children and not path.without_children
    return Selector(text, lambda table: _selected(path, table), by_text=by_text, children=children)


def _selected(path: jsonpath.Path, table: Table) -> set[int]:
    found: set[int] = set()
    for node in path.find(table.document()):
        _collect(node, path.leaf, found)
    return found


def _collect(node: Any, leaf: str | None, found: set[int]) -> None:
    if isinstance(node, dict):
        stat = node.get("stat", node)
        if isinstance(pid := stat.get("pid"), int):
            found.add(pid)
    elif isinstance(node, list):  # $..children
        for child in node:
            _collect(child, leaf, found)
    elif isinstance(node, int) and leaf == "pid":  # $..children[?(…)]..pid
        found.add(node)


_KINDS: dict[str, Callable[[str, bool], Selector]] = {
    "pid": _by_pid,
    "name": _by_name,
    "command": _by_command,
    "cmd": _by_command,
    "regex": _by_regex,
}
