"""A Python function's signature → the parameters and outputs of its block."""

from __future__ import annotations

import dataclasses
import enum
import inspect
import types
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any, Final, Literal, NamedTuple, TypeAlias, Union, get_args, get_origin, get_type_hints

import msgspec

from flatwater.engine.parameter import NEEDED, Param, ParamType

_PLAIN: Final[dict[Any, ParamType]] = {
    str: ParamType.STRING,
    bool: ParamType.BOOLEAN,
    int: ParamType.LONG,
    float: ParamType.DOUBLE,
    dict: ParamType.OBJECT,
    list: ParamType.ARRAY,
    Any: ParamType.ANY,
    object: ParamType.ANY,
}
_OPEN: Final = (Any, object)
_SCALARS: Final = (ParamType.STRING, ParamType.BOOLEAN, ParamType.LONG, ParamType.DOUBLE, ParamType.ARRAY)

Hints: TypeAlias = dict[str, Any]


class Signature(NamedTuple):
    """What a block's function takes and gives. ``open``: it takes parameters that it does not name (``**extra``)."""

    params: tuple[Param, ...]
    outputs: Any
    wants_call: bool
    open: bool


def read(func: Callable[..., Any], *, camel: bool, call_type: type) -> Signature:
    """The signature of ``func``; ``camel`` turns ``site_id`` into ``siteId``. Raises TypeError with what to change."""
    hints = _hints(func, call_type)
    params: list[Param] = []
    wants_call = has_rest = False
    for parameter in inspect.signature(func).parameters.values():
        if parameter.name == "call" or hints.get(parameter.name) is call_type:
            if parameter.name != "call":
                raise TypeError(
                    f"{_label(func)}: name the {call_type.__name__} parameter 'call', not {parameter.name!r}"
                )
            wants_call = True
        elif parameter.kind is parameter.VAR_KEYWORD:
            has_rest = True
        elif parameter.kind in (parameter.VAR_POSITIONAL, parameter.POSITIONAL_ONLY):
            raise TypeError(
                f"{_label(func)}: {parameter} cannot be given by name; blocks are called with keywords only"
            )
        else:
            params.append(_param(func, parameter, hints.get(parameter.name, Any), camel))
    return Signature(tuple(params), hints.get("return", Any), wants_call, has_rest)


def _hints(func: Callable[..., Any], call_type: type) -> Hints:
    try:
        # The type of `call` is usually imported for the type checker alone.
        return get_type_hints(func, localns={call_type.__name__: call_type}, include_extras=True)
    except NameError as error:
        raise TypeError(
            f"{_label(func)}: {error}; define or import the types of a block's signature at the top level of its module"
        ) from None


def _label(func: Callable[..., Any]) -> str:
    return f"{func.__module__}.{func.__qualname__}"


def _param(func: Callable[..., Any], parameter: inspect.Parameter, hint: Any, camel: bool) -> Param:
    base, refined = classify(hint)
    if refined:
        _check_type(func, parameter.name, hint)
    needed = parameter.default is parameter.empty
    nullable = type_allows_null(hint)
    return Param(
        name=camelize(parameter.name) if camel else parameter.name,
        type=base,
        required=needed and not nullable,
        default=(None if nullable else NEEDED) if needed else parameter.default,
        description=_description(hint),
        annotation=hint if refined else None,
        keyword=parameter.name,
        builds=refined and _builds(hint),
    )


def _check_type(func: Callable[..., Any], name: str, hint: Any) -> None:
    try:
        msgspec.json.schema(hint)
    except (TypeError, NameError) as error:
        raise TypeError(f"{_label(func)}: parameter {name} cannot come from JSON: {error}") from None


def camelize(name: str) -> str:
    """``site_id`` → ``siteId``; an underscore at the end, which keeps clear of Python's words, goes."""
    first, *rest = name.rstrip("_").split("_")
    return first + "".join(part.capitalize() for part in rest)


def strip(hint: Any) -> Any:
    """``hint`` without ``Annotated`` and without ``| None``."""
    if get_origin(hint) is Annotated:
        return strip(get_args(hint)[0])
    if get_origin(hint) in (Union, types.UnionType):
        rest = [each for each in get_args(hint) if each is not types.NoneType]
        if len(rest) == 1:
            return strip(rest[0])
    return hint


