"""The Modbus family against real servers: values of all kinds, failures of all kinds, and waits that hold no memory."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from pymodbus import FramerType
from pymodbus.constants import ExcCodes

from flatwater.engine import modbus as modbus_module
from flatwater.engine.modbus import Address, Device, Line, ModbusError, address
from flatwater.errors import SettingError
from flatwater.store.state import State
from tests.engine.blocks.conftest import Bench, Open, eventually
from tests.engine.blocks.plc import Plc, process
from tests.engine.plan import b

HOWTO = Path(__file__).parents[3] / "docs" / "howto" / "modbus.md"


@pytest.fixture
async def plc() -> AsyncIterator[Plc]:
    plc = Plc()
    await plc.start()
    yield plc
    plc.answers.set()
    await plc.stop()


@pytest.fixture
async def bench(open_bench: Open, plc: Plc) -> AsyncIterator[Bench]:
    async with open_bench(modbus={"line": plc.url}, park_after_s=0.02, modbus_poll_s=0.02) as bench:
        yield bench


def read(number: int = 1, **params: Any) -> dict[str, Any]:
    return b(number, "ModbusReadBp", params)


def write(number: int = 1, recovery: str | None = None, **params: Any) -> dict[str, Any]:
    return b(number, "ModbusWriteBp", params, **({"recovery": recovery} if recovery else {}))


def wait(number: int = 1, **params: Any) -> dict[str, Any]:
    return b(number, "ModbusWaitBp", params)


VALUE = {"v": "blocks.b1.value"}
VALUES = {"v": "blocks.b1.values"}


def held(bench: Bench) -> int:
    """Runs in memory."""
    return len(bench.engine.scheduler.active)


# ---- reading and writing ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("table", "raw", "params", "values"),
    [
        ("coil", (True, False, True), {"count": 3}, [True, False, True]),
        ("discrete", (True, False), {"count": 2}, [True, False]),
        ("holding", (1, 65535), {"count": 2}, [1, 65535]),
        ("input", (65535, 5), {"count": 2, "dataType": "int16"}, [-1, 5]),
        ("holding", (0x0001, 0x0002), {"dataType": "uint32"}, [65538]),
        ("holding", (0x0002, 0x0001), {"dataType": "uint32", "wordOrder": "little"}, [65538]),
        ("holding", (0xFFFF, 0xFFFE), {"dataType": "int32"}, [-2]),
        ("input", (0x3FC0, 0, 0xC020, 0), {"dataType": "float32", "count": 2}, [1.5, -2.5]),
    ],
)
async def test_values_are_read(bench: Bench, plc: Plc, table: str, raw: Any, params: Any, values: Any) -> None:
    await plc.set(table, 7, *raw)
    outputs = await bench.outputs(
        read(table=table, address=7, **params), outputs={"v": "blocks.b1.value", "all": "blocks.b1.values"}
    )
    assert outputs == {"v": values[0], "all": values}


@pytest.mark.parametrize(
    ("params", "function", "back"),
    [
        ({"table": "coil", "value": True}, 5, {"table": "coil"}),
        ({"table": "coil", "value": "[true, false, true]"}, 15, {"table": "coil"}),
        ({"value": 513}, 6, {}),
        ({"value": "=[1, 2, 3]"}, 16, {}),
        ({"value": -7, "dataType": "int16"}, 6, {}),
        ({"value": 4_000_000_000, "dataType": "uint32"}, 16, {}),
        ({"value": "-1.25", "dataType": "float32", "wordOrder": "little"}, 16, {}),
    ],
)
async def test_what_is_written_is_read_again(bench: Bench, plc: Plc, params: Any, function: int, back: Any) -> None:
    await bench.outputs(write(address=3, **params))
    assert plc.seen[-1][:2] == (function, 3)
    expected = {True: [True], "[true, false, true]": [True, False, True], "=[1, 2, 3]": [1, 2, 3], "-1.25": [-1.25]}
    values = expected.get(params["value"], [params["value"]])
    kept = {key: params[key] for key in ("dataType", "wordOrder") if key in params}
    assert await bench.outputs(read(address=3, count=len(values), **back, **kept), outputs=VALUES) == {"v": values}


@pytest.mark.parametrize(
    ("block", "error"),
    [
        (read(address=500), "exception 2, illegal data address [holding 500 of line, unit 1] — the device has no such"),
        (read(address=65535, dataType="uint32"), "the addresses end at 65535 [address]"),
        (read(address=0, count=126), "126 registers at once, at most 125 can be [count]"),
        (read(address=0, count=63, dataType="int32"), "126 registers at once"),
        (write(address=0, value=70_000), "'70000' is no uint16 [value]"),
        (write(address=0, value=1.5), "'1.5' is no uint16 [value]"),
        (write(address=0, value="many"), "'many' is no number [value]"),
        (write(address=0, value="=[]"), "there is nothing to write [value]"),
        (write(address=0, value=2, table="coil"), "'2' is no bit [value]"),
        (wait(address=0, value=1, comparison="<", table="coil"), "a bit cannot be < [comparison]"),
        (wait(address=0, value=1.5, comparison="hasBits"), "names no bits of a uint16"),
        (wait(address=500, value=1), "exception 2, illegal data address"),
        (wait(address=65535, value=1, dataType="int32"), "the addresses end at 65535 [address]"),
        (read(address=0, device="other"), "there is no Modbus device 'other' [device] — configured: line"),
    ],
)
async def test_a_mistake_is_named(bench: Bench, block: Any, error: str) -> None:
    assert error in await bench.error(block)


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        (ExcCodes.DEVICE_FAILURE, "exception 4, server device failure"),
        (ExcCodes.DEVICE_BUSY, "exception 6, server device busy"),
        (ExcCodes.GATEWAY_NO_RESPONSE, "exception 11, gateway target device failed to respond"),
    ],
)
async def test_exceptions_have_names_and_leave_the_connection(
    bench: Bench, plc: Plc, fault: ExcCodes, words: str
) -> None:
    plc.fault = fault
    assert words in await bench.error(read(address=0))
    plc.fault = None
    assert await bench.outputs(read(address=0), outputs=VALUE) == {"v": 0}
    assert plc.connections == 1


async def test_rtu_over_tcp(open_bench: Open) -> None:
    plc = Plc()
    await plc.start(FramerType.RTU)
    try:
        url = plc.url.replace("tcp://", "rtu+tcp://")
        async with open_bench(modbus={"a": url, "b": "tcp://127.0.0.1:1"}) as bench:
            await bench.outputs(write(address=3, value=9, device="a"))
            assert await bench.outputs(read(address=3, device="a"), outputs=VALUE) == {"v": 9}
            assert "which Modbus device is not said [device] — configured: a, b" in await bench.error(read(address=3))
    finally:
        await plc.stop()


async def test_without_devices_the_error_says_where_they_belong(open_bench: Open) -> None:
    async with open_bench() as bench:
        for block in (read(address=0), write(address=0, value=1), wait(address=0, value=1)):
            assert "none is configured: add it under [modbus]" in await bench.error(block)


async def test_without_pymodbus_the_error_says_how_to_get_it(open_bench: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(modbus_module, "find_spec", lambda name: None)
    with pytest.raises(SettingError, match=r"pymodbus \[\[modbus\]\] — pip install 'flatwater\[modbus\]'"):
        async with open_bench(modbus={"line": "tcp://127.0.0.1:1"}):
            pass
    async with open_bench() as bench:  # and nobody else needs it
        assert "none is configured" in await bench.error(read(address=0))


def test_addresses() -> None:
    assert address("a", "tcp://10.0.0.7") == Address("10.0.0.7", 502, "socket")
    assert str(address("a", "rtu+tcp://[::1]:1502")) == "[::1]:1502"
    for wrong in ("10.0.0.7:502", "udp://h", "tcp://", "tcp://h:port", "tcp://h/1", "tcp://h?unit=3"):
        with pytest.raises(SettingError, match=r"\[modbus\] a"):
            address("a", wrong)
    with pytest.raises(SettingError, match="64 characters"):
        address("a" * 65, "tcp://h")


# ---- connections ------------------------------------------------------------------------------------


async def test_one_connection_serves_all_in_turn(bench: Bench, plc: Plc) -> None:
    branches = [b(10 + i, "SerialFlowBp", default=[read(100 + i, address=i)]) for i in range(10)]
    await bench.outputs(b(1, "ParallelFlowBp", default=branches))
    assert len(plc.seen) == 10
    assert (plc.connections, plc.most_at_once) == (1, 1)
    statistics = bench.engine.services.modbus.statistics()
    assert (statistics.size, statistics.bound, statistics.requests, statistics.failed) == (1, 1, 10, 0)


async def test_more_connections_where_the_device_allows_them(open_bench: Open, plc: Plc) -> None:
    branches = [b(10 + i, "SerialFlowBp", default=[read(100 + i, address=i)]) for i in range(6)]
    async with open_bench(modbus={"line": plc.url}, max_modbus_connections=2) as bench:
        plc.answers.clear()
        run_id = await bench.submit(b(1, "ParallelFlowBp", default=branches))
        await eventually(lambda: asyncio.sleep(0, plc.at_once == 2))
        plc.answers.set()
        await bench.until(run_id, State.SUCCEEDED)
    assert (plc.connections, plc.most_at_once) == (2, 2)


async def test_a_late_answer_is_not_taken_for_the_next(bench: Bench, plc: Plc) -> None:
    await plc.set("holding", 0, 1, 2)
    plc.answers.clear()
    assert "no answer within 0.1 s [line, 127.0.0.1:" in await bench.error(read(address=0, timeout=100))
    plc.answers.set()
    assert await bench.outputs(read(address=1), outputs=VALUE) == {"v": 2}
    assert plc.connections == 2


async def test_who_gets_no_turn_is_told_so(bench: Bench, plc: Plc) -> None:
    plc.answers.clear()
    first = await bench.submit(read(address=0, timeout=60_000), outputs=VALUE)
    await eventually(lambda: asyncio.sleep(0, plc.seen))
    assert "others keep it busy within 0.1 s" in await bench.error(read(address=1, timeout=100))
    plc.answers.set()
    await bench.until(first, State.SUCCEEDED)
    assert len(plc.seen) == 1


async def test_a_connection_that_the_device_closed_is_opened_again(bench: Bench, plc: Plc) -> None:
    await bench.outputs(read(address=0))
    await plc.stop()
    assert "no connection: refused" in await bench.error(read(address=0))
    await plc.start()
    assert await bench.outputs(read(address=0), outputs=VALUE) == {"v": 0}


async def test_a_read_that_finds_its_connection_gone_is_sent_again_and_a_write_is_not(bench: Bench, plc: Plc) -> None:
    await bench.outputs(read(address=0))
    for block, error in ((read(address=0), None), (write(address=0, value=1), "was closed before the answer")):
        plc.answers.clear()
        seen = len(plc.seen)
        run_id = await bench.submit(block)
        await eventually(lambda seen=seen: asyncio.sleep(0, len(plc.seen) > seen))
        await plc.stop()
        await plc.start()
        plc.answers.set()
        row = await bench.until(run_id, State.SUCCEEDED, State.FAILED)
        assert (row.error or "") == "" if error is None else error in row.error


async def test_a_connection_that_rests_is_closed(plc: Plc) -> None:
    async with modbus_module.Modbus({"line": plc.url}, idle_s=0.05) as modbus:
        place = modbus_module.Place("line", 1, "holding", 0)
        await modbus.read(place, 5)
        assert modbus.statistics().size == 1
        await eventually(lambda: asyncio.sleep(0, modbus.statistics().size == 0))
        assert await modbus.read(place, 5) == [0]


async def test_those_who_queue_share_the_failure_of_a_dead_device(monkeypatch: pytest.MonkeyPatch) -> None:
    """Or the last of a hundred would learn of it after a hundred times the time-out."""
    attempts = []

    async def never(line: Line) -> bool:
        attempts.append(line)
        await asyncio.sleep(3600)
        return False

    monkeypatch.setattr(Line, "connect", never)
    device = Device("line", Address("10.0.0.7", 502, "socket"), 1, 15)

    async def ask() -> Any:
        await device.ask(None, 0.2 if not attempts else 60, again=True)  # type: ignore[arg-type]

    async with asyncio.timeout(90):
        errors = await asyncio.gather(*(ask() for _ in range(10)), return_exceptions=True)
    assert [str(error) for error in errors if isinstance(error, ModbusError)] == [str(errors[0])] * 10
    assert "no connection within 0.2 s" in str(errors[0])
    assert len(attempts) == 1


async def test_a_cancellation_together_with_the_answer_is_heeded() -> None:
    """`wait_for` of Python 3.11, with which pymodbus waits, swallows it: the watch went on after the engine's end."""
    answer: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    line = Line(Address("127.0.0.1", 1, "socket"))
    line._client = object()  # type: ignore[assignment]  # there is no other way to have both in one turn of the loop
    waiting = asyncio.ensure_future(line.ask(lambda _: asyncio.wait_for(answer, 60)))  # type: ignore[arg-type]
    await asyncio.sleep(0.01)
    answer.set_result("late")
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting


