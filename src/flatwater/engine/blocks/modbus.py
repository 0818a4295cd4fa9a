"""The Modbus family: read, write, and wait for values of the devices that are configured by name.

``ModbusWriteBp`` is of recovery ``operator``; a definition says ``recovery: rerun`` where writing the same value twice
does no harm, which is so for most set points and for no counter or start bit.
"""

from __future__ import annotations

from typing import Annotated, Any

from msgspec import Meta, Struct

from flatwater.engine.block import BlockCall, block
from flatwater.engine.modbus_value import (
    ADDRESSES,
    MAX_READ,
    Comparison,
    DataType,
    Place,
    Table,
    WordOrder,
    Writable,
    check,
    expectation,
    listed,
)
from flatwater.engine.modbus_watch import WAIT
from flatwater.errors import RunError

Device = Annotated[str | None, Meta(description="a name under [modbus]; not needed when there is only one")]
Unit = Annotated[int, Meta(ge=0, le=255, description="the unit id, for devices behind a gateway")]
At = Annotated[int, Meta(ge=0, le=ADDRESSES - 1, description="as in the protocol: the first is 0 (40001 is holding 0)")]
Source = Annotated[Table, Meta(description="coils, discrete inputs, holding registers or input registers")]
Target = Annotated[Writable, Meta(description="coils or holding registers")]
Count = Annotated[int, Meta(ge=1, le=max(MAX_READ.values()), description="how many values")]
Type = Annotated[DataType, Meta(description="of a value in registers; those of 32 bits take two registers each")]
Order = Annotated[WordOrder, Meta(description="which of two registers comes first: the high one (big) or the low one")]
Timeout = Annotated[
    int, Meta(ge=1, le=3_600_000, description="milliseconds for the turn, the connection and the answer together")
]
Written = Annotated[Any, Meta(description="a number or true/false, or a list of them")]
Compared = Annotated[Comparison, Meta(description="hasBits: all bits of value are set; lacksBits: none of them is")]
Expected = Annotated[Any, Meta(description="what is compared with")]
Millis = Annotated[int, Meta(ge=1, le=366 * 86_400_000)]
Limit = Annotated[Millis | None, Meta(description="milliseconds to wait; not given: for ever")]


class Read(Struct):
    """``values`` are all of them, ``value`` is the first."""

    value: Any
    values: list[Any]


class Met(Struct):
    """``value`` is what stood there when the wait ended."""

    value: Any


@block("ModbusReadBp", family="modbus", camel=True)
async def read(
    address: At,
    device: Device = None,
    unit: Unit = 1,
    table: Source = "holding",
    count: Count = 1,
    data_type: Type = "uint16",
    word_order: Order = "big",
    timeout: Timeout = 3_000,
    *,
    call: BlockCall,
) -> Read:
    """Reads values from a Modbus device."""
    modbus = call.services.modbus
    place = Place(modbus.choose(device), unit, table, address, count, data_type, word_order)
    values = await modbus.read(place, timeout / 1000)
    return Read(values[0], values)


@block("ModbusWriteBp", family="modbus", recovery="operator", camel=True)
async def write(
    address: At,
    value: Written,
    device: Device = None,
    unit: Unit = 1,
    table: Target = "holding",
    data_type: Type = "uint16",
    word_order: Order = "big",
    timeout: Timeout = 3_000,
    *,
    call: BlockCall,
) -> None:
    """Writes values to a Modbus device: one request, with the functions 5 and 6 for one bit or register, 15 and 16
    for several."""
    modbus = call.services.modbus
    values = listed(value)
    place = Place(modbus.choose(device), unit, table, address, len(values), data_type, word_order)
    await modbus.write(place, values, timeout / 1000)


@block("ModbusWaitBp", family="modbus", camel=True)
async def wait(
    address: At,
    value: Expected,
    comparison: Compared = "==",
    device: Device = None,
    unit: Unit = 1,
    table: Source = "holding",
    data_type: Type = "uint16",
    word_order: Order = "big",
    timeout_ms: Limit = None,
    *,
    call: BlockCall,
) -> Met:
    """Waits until a value of a Modbus device is as it should be. Fails when the time is over."""
    services = call.services
    place = Place(services.modbus.choose(device), unit, table, address, 1, data_type, word_order)
    check(place, MAX_READ)
    wanted = expectation(place, comparison, value)
    watch = services.modbus_watch
    assert watch is not None, "there is one where there are devices"
    if call.waited() is None:
        watch.add(wanted)
    limit_s = None if timeout_ms is None else timeout_ms / 1000
    answer = await call.wait(WAIT, wanted.key, reason=f"{wanted}", timeout_s=limit_s)
    if "error" in answer:
        raise RunError(answer["error"])
    return Met(answer["value"])