def type_allows_null(hint: Any) -> bool:
    """Whether ``None`` is a value of ``hint``."""
    if get_origin(hint) is Annotated:
        return type_allows_null(get_args(hint)[0])
    if get_origin(hint) in (Union, types.UnionType):
        return any(type_allows_null(each) for each in get_args(hint))
    return hint is None or hint is types.NoneType or hint in _OPEN


def classify(hint: Any) -> tuple[ParamType, bool]:
    """The format's type for a Python type, and whether the Python type says more than that."""
    bare = strip(hint)
    bounded = _bounded(hint)
    if bare in _PLAIN:
        return _PLAIN[bare], bounded
    origin, arguments = get_origin(bare), get_args(bare)
    if origin is Literal:
        kinds = {_PLAIN.get(type(each), ParamType.ANY) for each in arguments}
        return (kinds.pop() if len(kinds) == 1 else ParamType.ANY), True
    if origin in (Union, types.UnionType):
        kinds = {classify(each)[0] for each in arguments if each is not types.NoneType}
        if kinds == {ParamType.LONG, ParamType.DOUBLE}:
            return ParamType.DOUBLE, bounded
        return (kinds.pop() if len(kinds) == 1 else ParamType.ANY), True
    return _classify_container(bare, origin or bare, arguments, bounded)


def _classify_container(bare: Any, base: Any, arguments: tuple[Any, ...], bounded: bool) -> tuple[ParamType, bool]:
    if not isinstance(base, type):
        return ParamType.ANY, True
    if issubclass(base, enum.Enum):
        kinds = {_PLAIN.get(type(each.value), ParamType.ANY) for each in base}
        return (kinds.pop() if len(kinds) == 1 else ParamType.ANY), True
    if issubclass(base, msgspec.Struct) or dataclasses.is_dataclass(base) or hasattr(base, "__total__"):
        return ParamType.OBJECT, True
    if issubclass(base, Mapping):
        return ParamType.OBJECT, bounded or not (arguments[:1] in ((), (str,)) and set(arguments[1:]) <= set(_OPEN))
    if issubclass(base, (Sequence, set, frozenset)) and not issubclass(base, (str, bytes)):
        return ParamType.ARRAY, bounded or base is not list or not set(arguments) <= set(_OPEN)
    return ParamType.STRING, True  # dates, UUIDs, decimals: text that msgspec reads


def _builds(hint: Any) -> bool:
    """Whether the function wants an object that plain JSON is not (a struct, a tuple, a date, an enum member)."""
    bare = strip(hint)
    origin = get_origin(bare)
    if bare in _PLAIN or origin is Literal:
        return False
    if origin in (list, dict, Union, types.UnionType):
        return any(_builds(each) for each in get_args(bare))
    return bare is not types.NoneType


def _bounded(hint: Any) -> bool:
    """Whether an annotation carries bounds, and not merely a description."""
    if get_origin(hint) is Annotated:
        inner, *notes = get_args(hint)
        bounds = ("gt", "ge", "lt", "le", "multiple_of", "pattern", "min_length", "max_length")
        metas = [note for note in notes if isinstance(note, msgspec.Meta)]
        return _bounded(inner) or any(getattr(meta, bound) is not None for meta in metas for bound in bounds)
    if get_origin(hint) in (Union, types.UnionType):
        return any(_bounded(each) for each in get_args(hint))
    return False


def _description(hint: Any) -> str:
    if get_origin(hint) is Annotated:
        for note in get_args(hint)[1:]:
            if isinstance(note, msgspec.Meta) and note.description:
                return note.description
        return _description(get_args(hint)[0])
    return ""


def output_names(outputs: Any) -> frozenset[str] | None:
    """The names of a block's outputs; None where its type leaves them open."""
    bare = strip(outputs)
    if bare is None or bare is types.NoneType:
        return frozenset()
    if isinstance(bare, type) and issubclass(bare, msgspec.Struct):
        return frozenset(each.encode_name for each in msgspec.structs.fields(bare))
    if isinstance(bare, type) and dataclasses.is_dataclass(bare):
        return frozenset(each.name for each in dataclasses.fields(bare))
    return frozenset({"result"}) if bare in _PLAIN and _PLAIN[bare] in _SCALARS else None
