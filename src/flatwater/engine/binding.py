"""What a definition says of a block's parameters → `CompiledParams`, with every problem listed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from difflib import get_close_matches
from typing import Any, Final, NamedTuple

import msgspec

from flatwater.engine import expression
from flatwater.engine.block import Kind
from flatwater.engine.document import Problems, check_plain, escape
from flatwater.engine.expression import Expression
from flatwater.engine.expression.function import Function
from flatwater.engine.expression.operation import kind as name_of
from flatwater.engine.node import InputParam, Limits
from flatwater.engine.parameter import (
    NEEDED,
    CompiledParams,
    ConversionError,
    Dynamic,
    Param,
    ParamType,
    Row,
    blank,
    convert,
    paths,
)
from flatwater.errors import ExpressionError

_FORM: Final = '{"type": "Simple" | "Expression" | "Key-Value", "value": …}'
_ROW_FORM: Final = '["key", "value or =expression", "String"]'
_TYPES: Final = {each.value.lower(): each for each in ParamType}


class Reading(NamedTuple):
    """One expression of a block: where it stands and what it reads."""

    path: str
    label: str
    names: frozenset[tuple[str, ...]]


class _Wrong(Exception):
    """One problem, on its way to the list."""

    def __init__(self, message: str, hint: str = "", path: str = "", *, mild: bool = False) -> None:
        super().__init__(message)
        self.hint = hint
        self.path = path
        self.mild = mild


class Binder:
    """Compiles the parameters of one definition's blocks; equal expressions are compiled once.

    A parameter that a block type does not have is a warning: definitions of the known systems carry options that mean
    nothing here, and must import unchanged.
    """

    def __init__(
        self, problems: Problems, warnings: Problems, limits: Limits, functions: Mapping[str, Function]
    ) -> None:
        self._functions = functions
        self._problems = problems
        self._warnings = warnings
        self._limits = limits
        self._expressions: dict[str, Expression | ExpressionError] = {}

    def bind(
        self, raw: Mapping[str, Any], kind: Kind, path: str, label: str, inputs: Sequence[InputParam] | None = None
    ) -> tuple[CompiledParams, list[Reading]]:
        """The parameters ``raw`` of a block of ``kind``. ``inputs`` are those of the definition that it starts."""
        constants = {param.name: param.default for param in kind.params if param.default is not NEEDED}
        dynamic: list[Dynamic] = []
        given: set[str] = set()
        for key, entry in raw.items():
            place = f"{path}/{escape(key)}"
            try:
                source = self._entry(key, entry, kind, inputs)
            except _Wrong as wrong:
                given.add(key)
                told = self._warnings if wrong.mild else self._problems
                told.add(place + wrong.path, f"{label}: {key[:100]} {wrong}", wrong.hint)
                continue
            if source is None:
                continue
            given.add(key)
            if isinstance(source, Dynamic):
                dynamic.append(source)
                constants.pop(key, None)
            else:
                constants[key] = source.value
        self._missing(kind, given, path, label, inputs)
        readings = [Reading(f"{path}/{escape(each.param.name)}", label, paths(each.source)) for each in dynamic]
        return CompiledParams(label, constants, dynamic), readings

    def outputs(self, declared: Iterable[tuple[str, str, ParamType, Any]]) -> tuple[CompiledParams, list[Reading]]:
        """A definition's outputs: ``(path, name, type, value)``; without value the task variable of that name."""
        dynamic: list[Dynamic] = []
        constants: dict[str, Any] = {}
        readings: list[Reading] = []
        for path, name, type_, value in declared:
            if blank(value):
                value = f"=task.variables[{msgspec.json.encode(name).decode()}]"
            param = Param(name=name, type=type_)
            try:
                source = self._source(param, "Simple", value, equals_sign=True)
            except _Wrong as wrong:
                self._problems.add(path, f"output {name} {wrong}", wrong.hint)
                continue
            if isinstance(source, Dynamic):
                dynamic.append(source)
                readings.append(Reading(path, f"output {name}", paths(source.source)))
            else:
                constants[name] = source.value
        return CompiledParams("outputs of the definition", constants, dynamic), readings

    # ---- one parameter --------------------------------------------------------------------------

    def _entry(
        self, key: str, entry: Any, kind: Kind, inputs: Sequence[InputParam] | None
    ) -> Dynamic | _Constant | None:
        if entry is None:
            return None
        if not isinstance(entry, dict):
            raise _Wrong(f"must be an object, not {name_of(entry)}", _FORM)
        value = entry.get("value")
        if blank(value):
            return None
        param = kind.by_name.get(key) or self._extra(key, kind, inputs)
        if blank(value, param.type):
            return None
        return self._source(param, entry.get("type", "Simple"), value)

    def _extra(self, key: str, kind: Kind, inputs: Sequence[InputParam] | None) -> Param:
        """A parameter that the kind does not name: an input of a sub-task, or one that an open kind passes on."""
        known = {param.name for param in kind.params} | {each.name for each in inputs or ()}
        if not kind.open or (inputs is not None and key not in known):
            near = get_close_matches(key[:100], known, 1)
            listed = f"it has {', '.join(sorted(known))}" if known else "it has none"
            hint = f"did you mean {near[0]}?" if near else listed[:500]
            raise _Wrong(f"is not a parameter of {kind.type}", hint, mild=inputs is None)
        declared = next((each for each in inputs or () if each.name == key), InputParam(key))
        return Param(name=key, type=declared.type, default=declared.default)

    def _missing(self, kind: Kind, given: set[str], path: str, label: str, inputs: Sequence[InputParam] | None) -> None:
        for param in kind.params:
            if param.required and param.name not in given:
                self._problems.add(path, f"{label}: parameter {param.name} is missing", param.description)
        for each in inputs or ():
            if each.required and each.default is None and each.name not in given and each.name not in kind.by_name:
                self._problems.add(path, f"{label}: input {each.name} of the sub-task is missing", each.label)

    def _source(self, param: Param, type_: Any, value: Any, *, equals_sign: bool = False) -> Dynamic | _Constant:
        """What the parameter's value comes from. Raises `_Wrong`."""
        how = type_.lower() if isinstance(type_, str) else type_
        if how == "expression" and isinstance(value, str):
            return Dynamic(param, self._compile(value))
        if how in ("simple", "expression", None):
            if equals_sign and isinstance(value, str) and value.startswith("="):
                return Dynamic(param, self._compile(value[1:]))
            return self._constant(param, value)
        if how in ("key-value", "keyvalue"):
            return self._key_value(param, value)
        raise _Wrong(f"has the type {name_of(type_)}", f"use {_FORM}", "/type")

    def _constant(self, param: Param, value: Any) -> _Constant:
        try:
            found = param.convert(value)
        except ConversionError as error:
            raise _Wrong(str(error), param.description, "/value") from None
        deep = Problems(1)
        if isinstance(found, (dict, list)) and not check_plain(found, deep, self._limits.max_value_depth):
            raise _Wrong(f"does not fit: {deep.listed()[0]}", path="/value")
        return _Constant(found)

    def _compile(self, source: str) -> Expression:
        found = self._expressions.get(source)
        if found is None:
            try:
                found = expression.compile(source, functions=self._functions)
            except ExpressionError as error:
                found = error
            self._expressions[source] = found
        if isinstance(found, ExpressionError):
            raise _Wrong(f"is not an expression: {found.detail} [{found.where}]", found.hint, "/value")
        return found

    # ---- Key-Value ------------------------------------------------------------------------------

    def _key_value(self, param: Param, value: Any) -> Dynamic | _Constant:
        if param.type not in (ParamType.OBJECT, ParamType.ANY, ParamType.STRING):
            raise _Wrong(f"is {param.type} and cannot be Key-Value", path="/type")
        if isinstance(value, str):
            try:
                value = msgspec.json.decode(value)
            except (msgspec.MsgspecError, RecursionError) as error:
                raise _Wrong(f"must hold rows: {error}", _ROW_FORM, "/value") from None
        if not isinstance(value, list):
            raise _Wrong(f"must hold rows, not {name_of(value)}", _ROW_FORM, "/value")
        rows = tuple(self._row(each, f"/value/{index}") for index, each in enumerate(value))
        if len({row.key for row in rows}) < len(rows):
            twice = Counter(row.key for row in rows).most_common(1)[0][0]
            raise _Wrong(f"has the key {twice[:100]!r} more than once", path="/value")
        if any(isinstance(row.value, Expression) for row in rows):
            return Dynamic(param, rows)
        return self._constant(param, {row.key: row.value for row in rows})

    def _row(self, raw: Any, path: str) -> Row:
        if isinstance(raw, dict):
            raw = [raw.get("key"), raw.get("value"), raw.get("type")]
        if not isinstance(raw, list) or not 2 <= len(raw) <= 3 or not isinstance(raw[0], str) or not raw[0]:
            raise _Wrong("has a row that is not " + _ROW_FORM, path=path)
        key, value, stated = raw[0], raw[1], raw[2] if len(raw) == 3 else None
        how = stated.lower() if isinstance(stated, str) else ""
        type_ = _TYPES.get(how, ParamType.ANY)
        if how not in (*_TYPES, "", "simple", "expression") or not (stated is None or isinstance(stated, str)):
            raise _Wrong(f"row {key[:100]} has the type {name_of(stated)}", f"use {', '.join(ParamType)}", path)
        if isinstance(value, str) and (value.startswith("=") or (how == "expression" and value.strip())):
            return Row(key, self._compile(value.removeprefix("=")), type_)
        try:
            return Row(key, None if blank(value, type_) else convert(value, type_), type_)
        except ConversionError as error:
            raise _Wrong(f"row {key[:100]} {error}", path=path) from None


class _Constant(NamedTuple):
    value: Any
