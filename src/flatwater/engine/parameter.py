"""Parameters: what a block declares, and how what a definition says becomes the values that the block is given.

The imported format stores every literal as text, so ``"3"`` given for a Long is 3. Literals are converted once, when
the definition is compiled; what an expression gives is converted each time. Blank and null mean that nothing was given,
so the default counts.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from enum import StrEnum
from typing import Any, Final, NamedTuple, TypeAlias

import msgspec

from flatwater.engine.expression import Expression, Names
from flatwater.engine.expression.operation import LONG_MAX, LONG_MIN, Fault, as_number, kind, text, truth
from flatwater.errors import ExpressionError


class ParamType(StrEnum):
    """The types of the definition format, and ``Any``."""

    STRING = "String"
    BOOLEAN = "Boolean"
    LONG = "Long"
    DOUBLE = "Double"
    OBJECT = "JSONObject"
    ARRAY = "JSONArray"
    ANY = "Any"


class ConversionError(ValueError):
    """A value does not fit its parameter's type."""


NEEDED: Final = msgspec.NODEFAULT
"""The default of a parameter that has none."""


class Param(msgspec.Struct, frozen=True, kw_only=True):
    """One declared parameter.

    ``required`` parameters must be given in the definition. ``default`` stands in for null; without one (`NEEDED`) null
    is an error when the block runs. ``annotation`` is the Python type where it says more than ``type`` (bounds,
    choices, structs), ``keyword`` the function's name for it, ``builds`` whether the function is given an object made
    from JSON.
    """

    name: str
    type: ParamType = ParamType.ANY
    required: bool = False
    default: Any = None
    description: str = ""
    annotation: Any = None
    keyword: str = ""
    builds: bool = False

    def convert(self, value: Any) -> Any:
        """``value`` as plain JSON of this type; null becomes the default. Raises `ConversionError`."""
        if value is None:
            return self.missing()
        value = convert(value, self.type)
        if self.annotation is not None:
            self.build(value)
        return value

    def missing(self) -> Any:
        """What null stands for. Raises `ConversionError` when a value is needed."""
        if self.default is NEEDED:
            raise ConversionError("is required and must not be null")
        return self.default

    def build(self, value: Any) -> Any:
        """``value`` as the function wants it. Raises `ConversionError` when it is beyond bounds or choices."""
        try:
            return msgspec.convert(value, self.annotation)
        except RecursionError:
            raise ConversionError("is nested too deeply") from None
        except msgspec.ValidationError as error:
            reason = str(error).replace("`", "").replace("$", self.name)
            raise ConversionError(f"does not fit: {reason}, not {kind(value)}") from None

    @property
    def nullable(self) -> bool:
        return self.default is not NEEDED


def convert(value: Any, to: ParamType) -> Any:
    """``value`` (not null) as ``to``. Raises `ConversionError` with what is wrong about it."""
    try:
        return _CONVERTERS[to](value)
    except (Fault, TypeError, ValueError, OverflowError, RecursionError):
        raise ConversionError(f"must be {_WANTED[to]}, not {kind(value)}") from None


def blank(value: Any, to: ParamType = ParamType.STRING) -> bool:
    """Whether ``value`` means that nothing was given."""
    if isinstance(value, str):
        return not value if to in (ParamType.STRING, ParamType.ANY) else not value.strip()
    return value is None


def _boolean(value: Any) -> bool:
    return truth({0: False, 1: True, "0": False, "1": True}.get(value, value) if not isinstance(value, bool) else value)


def _long(value: Any) -> int:
    found = as_number(value)
    if found is None or found != int(found) or not LONG_MIN <= found <= LONG_MAX:
        raise ValueError(value)
    return int(found)


def _double(value: Any) -> float:
    found = as_number(value)
    if found is None or not math.isfinite(found):
        raise ValueError(value)
    return float(found)


def _object(value: Any) -> dict[str, Any]:
    found = msgspec.json.decode(value) if isinstance(value, str) else value
    if not isinstance(found, Mapping):
        raise TypeError(value)
    return found if isinstance(found, dict) else dict(found)


def _array(value: Any) -> list[Any]:
    found = msgspec.json.decode(value) if isinstance(value, str) else value
    if not isinstance(found, (list, tuple)):
        raise TypeError(value)
    return found if isinstance(found, list) else list(found)


