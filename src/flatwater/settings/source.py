"""Where settings come from: a TOML file, under ``FLATWATER_…`` variables, under flags."""

from __future__ import annotations

import difflib
import os
import re
import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import msgspec
from msgspec import UNSET, Struct

from flatwater.errors import Problem, SettingError
from flatwater.quantity import exact, measure
from flatwater.settings.model import NAMED, Leaf, Settings, leaves

DEFAULT_FILE = "flatwater.toml"
VARIABLE = "FLATWATER_"
_NOT_SETTINGS = ("FLATWATER_CONFIG", "FLATWATER_TEST_", "FLATWATER_URL")  # the last one tells clients the server


class Flag(Struct, frozen=True):
    """A command line flag: its ``name`` as typed (``--db``), the ``key`` it sets (``store.url``) and its ``value``."""

    name: str
    key: str
    value: Any


class SettingsError(SettingError, code="settings"):
    """The settings are wrong."""

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems = tuple(problems)
        super().__init__("".join(f"\n  {problem}" for problem in self.problems), hint="see docs/reference/settings.md")


class Loaded(Struct, frozen=True):
    """``settings``, and ``origins``: which file line, variable or flag each key that was set came from."""

    settings: Settings
    origins: dict[str, str]


class _Entry(Struct, frozen=True):
    key: str
    value: Any
    where: str
    text: bool  # from the environment or a flag: numbers and lists come as text


def load(
    path: str | os.PathLike[str] | None = None,
    *,
    environ: Mapping[str, str] = os.environ,
    flags: Iterable[Flag] = (),
) -> Loaded:
    """Read the settings. ``path`` is the TOML file; without it ``FLATWATER_CONFIG``, then ``flatwater.toml`` if any.

    Raises :class:`SettingsError` with every problem found.
    """
    problems: list[Problem] = []
    entries: dict[str, _Entry] = {}
    known = {leaf.key: leaf for leaf in leaves()}
    for entry in (
        *_from_file(_choose(path, environ), problems),
        *_from_environ(environ, known, problems),
        *_from_flags(flags),
    ):
        entries[entry.key] = entry
    values: dict[str, dict[str, Any]] = {}
    for entry in entries.values():
        section, _, name = entry.key.partition(".")
        value = _convert(entry, known, problems)
        if value is not UNSET:
            values.setdefault(section, {})[name] = value
    if problems:
        raise SettingsError(problems)
    return Loaded(
        msgspec.convert(values, Settings, strict=False), {entry.key: entry.where for entry in entries.values()}
    )


def check(
    path: str | os.PathLike[str] | None = None, *, environ: Mapping[str, str] = os.environ, flags: Iterable[Flag] = ()
) -> str:
    """The settings in force as TOML, each with its origin, secrets starred. Raises :class:`SettingsError`."""
    loaded = load(path, environ=environ, flags=flags)
    lines: list[str] = []
    section = ""
    for leaf in leaves():
        group, _, name = leaf.key.partition(".")
        if group != section:
            lines += ["", f"[{group}]"] if lines else [f"[{group}]"]
            section = group
        value = getattr(getattr(loaded.settings, group), name)
        shown = '"***"' if leaf.secret and value != leaf.default else _toml(value)
        lines.append(f"{name} = {shown}  # {loaded.origins.get(leaf.key, 'default')}")
    for section in NAMED:
        if names := getattr(loaded.settings, section):
            lines += ["", f"[{section}]"]
            lines += [f'{name} = "***"  # {loaded.origins[f"{section}.{name}"]}' for name in sorted(names)]
    return "\n".join(lines)


def _choose(path: str | os.PathLike[str] | None, environ: Mapping[str, str]) -> Path | None:
    named = path or environ.get("FLATWATER_CONFIG")
    if named:
        return Path(named)
    default = Path(DEFAULT_FILE)
    return default if default.is_file() else None