# ---- recovery ---------------------------------------------------------------------------------------


async def test_a_write_that_was_under_way_needs_an_operator(open_bench: Open, plc: Plc) -> None:
    plc.answers.clear()
    async with open_bench(modbus={"line": plc.url}) as bench:
        run_id = await bench.submit(write(address=0, value=5, timeout=600_000))
        await eventually(lambda: asyncio.sleep(0, plc.seen))
    plc.answers.set()
    async with open_bench(modbus={"line": plc.url}) as bench:
        await bench.until(run_id, State.NEEDS_OPERATOR)
        assert len(plc.seen) == 1
        await bench.engine.retry(run_id)
        await bench.until(run_id, State.SUCCEEDED)
    assert len(plc.seen) == 2


async def test_a_write_that_is_declared_idempotent_is_made_again(open_bench: Open, plc: Plc) -> None:
    plc.answers.clear()
    async with open_bench(modbus={"line": plc.url}) as bench:
        run_id = await bench.submit(write(address=0, value=5, timeout=600_000, recovery="rerun"))
        await eventually(lambda: asyncio.sleep(0, plc.seen))
    plc.answers.set()
    async with open_bench(modbus={"line": plc.url}) as bench:
        await bench.until(run_id, State.SUCCEEDED)
    assert len(plc.seen) == 2