_CONVERTERS: Final[dict[ParamType, Callable[[Any], Any]]] = {
    ParamType.STRING: text,
    ParamType.BOOLEAN: _boolean,
    ParamType.LONG: _long,
    ParamType.DOUBLE: _double,
    ParamType.OBJECT: _object,
    ParamType.ARRAY: _array,
    ParamType.ANY: lambda value: value,
}
_WANTED: Final = {
    ParamType.STRING: "text (String)",
    ParamType.BOOLEAN: "true or false (Boolean)",
    ParamType.LONG: "a whole number of 64 bits (Long)",
    ParamType.DOUBLE: "a finite number (Double)",
    ParamType.OBJECT: "a JSON object (JSONObject)",
    ParamType.ARRAY: "a JSON array (JSONArray)",
    ParamType.ANY: "anything",
}


# ---- compiled parameters ----------------------------------------------------------------------------


class Row(NamedTuple):
    """One row of a Key-Value parameter; ``value`` is a constant or an `Expression`."""

    key: str
    value: Any
    type: ParamType


Rows: TypeAlias = tuple[Row, ...]


class Dynamic(NamedTuple):
    """A parameter whose value depends on the run."""

    param: Param
    source: Expression | Rows


class CompiledParams:
    """The parameters of one block, ready to be evaluated; immutable, shared between runs.

    ``constant`` tells that no expression is among them, ``names`` which paths their expressions read.
    """

    __slots__ = ("_constants", "_dynamic", "_nested", "constant", "names", "where")

    def __init__(self, where: str, constants: dict[str, Any], dynamic: Iterable[Dynamic] = ()) -> None:
        self.where = where
        self._constants = constants
        self._nested = tuple(name for name, value in constants.items() if isinstance(value, (dict, list)))
        self._dynamic = tuple(dynamic)
        self.constant = not self._dynamic
        self.names = _united([paths(item.source) for item in self._dynamic])

    def __repr__(self) -> str:
        return f"CompiledParams({self.where!r}, {len(self._constants)} constants, {len(self._dynamic)} dynamic)"

    def evaluate(self, scope: Mapping[str, Any]) -> dict[str, Any]:
        """Every declared parameter and its value by ``scope``; nulls are replaced by defaults.

        Raises `ExpressionError` that names the block, the parameter and the value.
        """
        values = self._constants.copy()
        for name in self._nested:  # a block that changes its list must not change that of the next run
            values[name] = _copy(values[name])
        for item in self._dynamic:
            values[item.param.name] = self._value(item, scope)
        return values

    def get(self, name: str, scope: Mapping[str, Any]) -> Any:
        """One parameter alone, so that the others' expressions are not evaluated. Raises as `evaluate`, or KeyError."""
        for item in self._dynamic:
            if item.param.name == name:
                return self._value(item, scope)
        return _copy(self._constants[name])

    def _value(self, item: Dynamic, scope: Mapping[str, Any]) -> Any:
        param, source = item
        try:
            if isinstance(source, Expression):
                found = source.evaluate(scope)
            else:
                found = {row.key: _row_value(row, scope) for row in source}
        except ExpressionError as error:
            where = f"{self.where}: {param.name}, {error.where}"
            raise ExpressionError(error.detail, where=where, hint=error.hint) from None
        try:
            return param.convert(None if blank(found, param.type) else found)
        except ConversionError as error:
            origin = f", from `{source.source[:80]}`" if isinstance(source, Expression) else ""
            raise ExpressionError(f"{param.name} {error}", where=f"{self.where}: {param.name}{origin}") from None


def _row_value(row: Row, scope: Mapping[str, Any]) -> Any:
    if not isinstance(row.value, Expression):
        return _copy(row.value)
    found = row.value.evaluate(scope)
    try:
        return None if blank(found, row.type) else convert(found, row.type)
    except ConversionError as error:
        raise ExpressionError(f"{row.key} {error}", where=f"`{row.value.source[:80]}`") from None


def paths(source: Expression | Rows) -> Names:
    """What an expression, or the expressions of rows, read."""
    if isinstance(source, Expression):
        return source.names
    return _united([row.value.names for row in source if isinstance(row.value, Expression)])


def _united(names: list[Names]) -> Names:
    return names[0] if len(names) == 1 else frozenset().union(*names)


def _copy(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _copy(each) for key, each in value.items()}
    if isinstance(value, list):
        return [_copy(each) for each in value]
    return value
