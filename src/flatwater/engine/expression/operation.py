"""What the operators do with plain JSON values: null, Boolean, Long (64 bits), Double (finite), String, list, map.

Where CEL refuses and the known systems (MVEL) do not, they decide: null-safe look-up, ``'x' + 2``, numbers of both
kinds together, text that is a number beside a number. The package's docstring has the whole list.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from typing import Any, Final

import msgspec

LONG_MIN: Final = -(2**63)
LONG_MAX: Final = 2**63 - 1
MAX_TEXT_CHARS: Final = 1_000_000
"""Length of a text that an expression may make."""
MAX_ITEMS: Final = 100_000
"""Length of a list that an expression may make."""

NUMBERS: Final = frozenset({int, float})
_NUMERIC = re.compile(r"\s*[+-]?(?:[0-9]{1,40}(?:\.[0-9]{0,40})?|\.[0-9]{1,40})(?:[eE][+-]?[0-9]{1,3})?\s*")


class Fault(Exception):
    """What is wrong with an expression or its evaluation; `ExpressionError` is made from it.

    ``at`` is the position in the source, counted from 0, where it is known.
    """

    def __init__(self, message: str, *, hint: str = "", at: int | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.at = at


def kind(value: Any) -> str:
    """The value's type by the name that users know, with the value when it is short."""
    names = {str: "String", bool: "Boolean", int: "Long", float: "Double", list: "list", dict: "map"}
    if value is None:
        return "null"
    name = names.get(type(value), "map" if isinstance(value, Mapping) else type(value).__name__)
    return f"{name} {short(value)}"


def short(value: Any, width: int = 60) -> str:
    """``value`` as JSON, cut to ``width`` characters, without writing out what is long."""
    if isinstance(value, str):
        value = value[: width + 1]
    elif isinstance(value, (list, Mapping)):
        return f"of {len(value)}"
    text = msgspec.json.encode(value, enc_hook=repr).decode()
    return text if len(text) <= width else f"{text[: width - 1]}…"


def text(value: Any) -> str:
    """How a value reads as part of a text: ``2``, ``0.5``, ``true``, ``null``, JSON for lists and maps."""
    if type(value) is str:
        return value
    if type(value) is float:
        return repr(value)
    try:
        return msgspec.json.encode(value).decode()
    except (TypeError, ValueError) as error:
        raise Fault(f"{kind(value)} cannot be written as text: {error}") from None


def checked_text(value: str) -> str:
    if len(value) > MAX_TEXT_CHARS:
        raise Fault(f"the text grows beyond {MAX_TEXT_CHARS:,} characters")
    return value


def checked_list(value: list[Any]) -> list[Any]:
    if len(value) > MAX_ITEMS:
        raise Fault(f"the list grows beyond {MAX_ITEMS:,} items")
    return value


def checked(value: int | float) -> int | float:
    """``value`` if a Long or a Double can hold it."""
    if type(value) is float:
        if not math.isfinite(value):
            raise Fault("the result is beyond what a Double can hold")
    elif not LONG_MIN <= value <= LONG_MAX:
        raise Fault("the result is beyond what a Long can hold (64 bits)", hint="use double(x)")
    return value


def number(value: str) -> int | float | None:
    """The number that a text is, or ``None``."""
    if len(value) > 90 or _NUMERIC.fullmatch(value) is None:
        return None
    try:
        found: int | float = int(value)
        return found if LONG_MIN <= found <= LONG_MAX else None
    except ValueError:
        found = float(value)
        return found if math.isfinite(found) else None


def as_number(value: Any) -> int | float | None:
    """The number that ``value`` is or, as a text, holds; ``None`` for all else, also for a Boolean."""
    if type(value) is int or type(value) is float:
        return value
    return number(value) if isinstance(value, str) else None


def truth(value: Any) -> bool:
    """A condition's value: a Boolean, ``null`` for false, or the texts ``"true"`` and ``"false"``."""
    if value is True or value is False:
        return bool(value)
    if value is None:
        return False
    if isinstance(value, str) and (word := value.strip().lower()) in ("true", "false"):
        return word == "true"
    raise Fault(f"a condition must be true or false, not {kind(value)}", hint="compare it: x != 0, x != null, x != ''")


# ---- look-up ----------------------------------------------------------------------------------------


def member(target: Any, key: str) -> Any:
    """``target.key``: ``null`` where there is none, whatever ``target`` is."""
    return target.get(key) if isinstance(target, Mapping) else None


def item(target: Any, key: Any) -> Any:
    """``target[key]``: ``null`` beyond the end, for a missing key and on null."""
    if target is None or key is None:
        return None
    if isinstance(target, Mapping):
        return target.get(key if isinstance(key, str) else text(key))
    if not isinstance(target, (list, str)):
        return None
    place = number(key) if isinstance(key, str) else key
    if type(place) is float and place.is_integer():
        place = int(place)
    if type(place) is not int:
        if isinstance(target, str):
            return None
        raise Fault(f"a list is indexed by a whole number, not by {kind(key)}")
    return target[place] if 0 <= place < len(target) else None


