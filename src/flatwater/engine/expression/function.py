"""The functions of expressions. Each may be written before or behind its first argument: ``size(x)`` or ``x.size()``.

A null first argument gives null (or what the function says: ``size(null)`` is 0, a test of null is false), so that a
chain of calls on a value which is not there behaves like the look-up of it.
"""

from __future__ import annotations

import inspect
import math
import re
import time
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from decimal import ROUND_HALF_UP, Decimal
from typing import Any, Final

import msgspec

from flatwater.engine.expression.operation import (
    MAX_ITEMS,
    MAX_TEXT_CHARS,
    NUMBERS,
    Fault,
    as_number,
    checked,
    checked_list,
    checked_text,
    comparable,
    contains,
    equals,
    item,
    kind,
    less,
    short,
    text,
    truth,
)

MAX_ARGUMENTS: Final = 100
MAX_PATTERN_WORK: Final = 5_000_000
"""Characters of a pattern × characters of the text it is matched with: some 50 ms in the worst case."""
MAX_PATTERN_BYTES: Final = 1024 * 1024
"""Memory that one compiled pattern may take."""


@dataclass(frozen=True, slots=True)
class Function:
    """``call`` with at least ``least`` and at most ``most`` arguments; ``pure`` ones give the same each time.

    One call counts ``steps`` beside the values it touches where an expression is metered. ``example`` is an expression
    that shows it; ``origin`` says who declared it ("" here).
    """

    name: str
    call: Callable[..., Any]
    least: int
    most: int
    pure: bool
    description: str
    steps: int = 0
    example: str = ""
    origin: str = ""


FUNCTIONS: Final[dict[str, Function]] = {}


def function(*names: str, null: Any = ..., pure: bool = True) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Declare a function under ``names``; ``null`` is its result when the first argument is null."""

    def declare(call: Callable[..., Any]) -> Callable[..., Any]:
        least, most = arity(call)
        guarded = call if null is ... else unless_null(call, null)
        description = (call.__doc__ or "").strip().split("\n")[0]
        for name in names:
            FUNCTIONS[name] = Function(name, guarded, least, most, pure, description)
        return call

    return declare


def arity(call: Callable[..., Any]) -> tuple[int, int]:
    """How many arguments a function takes, at least and at most."""
    parameters = inspect.signature(call).parameters.values()
    least = sum(parameter.default is parameter.empty and parameter.kind < 2 for parameter in parameters)
    many = any(parameter.kind == parameter.VAR_POSITIONAL for parameter in parameters)
    return least, MAX_ARGUMENTS if many else len(parameters)


def unless_null(call: Callable[..., Any], result: Any) -> Callable[..., Any]:
    def guarded(first: Any, *rest: Any) -> Any:
        if first is not None:
            return call(first, *rest)
        return [] if result == [] else result  # never the same list twice

    return guarded


def _want(value: Any, name: str) -> str:
    """``value`` as the text that ``name`` works on."""
    if isinstance(value, str):
        return value
    if type(value) in NUMBERS:
        return text(value)
    raise Fault(f"{name} works on text, not on {kind(value)}", hint="convert it with string(x)")


def _whole(value: Any, name: str) -> int:
    found = as_number(value)
    if found is not None and found == int(found):
        return int(found)
    raise Fault(f"{name} needs a whole number, not {kind(value)}")


def _number(value: Any, name: str) -> int | float:
    found = as_number(value)
    if found is not None:
        return found
    raise Fault(f"{name} needs a number, not {kind(value)}", hint="convert it with int(x) or double(x)")


# ---- time and identity ------------------------------------------------------------------------------


@function("now", pure=False)
def _now() -> float:
    """The time as seconds since 1970-01-01 UTC."""
    return time.time()


@function("uuid", pure=False)
def _uuid() -> str:
    """A random UUID, 36 characters."""
    return str(uuid.uuid4())


# ---- conversion -------------------------------------------------------------------------------------


@function("string", "toString", null=None)
def _string(value: Any) -> str:
    """The value as text; lists and maps as JSON."""
    return checked_text(text(value))


@function("int", null=None)
def _int(value: Any) -> int | float:
    """A Long; a Double loses its fraction, a text is read, true is 1."""
    if isinstance(value, bool):
        return int(value)
    return checked(int(_number(value, "int")))


@function("double", null=None)
def _double(value: Any) -> int | float:
    """A Double; a text is read."""
    return checked(float(_number(value, "double")))


@function("bool", null=False)
def _bool(value: Any) -> bool:
    """A Boolean from true, false, "true" or "false"; a number is true unless it is 0."""
    return bool(value) if type(value) in NUMBERS else truth(value)


@function("json", null="null")
def _json(value: Any) -> str:
    """The value as JSON text."""
    try:
        return checked_text(msgspec.json.encode(value).decode())
    except (TypeError, ValueError) as error:
        raise Fault(f"{kind(value)} cannot be written as JSON: {error}") from None


@function("parseJson", null=None)
def _parse_json(value: Any) -> Any:
    """The value that a JSON text holds."""
    try:
        return msgspec.json.decode(_want(value, "parseJson"))
    except (msgspec.DecodeError, RecursionError) as error:
        raise Fault(f"{kind(value)} is not JSON: {error}") from None


@function("type")
def _type(value: Any) -> str:
    """The name of the value's type: null, Boolean, Long, Double, String, list or map."""
    return kind(value).split(" ")[0]


