"""The data family, run for real: values, the shared cache, and functions of the user."""

from __future__ import annotations

import asyncio
import threading
from time import time
from typing import Any
from uuid import UUID

import pytest

from flatwater.errors import DefinitionError
from flatwater.store.state import State
from tests.engine.blocks.conftest import Bench, Open
from tests.engine.plan import b


async def test_values_are_made_once_and_stay_after_a_restart(open_bench: Open) -> None:
    async with open_bench(park_after_s=0.02) as bench:
        before = time() * 1000
        run_id = await bench.submit(
            b(1, "CreateUuidBp"),
            b(2, "TimestampBp"),
            b(3, "CurrentTimeStampBp"),
            b(4, "SetTaskVariableBp", {"varName": "first", "varValue": "=blocks.b1.createUuid"}),
            b(5, "WaitEventBp", {"eventName": "go"}),
            outputs={
                "uuid": "blocks.b1.createUuid",
                "first": "task.variables.first",
                "at": "blocks.b2.timestamp",
                "now": "blocks.b3.currentTimeStamp",
            },
        )
        await bench.until(run_id, State.WAITING)
        after = time() * 1000
    async with open_bench() as bench:
        await bench.engine.publish("go")
        outputs = (await bench.engine.result(run_id, 60)).outputs
    assert outputs["uuid"] == outputs["first"] == str(UUID(outputs["uuid"]))
    assert before - 1 <= outputs["at"] <= outputs["now"] <= after


async def test_text_becomes_json(bench: Bench) -> None:
    outputs = await bench.outputs(
        b(1, "StringToJsonObjectBp", {"convertString": "=taskInputs.text"}),
        b(2, "StringToJsonArrayBp", {"convertString": "[1, 2, 3]"}),
        inputs={"text": '{"a": {"b": [true]}}'},
        outputs={"o": "blocks.b1.convertObject.a.b[0]", "n": "blocks.b2.convertArray[2]"},
    )
    assert outputs == {"o": True, "n": 3}


@pytest.mark.parametrize(
    ("kind", "text", "cause"),
    [
        ("StringToJsonObjectBp", "{oops}", "convertString is not JSON"),
        ("StringToJsonObjectBp", "[1]", "but no object"),
        ("StringToJsonArrayBp", '{"a": 1}', "but no array"),
        ("StringToJsonArrayBp", "[" * 100_000, "convertString is not JSON"),
    ],
)
async def test_what_is_no_json_is_told(bench: Bench, kind: str, text: str, cause: str) -> None:
    assert cause in await bench.error(b(1, kind, {"convertString": "=taskInputs.t"}), inputs={"t": text})


async def test_the_cache_is_shared_by_runs_and_kept(open_bench: Open) -> None:
    put = b(1, "CacheDataBp", {"key": "shift", "value": '={"n": taskInputs.n}'})
    get = b(1, "GetCacheDataBp", {"key": "shift"})
    async with open_bench() as bench:
        assert await bench.outputs(get, outputs={"v": "blocks.b1.value"}, label="get") == {"v": None}
        await bench.outputs(put, inputs={"n": 1}, label="put")
        await bench.outputs(put, inputs={"n": 2}, label="put")
    async with open_bench() as bench:
        assert await bench.outputs(get, outputs={"v": "blocks.b1.value.n"}, label="get") == {"v": 2}
        await bench.outputs(b(1, "ClearCacheDataBp", {"key": "shift"}), label="clear")
        assert await bench.outputs(get, outputs={"v": "blocks.b1.value"}, label="get") == {"v": None}


async def test_the_cache_is_bounded(open_bench: Open) -> None:
    put = b(1, "CacheDataBp", {"key": "=taskInputs.k", "value": "=taskInputs.v"})
    get = b(1, "GetCacheDataBp", {"key": "=taskInputs.k"})
    async with open_bench(max_cache_entries=2, max_cache_bytes=1_000) as bench:
        for key in ("a", "b", "c"):
            await bench.outputs(put, inputs={"k": key, "v": key}, label="put")
        found = [
            (await bench.outputs(get, inputs={"k": key}, outputs={"v": "blocks.b1.value"}, label="get"))["v"]
            for key in ("a", "b", "c")
        ]
        assert found == [None, "b", "c"]
        error = await bench.error(put, inputs={"k": "big", "v": "x" * 2_000}, label="put")
        assert "max_bytes" in error
        with pytest.raises(DefinitionError):
            await bench.submit(b(1, "CacheDataBp", {"key": "k" * 300, "value": 1}))


# ---- functions --------------------------------------------------------------------------------------


def choose(group: str, order: str = "asc") -> dict[str, Any]:
    return {"dropSite": f"{group}-1", "order": order, "thread": threading.current_thread().name}


async def look(text: str, *, call: Any) -> dict[str, Any]:
    await asyncio.sleep(0)
    return {"seen": text, "path": call.path}


def broken() -> None:
    raise KeyError("no such pallet")


FUNCTIONS = {
    "choose": choose,
    "look": look,
    "broken": broken,
    "number": lambda: 5,
    "nothing": lambda: None,
    "odd": lambda: {"x": object()},
}


@pytest.fixture
async def scripted(open_bench: Open) -> Any:
    async with open_bench(functions=FUNCTIONS) as bench:
        yield bench


@pytest.mark.parametrize("kind", ["ScriptBp", "ScriptVariablesBp"])
async def test_a_functions_dict_becomes_variables(scripted: Bench, kind: str) -> None:
    outputs = await scripted.outputs(
        b(1, kind, {"functionName": "choose", "functionArgs": {"group": "BUF"}}),
        b(2, kind, {"functionName": "look", "functionArgs": "hello"}),
        b(3, kind, {"functionName": "nothing"}),
        outputs={"v": "task.variables"},
    )
    thread = outputs["v"].pop("thread")
    assert thread.startswith("flatwater-block")
    assert outputs["v"] == {"dropSite": "BUF-1", "order": "asc", "seen": "hello", "path": "-1/2"}


@pytest.mark.parametrize(
    ("name", "args", "cause"),
    [
        ("chose", None, "function 'chose' [-1/1] — registered: broken, choose, look"),
        ("choose", {"grp": 1}, "functionArgs do not fit"),
        ("choose", None, "functionArgs do not fit"),
        ("number", None, "number returned int"),
        ("odd", None, "odd returned what JSON cannot hold"),
        ("broken", None, "KeyError: 'no such pallet'"),
    ],
)
async def test_what_a_function_may_do_wrong(scripted: Bench, name: str, args: Any, cause: str) -> None:
    params = {"functionName": name} if args is None else {"functionName": name, "functionArgs": args}
    assert cause in await scripted.error(b(1, "ScriptBp", params))