def contains(container: Any, wanted: Any) -> bool:
    """``wanted in container``: an item of a list, a key of a map, a part of a text; nothing is in null."""
    if container is None:
        return False
    if isinstance(container, str):
        return wanted is not None and text(wanted) in container
    if isinstance(container, Mapping):
        return wanted is not None and text(wanted) in container
    if isinstance(container, list):
        return any(equals(each, wanted) for each in container)
    raise Fault(f"nothing can be in {kind(container)}", hint="the right side must be a list, a map or a text")


# ---- comparison -------------------------------------------------------------------------------------


def equals(a: Any, b: Any) -> bool:
    """By value, 1 == 1.0, '5' == 5; a Boolean equals only a Boolean."""
    one, other = type(a), type(b)
    if one in NUMBERS and other in NUMBERS:
        return bool(a == b)
    if one is str and other in NUMBERS:
        return bool(number(a) == b)
    if other is str and one in NUMBERS:
        return bool(number(b) == a)
    if one is list and other is list:
        return len(a) == len(b) and all(map(equals, a, b))
    if isinstance(a, Mapping) and isinstance(b, Mapping):
        return len(a) == len(b) and all(key in b and equals(value, b[key]) for key, value in a.items())
    return one is other and bool(a == b)


def differs(a: Any, b: Any) -> bool:
    return not equals(a, b)


def comparable(a: Any, b: Any) -> tuple[Any, Any] | None:
    """Both sides as values that Python can order; ``None`` when either is null, for then nothing is less or greater."""
    if a is None or b is None:
        return None
    one, other = type(a), type(b)
    if (one is str and other is str) or (one in NUMBERS and other in NUMBERS):
        return a, b
    if one is str and other in NUMBERS and (found := number(a)) is not None:
        return found, b
    if other is str and one in NUMBERS and (found := number(b)) is not None:
        return a, found
    raise Fault(f"{kind(a)} and {kind(b)} have no order", hint="compare two numbers or two texts")


def less(a: Any, b: Any) -> bool:
    pair = comparable(a, b)
    return pair is not None and bool(pair[0] < pair[1])


def less_or_equal(a: Any, b: Any) -> bool:
    pair = comparable(a, b)
    return pair is not None and bool(pair[0] <= pair[1])


def greater(a: Any, b: Any) -> bool:
    return less(b, a)


def greater_or_equal(a: Any, b: Any) -> bool:
    return less_or_equal(b, a)


def within(a: Any, b: Any) -> bool:
    return contains(b, a)


# ---- arithmetic -------------------------------------------------------------------------------------


def add(a: Any, b: Any) -> Any:
    """Numbers add, anything beside a text is appended as text, lists join."""
    if type(a) in NUMBERS and type(b) in NUMBERS:
        return checked(a + b)
    if type(a) is str or type(b) is str:
        return checked_text(text(a) + text(b))
    if type(a) is list and type(b) is list:
        return checked_list(a + b)
    raise _unfit("+", a, b)


def subtract(a: Any, b: Any) -> Any:
    a, b = _numbers("-", a, b)
    return checked(a - b)


def multiply(a: Any, b: Any) -> Any:
    a, b = _numbers("*", a, b)
    return checked(a * b)


def divide(a: Any, b: Any) -> Any:
    """A Long when two Longs divide without a rest, else a Double: 4/2 = 2, 2/4 = 0.5."""
    a, b = _numbers("/", a, b)
    if b == 0:
        raise Fault(f"{short(a)} is divided by zero", hint="test the divisor first: x != 0 ? a / x : 0")
    if type(a) is int and type(b) is int and a % b == 0:
        return checked(a // b)
    return checked(a / b)


def remainder(a: Any, b: Any) -> Any:
    """The rest of a division that rounds towards zero, as in CEL and Java: -5 % 3 = -2."""
    a, b = _numbers("%", a, b)
    if b == 0:
        raise Fault(f"{short(a)} is divided by zero", hint="test the divisor first: x != 0 ? a % x : 0")
    if type(a) is int and type(b) is int:
        rest = abs(a) % abs(b)
        return -rest if a < 0 else rest
    return checked(math.fmod(a, b))


def negate(a: Any) -> Any:
    value = as_number(a)
    if value is None:
        raise Fault(f"-({kind(a)}) has no meaning", hint="a number is expected")
    return checked(-value)


def _numbers(sign: str, a: Any, b: Any) -> tuple[int | float, int | float]:
    one, other = as_number(a), as_number(b)
    if one is not None and other is not None:
        return one, other
    raise _unfit(sign, a, b)


def _unfit(sign: str, a: Any, b: Any) -> Fault:
    hint = "numbers are expected; convert with int(x) or double(x)"
    if a is None or b is None:
        hint = "a value is null: give it a default, as in (x == null ? 0 : x)"
    return Fault(f"{kind(a)} {sign} {kind(b)} has no meaning", hint=hint)


BINARY: Final[dict[str, Callable[[Any, Any], Any]]] = {
    "==": equals,
    "!=": differs,
    "<": less,
    "<=": less_or_equal,
    ">": greater,
    ">=": greater_or_equal,
    "in": within,
    "+": add,
    "-": subtract,
    "*": multiply,
    "/": divide,
    "%": remainder,
}