# ---- waiting ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("params", "values"),
    [
        ({"table": "discrete", "value": True}, (True,)),
        ({"table": "coil", "value": False, "comparison": "!="}, (True,)),
        ({"value": 3}, (3,)),
        ({"value": 3, "comparison": ">="}, (9,)),
        ({"value": -3, "comparison": "<", "dataType": "int16"}, (0x10000 - 4,)),
        ({"value": 6, "comparison": "hasBits"}, (7,)),
        ({"value": 0.1, "dataType": "float32"}, (0x3DCC, 0xCCCD)),
    ],
)
async def test_a_wait_ends_when_the_value_is_there(bench: Bench, plc: Plc, params: Any, values: Any) -> None:
    run_id = await bench.submit(wait(address=2, **params), outputs=VALUE)
    row = await bench.until(run_id, State.WAITING)
    assert "of line, unit 1 to be" in row.wait
    await eventually(lambda: asyncio.sleep(0, len(plc.seen) > 2))
    assert (await bench.row(run_id)).state == State.WAITING
    await plc.set(params.get("table", "holding"), 2, *values)
    outputs = (await bench.engine.result(run_id, 60)).outputs
    assert outputs["v"] == pytest.approx({(0x3DCC, 0xCCCD): 0.1, (0x10000 - 4,): -4}.get(values, values[0]))
    assert await bench.waiters() == []