def _from_file(path: Path | None, problems: list[Problem]) -> list[_Entry]:
    if path is None:
        return []
    try:
        text = path.read_text("utf-8")
        document = tomllib.loads(text)
    except OSError as error:
        problems.append(
            Problem(str(path), f"the file cannot be read: {error.strerror}", "check --config and FLATWATER_CONFIG")
        )
        return []
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        problems.append(Problem(str(path), f"this is not TOML: {error}", "see https://toml.io"))
        return []
    lines = _lines(text)
    entries: list[_Entry] = []
    for section, content in document.items():
        place = f"{path}:{lines.get(section, 1)}"
        if not isinstance(content, dict):
            hint = (
                _near(section, [leaf.key for leaf in leaves()]) or f"settings live in tables such as [{_SECTIONS[0]}]"
            )
            problems.append(Problem(place, f"`{section}` stands outside of any table", hint))
            continue
        for name, value in content.items():
            key = f"{section}.{name}"
            entries.append(_Entry(key, value, f"{path}:{lines.get(key, lines.get(section, 1))}", text=False))
    return entries


_TABLE = re.compile(r"^\s*\[\s*([\w.\-\"]+)\s*\]")
_ASSIGNMENT = re.compile(r"^\s*([\w.\-\"]+)\s*=")


def _lines(text: str) -> dict[str, int]:
    """Which line each table and key begins on: tomllib does not say."""
    found: dict[str, int] = {}
    table = ""
    for number, line in enumerate(text.splitlines(), 1):
        if header := _TABLE.match(line):
            table = header[1].replace('"', "")
            found.setdefault(table, number)
        elif assignment := _ASSIGNMENT.match(line):
            name = assignment[1].replace('"', "")
            found.setdefault(f"{table}.{name}" if table else name, number)
            found.setdefault(name.partition(".")[0], number)
    return found


def _from_environ(environ: Mapping[str, str], known: Mapping[str, Leaf], problems: list[Problem]) -> list[_Entry]:
    variables = {f"{VARIABLE}{key.replace('.', '_').upper()}": key for key in known}
    entries: list[_Entry] = []
    for name in sorted(environ):
        if not name.startswith(VARIABLE) or name.startswith(_NOT_SETTINGS):
            continue
        for section in NAMED:
            prefix = f"{VARIABLE}{section.upper()}_"
            if name.startswith(prefix):
                variables[name] = f"{section}.{name.removeprefix(prefix).lower()}"
        if name not in variables:
            problems.append(Problem(name, "there is no such setting", _near(name, variables) or "unset it"))
            continue
        entries.append(_Entry(variables[name], environ[name], name, text=True))
    return entries


def _from_flags(flags: Iterable[Flag]) -> list[_Entry]:
    return [_Entry(flag.key, flag.value, flag.name, text=True) for flag in flags]


_SECTIONS = tuple(field.name for field in msgspec.structs.fields(Settings))


def _convert(entry: _Entry, known: Mapping[str, Leaf], problems: list[Problem]) -> Any:
    """The entry's value in its type, or UNSET after adding to ``problems``."""
    if sample := NAMED.get(entry.key.partition(".")[0]):
        if isinstance(entry.value, str) and entry.value:
            return entry.value
        hint = f'write it as name = "{sample}"'
        problems.append(Problem(entry.where, f"{entry.key} = {entry.value!r} is not a URL", hint))
        return UNSET
    leaf = known.get(entry.key)
    if leaf is None:
        problems.append(Problem(entry.where, f"`{entry.key}` is not a setting", _near(entry.key, known) or "remove it"))
        return UNSET
    try:
        value = measure(entry.value, leaf.unit)
        if entry.text and isinstance(value, str) and "tuple" in str(leaf.type):
            value = [part.strip() for part in value.split(",") if part.strip()]
        return msgspec.convert(value, leaf.type, strict=not entry.text)
    except ValueError as error:
        shown = "***" if leaf.secret else repr(entry.value)
        problems.append(
            Problem(entry.where, f"{entry.key} = {shown}: {error}", f"{leaf.description} Default: {default_text(leaf)}")
        )
        return UNSET


def _near(name: str, candidates: Iterable[str]) -> str:
    close = difflib.get_close_matches(name, list(candidates), n=1, cutoff=0.6)
    return f"did you mean {close[0]}?" if close else ""


def _toml(value: Any) -> str:
    if isinstance(value, tuple):
        return "[" + ", ".join(_toml(item) for item in value) + "]"
    if isinstance(value, bool):
        return str(value).lower()
    return msgspec.json.encode(value).decode()


def default_text(leaf: Leaf) -> str:
    """The default as one would write it."""
    return exact(leaf.default, leaf.unit) if leaf.unit else _toml(leaf.default)