# ---- numbers ----------------------------------------------------------------------------------------


@function("abs", null=None)
def _abs(value: Any) -> int | float:
    """The value without its sign."""
    return checked(abs(_number(value, "abs")))


@function("round", null=None)
def _round(value: Any, digits: Any = 0) -> int | float:
    """The nearest number of that many digits behind the point, halves away from zero; a Long without digits."""
    found, places = _number(value, "round"), _whole(digits, "round")
    if not 0 <= places <= 15:
        raise Fault(f"round keeps 0 to 15 digits, not {places}")
    if type(found) is int or abs(found) >= 1e15:
        return found if places else checked(int(found))
    rounded = Decimal(repr(found)).quantize(Decimal(1).scaleb(-places), ROUND_HALF_UP)
    return float(rounded) if places else int(rounded)


@function("floor", null=None)
def _floor(value: Any) -> int | float:
    """The greatest Long that is not above the value."""
    return checked(math.floor(_number(value, "floor")))


@function("ceil", null=None)
def _ceil(value: Any) -> int | float:
    """The least Long that is not below the value."""
    return checked(math.ceil(_number(value, "ceil")))


@function("min")
def _min(*values: Any) -> Any:
    """The least of the arguments, or of one list; nulls do not count."""
    return _extreme("min", values, lambda a, b: less(a, b))


@function("max")
def _max(*values: Any) -> Any:
    """The greatest of the arguments, or of one list; nulls do not count."""
    return _extreme("max", values, lambda a, b: less(b, a))


def _extreme(name: str, values: tuple[Any, ...], better: Callable[[Any, Any], bool]) -> Any:
    items = values[0] if len(values) == 1 and isinstance(values[0], list) else values
    best = None
    for value in items:
        if value is not None and best is None:
            comparable(value, value)
            best = value
        elif value is not None and better(value, best):
            best = value
    return best


@function("sum", null=0)
def _sum(values: Any) -> int | float:
    """The sum of a list's numbers; nulls do not count."""
    total: int | float = 0
    for value in _list(values, "sum"):
        if value is not None:
            total = checked(total + _number(value, "sum"))
    return total


# ---- text, lists and maps -----------------------------------------------------------------------


@function("size", "length", null=0)
def _size(value: Any) -> int:
    """Characters of a text, items of a list or map; 0 for null."""
    if isinstance(value, (str, list, Mapping)):
        return len(value)
    raise Fault(f"{kind(value)} has no size", hint="size works on text, lists and maps")


@function("isEmpty", null=True)
def _is_empty(value: Any) -> bool:
    """Whether a text, list or map is empty or null."""
    return not int(_size(value))


@function("contains", null=False)
def _contains(container: Any, wanted: Any) -> bool:
    """Whether a text has this part, a list this item, a map this key."""
    return contains(text(container) if type(container) in NUMBERS else container, wanted)


@function("equals")
def _equals(a: Any, b: Any) -> bool:
    """The same as ``==``."""
    return equals(a, b)


@function("get", null=None)
def _get(container: Any, key: Any, otherwise: Any = None) -> Any:
    """The item or key of a list or map, else the third argument."""
    found = item(container, key)
    return otherwise if found is None else found


@function("keys", null=[])
def _keys(value: Any) -> list[Any]:
    """The keys of a map."""
    return list(_map(value, "keys"))


@function("values", null=[])
def _values(value: Any) -> list[Any]:
    """The values of a map."""
    return list(_map(value, "values").values())


def _map(value: Any, name: str) -> Mapping[str, Any]:
    if isinstance(value, Mapping):
        return value
    raise Fault(f"{name} works on a map, not on {kind(value)}")


def _list(value: Any, name: str) -> list[Any]:
    if isinstance(value, list):
        return value
    raise Fault(f"{name} works on a list, not on {kind(value)}")


@function("startsWith", null=False)
def _starts_with(value: Any, part: Any) -> bool:
    """Whether a text begins with this part."""
    return part is not None and _want(value, "startsWith").startswith(text(part))


@function("endsWith", null=False)
def _ends_with(value: Any, part: Any) -> bool:
    """Whether a text ends with this part."""
    return part is not None and _want(value, "endsWith").endswith(text(part))


@function("indexOf", null=-1)
def _index_of(value: Any, part: Any) -> int:
    """Where a part begins in a text, or an item stands in a list; -1 if nowhere."""
    if isinstance(value, list):
        return next((place for place, each in enumerate(value) if equals(each, part)), -1)
    return _want(value, "indexOf").find(text(part))