async def test_many_who_wait_are_not_in_memory_and_share_one_read(bench: Bench, plc: Plc) -> None:
    ids = [await bench.submit(wait(address=2, value=1), outputs=VALUE) for _ in range(40)]
    others = [await bench.submit(wait(address=2, value=value), outputs=VALUE) for value in (2, 3)]
    for run_id in ids + others:
        await bench.until(run_id, State.WAITING)
    await eventually(lambda: asyncio.sleep(0, held(bench) == 0))
    watch = bench.engine.services.modbus_watch
    assert watch is not None
    assert watch.statistics().size == 3
    before = len(plc.seen), watch.statistics().reads
    await eventually(lambda: asyncio.sleep(0, watch.statistics().reads >= before[1] + 5))
    assert len(plc.seen) - before[0] <= watch.statistics().reads - before[1] + 1
    await plc.set("holding", 2, 1)
    for run_id in ids:
        await bench.until(run_id, State.SUCCEEDED)
    assert watch.statistics().granted == 40
    await eventually(lambda: asyncio.sleep(0, watch.statistics().size == 2))
    for run_id in others:
        await bench.engine.cancel(run_id)
    await watch.recheck()
    assert watch.statistics().size == 0
    asked = len(plc.seen)
    await asyncio.sleep(0.1)
    assert len(plc.seen) - asked <= 1  # nobody waits: nothing is read


