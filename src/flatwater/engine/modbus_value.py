"""What stands in the tables of a Modbus device, as values; and what runs wait for there. Pure.

A number of 32 bits stands in two registers; which of the two comes first is the ``wordOrder``. Within a register the
high byte comes first, always.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any, Final, Literal, TypeAlias

import msgspec
from msgspec import Struct

from flatwater.errors import InputError

Table: TypeAlias = Literal["coil", "discrete", "holding", "input"]
Writable: TypeAlias = Literal["coil", "holding"]
DataType: TypeAlias = Literal["int16", "uint16", "int32", "uint32", "float32"]
WordOrder: TypeAlias = Literal["big", "little"]
Comparison: TypeAlias = Literal["==", "!=", "<", "<=", ">", ">=", "hasBits", "lacksBits"]
Value: TypeAlias = bool | int | float

BITS: Final = ("coil", "discrete")
MAX_READ: Final[Mapping[str, int]] = {"coil": 2000, "discrete": 2000, "holding": 125, "input": 125}
MAX_WRITE: Final[Mapping[str, int]] = {"coil": 1968, "holding": 123}
"""Bits or registers in one request, by the specification."""
ADDRESSES: Final = 65_536
_FORMATS: Final = {"int16": "h", "uint16": "H", "int32": "i", "uint32": "I", "float32": "f"}
_MOST: Final = 2**63
_TRUE: Final = (True, 1, "true", "on", "1")
_FALSE: Final = (False, 0, "false", "off", "0")


class Place(Struct, frozen=True, array_like=True):
    """``count`` values of a device, from ``address`` (of the protocol: the first is 0) on."""

    device: str
    unit: int
    table: Table
    address: int
    count: int = 1
    data_type: DataType = "uint16"
    word_order: WordOrder = "big"

    @property
    def width(self) -> int:
        """How many bits or registers that are."""
        return self.count if self.table in BITS else self.count * words(self.data_type)

    def __str__(self) -> str:
        more = f" … {self.address + self.width - 1}" if self.width > 1 else ""
        return f"{self.table} {self.address}{more} of {self.device}, unit {self.unit}"


class Condition(Struct, frozen=True, array_like=True):
    """What a run waits for: the value of ``place`` compared with ``expected``."""

    place: Place
    comparison: Comparison
    expected: Value

    @property
    def key(self) -> str:
        """The same for all who wait for the same; at most 255 characters for names of 64."""
        return msgspec.json.encode(self).decode()

    def __str__(self) -> str:
        expected = msgspec.json.encode(self.expected).decode()
        return f"{self.place} to be {self.comparison} {expected}"


def condition(key: str) -> Condition:
    """The condition of a `Condition.key`. Raises ``msgspec.MsgspecError``."""
    return msgspec.json.decode(key, type=Condition)


def words(data_type: DataType) -> int:
    """Registers that one value takes."""
    return struct.calcsize(f">{_FORMATS[data_type]}") // 2


def check(place: Place, limits: Mapping[str, int]) -> None:
    """Raises `InputError` when one request cannot be about all of ``place``."""
    most = limits[place.table]
    if place.width > most:
        what = "bits" if place.table in BITS else "registers"
        raise InputError(f"{place.width} {what} at once, at most {most} can be", where="count", hint="ask in parts")
    if place.address + place.width > ADDRESSES:
        hint = "addresses count from 0: what manuals call 40001 is 0 of table holding"
        raise InputError(f"the addresses end at {ADDRESSES - 1}", where="address", hint=hint)


def decoded(place: Place, raw: Sequence[int] | Sequence[bool]) -> list[Value]:
    """The values of the bits or registers that were read."""
    if place.table in BITS:
        return [bool(bit) for bit in raw[: place.count]]
    size = words(place.data_type)
    groups = [raw[start : start + size] for start in range(0, len(raw), size)]
    return [_number(group, place) for group in groups]


def _number(registers: Sequence[int], place: Place) -> int | float:
    ordered = registers if place.word_order == "big" else registers[::-1]
    packed = struct.pack(f">{len(ordered)}H", *ordered)
    number: int | float = struct.unpack(f">{_FORMATS[place.data_type]}", packed)[0]
    return number


def encoded(place: Place, values: Sequence[Any]) -> list[bool] | list[int]:
    """The bits or registers to write. Raises `InputError` with the first value that does not fit."""
    if place.table in BITS:
        return [_bit(value) for value in values]
    registers: list[int] = []
    for value in values:
        packed = _packed(value, place.data_type)
        found = struct.unpack(f">{len(packed) // 2}H", packed)
        registers += found if place.word_order == "big" else found[::-1]
    return registers


def _bit(value: Any) -> bool:
    text = value.strip().lower() if isinstance(value, str) else value
    if text not in _TRUE + _FALSE:
        raise InputError(f"{value!r} is no bit", where="value", hint="give true or false")
    return text in _TRUE


def _packed(value: Any, data_type: DataType) -> bytes:
    number = _numeric(value)
    try:
        if data_type != "float32" and number == int(number):
            number = int(number)
        return struct.pack(f">{_FORMATS[data_type]}", number)
    except (struct.error, OverflowError, ValueError):
        raise InputError(f"{value!r} is no {data_type}", where="value", hint="see dataType") from None


def _numeric(value: Any) -> int | float:
    """A number, or the text of one: `Simple` parameters are texts."""
    if isinstance(value, str):
        with suppress(ValueError):
            value = int(value) if value.strip().lstrip("+-").isdigit() else float(value)
    if isinstance(value, int | float) and abs(value) < _MOST:  # neither infinity nor NaN
        return value
    raise InputError(f"{value!r} is no number", where="value")


def listed(value: Any) -> list[Any]:
    """One value or several: a list, or the JSON text of one."""
    if isinstance(value, str) and value.lstrip().startswith("["):
        try:
            value = msgspec.json.decode(value)
        except msgspec.MsgspecError as error:
            raise InputError(f"this is no list: {error}", where="value") from None
    if not isinstance(value, list):
        return [value]
    if not value:
        raise InputError("there is nothing to write", where="value", hint="give a value, or a list of values")
    return value


def expectation(place: Place, comparison: Comparison, value: Any) -> Condition:
    """What to wait for, as it can be compared. Raises `InputError`."""
    if place.table in BITS:
        if comparison not in ("==", "!="):
            raise InputError(f"a bit cannot be {comparison}", where="comparison", hint="use == or !=")
        return Condition(place, comparison, _bit(value))
    number = _numeric(value)
    if comparison in ("hasBits", "lacksBits"):
        if place.data_type == "float32" or number != int(number) or number <= 0:
            hint = "give a sum of 1, 2, 4, 8 …, and an integer for dataType"
            raise InputError(f"{value!r} names no bits of a {place.data_type}", where="value", hint=hint)
        return Condition(place, comparison, int(number))
    if place.data_type == "float32":
        _single(number)
    return Condition(place, comparison, number)


def _single(number: float) -> float:
    """What a float32 keeps of a number: 0.1 is then what a device calls 0.1."""
    single: float = struct.unpack(">f", _packed(number, "float32"))[0]
    return single


def holds(condition: Condition, value: Value) -> bool:
    """Whether what was read is what is waited for."""
    expected = condition.expected
    if condition.place.data_type == "float32" and condition.place.table not in BITS:
        expected = _single(expected)
    match condition.comparison:
        case "==":
            return value == expected
        case "!=":
            return value != expected
        case "<":
            return value < expected
        case "<=":
            return value <= expected
        case ">":
            return value > expected
        case ">=":
            return value >= expected
        case "hasBits":
            return int(value) & int(expected) == int(expected)
        case "lacksBits":
            return int(value) & int(expected) == 0