@function("substring", null=None)
def _substring(value: Any, begin: Any, end: Any = None) -> str:
    """The characters from ``begin`` (counted from 0) to before ``end``; places beyond the text are cut to it."""
    first = max(0, _whole(begin, "substring"))
    return _want(value, "substring")[first : None if end is None else max(0, _whole(end, "substring"))]


@function("trim", null=None)
def _trim(value: Any) -> str:
    """The text without the space around it."""
    return _want(value, "trim").strip()


@function("upper", "toUpperCase", "upperAscii", null=None)
def _upper(value: Any) -> str:
    """The text in capitals."""
    return _want(value, "upper").upper()


@function("lower", "toLowerCase", "lowerAscii", null=None)
def _lower(value: Any) -> str:
    """The text in small letters."""
    return _want(value, "lower").lower()


@function("replace", null=None)
def _replace(value: Any, old: Any, new: Any) -> str:
    """The text with every ``old`` replaced by ``new``."""
    subject, before, after = _want(value, "replace"), text(old), "" if new is None else text(new)
    if len(subject) + subject.count(before) * max(0, len(after) - len(before)) > MAX_TEXT_CHARS:
        raise Fault(f"the text grows beyond {MAX_TEXT_CHARS:,} characters")
    return subject.replace(before, after)


@function("split", null=[])
def _split(value: Any, separator: Any = ",") -> list[str]:
    """The parts of a text between separators."""
    subject, mark = _want(value, "split"), text(separator)
    if not mark:
        return (
            list(checked_text(subject[: MAX_ITEMS + 1])) if len(subject) <= MAX_ITEMS else checked_list(list(subject))
        )
    if subject.count(mark) >= MAX_ITEMS:
        raise Fault(f"the list grows beyond {MAX_ITEMS:,} items")
    return subject.split(mark)


@function("join", null="")
def _join(values: Any, separator: Any = "") -> str:
    """The items of a list as one text."""
    parts = [text(value) for value in _list(values, "join")]
    mark = text(separator)
    if sum(map(len, parts)) + len(mark) * len(parts) > MAX_TEXT_CHARS:
        raise Fault(f"the text grows beyond {MAX_TEXT_CHARS:,} characters")
    return mark.join(parts)


# ---- patterns ---------------------------------------------------------------------------------------


@function("matches", null=False)
def _matches(value: Any, pattern: Any) -> bool:
    """Whether a text holds the regular expression (RE2 syntax, never slower than the text is long)."""
    subject, source = _want(value, "matches"), text(pattern)
    if len(subject) * len(source) > MAX_PATTERN_WORK:
        raise Fault(f"a text of {len(subject):,} characters is too long for a pattern of {len(source):,}")
    return _pattern(source).search(subject) is not None


def _pattern(source: str) -> Any:
    import re2  # type: ignore[import-untyped]  # 3 MB and 5 ms, for the few expressions that use it

    options = re2.Options()
    options.log_errors = False
    options.max_mem = MAX_PATTERN_BYTES
    try:
        return re2.compile(source, options)
    except re2.error as error:
        reason = error.args[0] if error.args else ""
        reason = reason.decode(errors="replace") if isinstance(reason, bytes) else reason
        raise Fault(f"{short(source)} is not a pattern: {reason}", hint="see https://github.com/google/re2") from None


_PLACE = re.compile(r"%(?P<flag>[-0]?)(?P<width>[0-9]{0,2})(?:\.(?P<digits>[0-9]))?(?P<kind>[sdfx%])|%")


@function("format", null=None)
def _format(pattern: Any, *values: Any) -> str:
    """``format("%s-%03d", "A", 7)`` is ``A-007``: %s text, %d whole number, %.2f number, %x hexadecimal, %% itself."""
    given = values[0] if len(values) == 1 and isinstance(values[0], list) else list(values)
    left = iter(given)

    def fill(match: re.Match[str]) -> str:
        if match["kind"] is None:
            raise Fault("format knows %s, %d, %f, %x and %%", hint="write %% for a percent sign")
        return "%" if match["kind"] == "%" else _place(match, next(left, ...))

    result = _PLACE.sub(fill, _want(pattern, "format"))
    if next(left, ...) is not ...:
        raise Fault(f"format has {len(given)} values, more than places")
    return checked_text(result)


def _place(match: re.Match[str], value: Any) -> str:
    if value is ...:
        raise Fault("format has more places than values")
    if match["kind"] == "s":
        body = text(value)
    elif match["kind"] == "f":
        body = f"{_number(value, 'format'):.{match['digits'] or 6}f}"
    else:
        body = f"{_whole(value, 'format'):{match['kind']}}"
    width = int(match["width"] or 0)
    if match["flag"] == "-":
        return body.ljust(width)
    return body.zfill(width) if match["flag"] == "0" else body.rjust(width)