async def test_a_wait_that_takes_too_long_fails(bench: Bench) -> None:
    assert "waited 0." in await bench.error(wait(address=2, value=1, timeoutMs=100))


async def test_what_the_device_never_will_have_ends_the_wait(bench: Bench, plc: Plc) -> None:
    run_id = await bench.submit(wait(address=2, value=1))
    await bench.until(run_id, State.WAITING)
    plc.fault = ExcCodes.DEVICE_BUSY
    seen = len(plc.seen)
    await eventually(lambda: asyncio.sleep(0, len(plc.seen) > seen + 2))
    assert (await bench.row(run_id)).state == State.WAITING
    plc.fault = ExcCodes.ILLEGAL_FUNCTION
    row = await bench.until(run_id, State.FAILED)
    assert "exception 1, illegal function" in row.error


async def test_conditions_are_limited(open_bench: Open, plc: Plc) -> None:
    async with open_bench(modbus={"line": plc.url}, max_modbus_conditions=2) as bench:
        for value in (1, 2, 2):
            await bench.submit(wait(address=2, value=value))
        await bench.waits_for("modbus", "modbus", "modbus")
        error = await bench.error(wait(address=2, value=3))
        assert "max_modbus_conditions (2) different conditions already" in error


async def test_a_wait_outlives_the_engine_and_the_device(open_bench: Open) -> None:
    """The device is killed in the middle of the wait, then the engine; the value is there when both are back."""
    async with process(0, 0) as (server, port):
        devices = {"line": f"tcp://127.0.0.1:{port}"}
        async with open_bench(modbus=devices, park_after_s=0.02, modbus_poll_s=0.02) as bench:
            run_id = await bench.submit(wait(address=2, value=1), outputs=VALUE)
            await bench.until(run_id, State.WAITING)
            watch = bench.engine.services.modbus_watch
            assert watch is not None
            await eventually(lambda: asyncio.sleep(0, watch.statistics().reads > 2))
            server.kill()
            await server.wait()
            modbus = bench.engine.services.modbus
            await eventually(lambda: asyncio.sleep(0, modbus.statistics().failed > 2))
            assert (await bench.row(run_id)).state == State.WAITING
    async with open_bench(modbus=devices, park_after_s=0.02, modbus_poll_s=0.02) as bench, process(port, 1):
        assert (await bench.engine.result(run_id, 60)).outputs == {"v": 1}


# ---- the how-to -------------------------------------------------------------------------------------


async def test_the_conveyor_of_the_howto(open_bench: Open, plc: Plc) -> None:
    [text] = re.findall(r"```json\n(.*?)```", HOWTO.read_text("utf-8"), re.DOTALL)
    async with open_bench(modbus={"conveyor": plc.url}, park_after_s=0.02, modbus_poll_s=0.02) as bench:
        run_id = await bench.engine.submit((await bench.engine.save(text)).id)
        await bench.until(run_id, State.WAITING)
        await plc.set("input", 4, 0x4420, 0)  # 640.0
        await plc.set("discrete", 0, True)
        await eventually(lambda: asyncio.sleep(0, (5, 3, 1) in plc.seen))
        assert (6, 10, 1) in plc.seen
        await plc.set("discrete", 0, False)
        assert (await bench.engine.result(run_id, 60)).outputs == {"kilograms": 640.0}
        outputs = await bench.outputs(read(address=10, device="conveyor"), outputs=VALUE)
    assert outputs == {"v": 2}
