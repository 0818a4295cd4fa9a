"""The task family, run for real: the run's own record, other runs, sub-tasks and events."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
import pytest

from flatwater.store import log as logs
from flatwater.store import run as runs
from flatwater.store.ident import child_id
from flatwater.store.state import State
from tests.engine.blocks.conftest import Bench, Open, eventually
from tests.engine.conftest import Trace
from tests.engine.plan import b, plan

# ---- the run itself ---------------------------------------------------------------------------------


async def test_state_response_and_order_number_are_on_the_record(bench: Bench) -> None:
    result = await bench.run(
        b(1, "TaskStateBp", {"stateMsg": "on its way"}),
        b(2, "SetResponseBp", {"body": '={"ok": true}', "code": 201}),
        b(3, "SetOutOrderNoBp", {"orderNo": "PO-17"}),
        b(4, "GetTaskRecordBp"),
        outputs={"record": "blocks.b4.taskRecord"},
    )
    assert result.state == State.SUCCEEDED, result.error
    row = await bench.row(result.id)
    assert (row.state_message, row.out_order_no) == ("on its way", "PO-17")
    assert msgspec.json.decode(row.response) == {"code": 201, "body": {"ok": True}}
    record = result.outputs["record"]
    assert (record["id"], record["defLabel"], record["outOrderNo"]) == (result.id, "test", "PO-17")
    assert record["status"] == "RUNNING"


async def test_an_order_number_belongs_to_one_run(bench: Bench) -> None:
    name = b(1, "SetOutOrderNoBp", {"orderNo": "PO-17"})
    first = await bench.run(name)
    assert first.state == State.SUCCEEDED
    assert f"'PO-17' belongs to run {first.id}" in await bench.error(name)


async def test_a_record_is_found_by_order_number_and_a_missing_one_is_named(bench: Bench) -> None:
    first = await bench.submit(b(1, "SetTaskVariableBp", {"varName": "n", "varValue": "=3"}), idempotency_key="PO-1")
    await bench.engine.result(first, 60)
    get = b(1, "GetTaskRecordBp", {"taskRecordId": "PO-1"})
    record = (await bench.outputs(get, outputs={"r": "blocks.b1.taskRecord"}, label="get"))["r"]
    assert (record["id"], record["status"], record["variables"]) == (first, "SUCCEEDED", {"n": 3})
    missing = b(1, "GetTaskRecordBp", {"taskRecordId": "PO-2"})
    assert "run 'PO-2'" in await bench.error(missing, label="get")


async def test_variables_are_seen_by_later_blocks_and_survive_a_restart(open_bench: Open) -> None:
    async with open_bench(park_after_s=0.05) as bench:
        run_id = await bench.submit(
            b(1, "SetTaskVariableBp", {"varName": "a", "varValue": "=1"}),
            b(2, "SetTaskVariablesBp", {"variables": {"b": [1, 2]}, "c": "=task.variables.a + 1"}),
            b(3, "WaitEventBp", {"eventName": "go"}),
            b(4, "SetTaskVariableBp", {"varName": "d", "varValue": "=task.variables.b[1] + task.variables.c"}),
            outputs={"all": "task.variables"},
        )
        await bench.until(run_id, State.WAITING)
    async with open_bench() as bench:
        await bench.engine.publish("go")
        assert (await bench.engine.result(run_id, 60)).outputs == {"all": {"a": 1, "b": [1, 2], "c": 2, "d": 4}}


# ---- other runs -------------------------------------------------------------------------------------


async def test_stop_cancels_another_run(bench: Bench) -> None:
    other = await bench.submit(b(1, "WaitEventBp", {"eventName": "never"}), label="other")
    await bench.until(other, State.WAITING)
    stop = b(1, "StopTaskBp", {"taskRecordId": other})
    assert await bench.outputs(stop, outputs={"ok": "blocks.b1.stopSuccess"}) == {"ok": True}
    assert (await bench.engine.result(other, 60)).state == State.CANCELED
    assert await bench.outputs(stop, outputs={"ok": "blocks.b1.stopSuccess"}) == {"ok": True}


async def test_stop_of_an_ended_run_says_no(bench: Bench) -> None:
    other = await bench.run(b(1, "DelayBp", {"timeMillis": 0}), label="other")
    stop = b(1, "StopTaskBp", {"taskRecordId": other.id})
    assert await bench.outputs(stop, outputs={"ok": "blocks.b1.stopSuccess"}) == {"ok": False}
    assert "run 'NOBODY'" in await bench.error(b(1, "StopTaskBp", {"taskRecordId": "NOBODY"}), label="none")


async def test_a_run_may_stop_itself(bench: Bench) -> None:
    result = await bench.run(b(1, "StopTaskBp", {"taskRecordId": "=task.id"}), b(2, "Note"))
    assert result.state == State.CANCELED


@pytest.mark.parametrize("parked", [True, False])
async def test_suspend_and_start_another_run(bench: Bench, trace: Trace, parked: bool) -> None:
    wait = b(1, "WaitEventBp", {"eventName": "go"}) if parked else b(1, "Gate")
    other = await bench.submit(wait, b(2, "Note", {"value": "after"}), label="other")
    await bench.until(other, State.WAITING if parked else State.RUNNING)
    suspend = b(1, "SuspendTaskBp", {"taskRecordId": other})
    assert await bench.outputs(suspend, outputs={"ok": "blocks.b1.suspendSuccess"}) == {"ok": True}
    if not parked:  # a run in memory hears of it with the next look at the store

        async def told() -> bool:
            return bench.engine.scheduler.active[other].stopping == "pause"

        await eventually(told)
    trace.gate.set()
    await bench.engine.publish("go")
    await bench.until(other, State.PAUSED)
    assert ("-1/2", "after") not in trace.calls
    start = b(1, "StartTaskBp", {"taskRecordId": other})
    assert await bench.outputs(start, outputs={"ok": "blocks.b1.startSuccess"}, label="start") == {"ok": True}
    assert (await bench.engine.result(other, 60)).state == State.SUCCEEDED
    assert trace.calls[-1] == ("-1/2", "after")
    assert await bench.outputs(start, outputs={"ok": "blocks.b1.startSuccess"}, label="start") == {"ok": False}


async def test_a_run_that_suspends_itself_does_nothing_more(bench: Bench, trace: Trace) -> None:
    run_id = await bench.submit(b(1, "SuspendTaskBp"), b(2, "Note"))
    await bench.until(run_id, State.PAUSED)
    await asyncio.sleep(0.2)
    assert (await bench.row(run_id)).state == State.PAUSED
    assert trace.calls == []
    await bench.engine.resume(run_id)
    assert (await bench.engine.result(run_id, 60)).state == State.SUCCEEDED
    assert trace.calls == [("-1/2", None)]


# ---- sub-tasks --------------------------------------------------------------------------------------


async def child(bench: Bench, *blocks: Any, **extra: Any) -> None:
    await bench.engine.save(plan("child", *blocks, **extra), "child")


async def test_a_sub_task_gives_its_outputs(bench: Bench) -> None:
    await child(
        bench,
        b(1, "SetTaskVariableBp", {"varName": "y", "varValue": "=taskInputs.x * 2"}),
        inputs=[("x", "Long")],
        outputs={"y": "task.variables.y"},
    )
    run = b(1, "SubTask::child", {"x": "=taskInputs.x"})
    run_id = await bench.submit(run, inputs={"x": 21}, outputs={"b": "blocks.b1"}, priority=3)
    result = await bench.engine.result(run_id, 60)
    sub = child_id(run_id, "-1/1")
    assert result.outputs == {"b": {"y": 42, "taskRecordId": sub}}
    row = await bench.row(sub)
    assert (row.parent_id, row.parent_path, row.priority, row.depth) == (run_id, "-1/1", 3, 1)


async def test_a_parent_waits_out_of_memory_and_across_a_restart(open_bench: Open) -> None:
    async with open_bench(park_after_s=0.05) as bench:
        await child(bench, b(1, "WaitEventBp", {"eventName": "go"}), outputs={"data": "blocks.b1.data"})
        run_id = await bench.submit(b(1, "SubTask::child"), outputs={"data": "blocks.b1.data"})
        row = await bench.until(run_id, State.WAITING)
        assert "the sub-task child" in row.wait
    async with open_bench(park_after_s=0.05) as bench:
        await bench.waits_for("child", "event")
        await bench.engine.publish("go", {"n": 1})
        assert (await bench.engine.result(run_id, 60)).outputs == {"data": {"n": 1}}
        assert len((await bench.store.read(runs.page, runs.RunFilter(definition="child"))).items) == 1


async def test_an_async_sub_task_is_not_waited_for(bench: Bench) -> None:
    await child(bench, b(1, "WaitEventBp", {"eventName": "go"}))
    outputs = await bench.outputs(
        b(1, "SubTask::child", {"ifAsync": True, "taskRecordId": "mine"}),
        b(2, "GetTaskRecordBp", {"taskRecordId": "mine"}),
        outputs={"id": "blocks.b1.taskRecordId", "found": "blocks.b2.taskRecord.id"},
    )
    assert outputs["id"] == outputs["found"]
    await bench.until(outputs["id"], State.WAITING)
    await bench.engine.publish("go")
    assert (await bench.engine.result(outputs["id"], 60)).state == State.SUCCEEDED


async def test_a_failed_child_fails_the_block_with_its_error(bench: Bench) -> None:
    await child(bench, b(1, "ThrowExceptionBp", {"message": "no pallet left"}))
    result = await bench.run(b(1, "SubTask::child"))
    assert result.state == State.FAILED
    assert "sub-task child" in result.error
    assert "no pallet left" in result.error
    assert result.error_path == "-1/1"


async def test_a_canceled_child_fails_the_block(bench: Bench) -> None:
    await child(bench, b(1, "WaitEventBp", {"eventName": "never"}))
    run_id = await bench.submit(b(1, "SubTask::child"))
    await bench.waits_for("child", "event")
    await bench.engine.cancel(child_id(run_id, "-1/1"))
    result = await bench.engine.result(run_id, 60)
    assert result.state == State.FAILED
    assert "was canceled" in result.error


@pytest.mark.parametrize("parked", [True, False])
async def test_a_canceled_parent_cancels_the_child_it_waits_for(open_bench: Open, parked: bool) -> None:
    async with open_bench(park_after_s=0.05 if parked else 60) as bench:
        await child(bench, b(1, "WaitEventBp", {"eventName": "never"}))
        run_id = await bench.submit(b(1, "SubTask::child"))
        await bench.waits_for("child", "event")
        if parked:
            await bench.until(run_id, State.WAITING)
        await bench.engine.cancel(run_id)
        assert (await bench.engine.result(run_id, 60)).state == State.CANCELED
        assert (await bench.engine.result(child_id(run_id, "-1/1"), 60)).state == State.CANCELED
        assert await bench.waiters() == []


async def test_a_stopped_branch_cancels_the_child_it_waits_for(bench: Bench) -> None:
    await child(bench, b(1, "WaitEventBp", {"eventName": "never"}))
    waiting = b(2, "SerialFlowBp", default=[b(3, "SubTask::child")])
    stopping = b(4, "SerialFlowBp", default=[b(5, "WaitEventBp", {"eventName": "stop"}), b(6, "StopOtherBranch")])
    run_id = await bench.submit(b(1, "ParallelFlowBp", default=[waiting, stopping]))
    await bench.waits_for("child", "event", "event")
    await bench.engine.publish("stop")
    assert (await bench.engine.result(run_id, 60)).state == State.SUCCEEDED
    assert (await bench.engine.result(child_id(run_id, "-1/1/2/3"), 60)).state == State.CANCELED


@pytest.mark.parametrize("again", ["block", "run", "person"])
async def test_a_retry_goes_on_with_the_child_where_it_failed(bench: Bench, trace: Trace, again: str) -> None:
    tries: list[int] = []

    def fails_once() -> None:
        tries.append(1)
        if len(tries) == 1:
            raise ValueError("not yet")

    bench.engine.services.functions = {"flaky": fails_once}
    await child(bench, b(1, "Note", {"value": "once"}), b(2, "ScriptBp", {"functionName": "flaky"}))
    block = b(1, "SubTask::child")
    if again == "block":
        block["retry"] = {"maxAttempts": 2, "delayMs": 10}
    wish = {"retry": {"max_attempts": 2, "delay_s": 0.01}} if again == "run" else {}
    run_id = await bench.submit(block, **wish)
    if again == "person":
        assert "not yet" in (await bench.engine.result(run_id, 60)).error
        await bench.engine.retry(run_id)
    assert (await bench.engine.result(run_id, 60)).state == State.SUCCEEDED
    assert len(tries) == 2
    assert trace.calls == [("-1/1", "once")]
    assert len((await bench.store.read(runs.page, runs.RunFilter(definition="child"))).items) == 1


async def test_an_order_number_that_another_run_has_is_refused(bench: Bench) -> None:
    await child(bench, b(1, "DelayBp", {"timeMillis": 0}))
    other = await bench.engine.submit("child", {}, idempotency_key="PO-9")
    await bench.engine.result(other, 60)
    error = await bench.error(b(1, "SubTask::child", {"taskRecordId": "PO-9"}))
    assert f"order number 'PO-9' belongs to run {other}" in error
    assert (await bench.row(other)).state == State.SUCCEEDED


async def test_sub_tasks_in_loops_are_runs_of_their_own(bench: Bench) -> None:
    await child(bench, b(1, "DelayBp", {"timeMillis": 0}), inputs=[("i", "Long")], outputs={"i": "taskInputs.i"})
    body = [
        b(2, "SubTask::child", {"i": "=blocks.b1.index"}),
        b(3, "SetTaskVariableBp", {"varName": "sum", "varValue": "=task.variables.sum + blocks.b2.i"}),
    ]
    outputs = await bench.outputs(
        b(4, "SetTaskVariableBp", {"varName": "sum", "varValue": "=0"}),
        b(1, "RepeatNumBp", {"num": 5}, default=body),
        outputs={"sum": "task.variables.sum"},
    )
    assert outputs == {"sum": 10}
    assert len((await bench.store.read(runs.page, runs.RunFilter(definition="child"))).items) == 5


# ---- events -----------------------------------------------------------------------------------------


async def test_an_event_carries_its_data_to_all_who_wait(bench: Bench) -> None:
    wait = b(1, "WaitEventBp", {"eventName": "ready"})
    waiting = [await bench.submit(wait, outputs={"d": "blocks.b1.data"}, label="wait") for _ in range(3)]
    await bench.waits_for("event", "event", "event")
    await bench.outputs(b(1, "TriggerTaskEventBp", {"eventName": "ready", "eventData": '={"sku": 7}'}), label="tell")
    for run_id in waiting:
        assert (await bench.engine.result(run_id, 60)).outputs == {"d": {"sku": 7}}


async def test_an_event_without_data_wakes_as_well(bench: Bench) -> None:
    run_id = await bench.submit(b(1, "WaitEventBp", {"eventName": "ready"}), outputs={"d": "blocks.b1.data"})
    await bench.until(run_id, State.WAITING)
    await bench.outputs(b(1, "TriggerTaskEventBp", {"eventName": "ready"}), label="tell")
    assert (await bench.engine.result(run_id, 60)).outputs == {"d": None}


async def test_the_wait_for_an_event_may_end(bench: Bench) -> None:
    error = await bench.error(b(1, "WaitEventBp", {"eventName": "never", "timeoutMs": 200}))
    assert "the event never" in error
    assert await bench.waiters() == []


async def test_print_writes_to_the_log_of_the_run(bench: Bench) -> None:
    result = await bench.run(b(1, "PrintBp", {"message": "hello"}), b(2, "PrintBp", {"message": "=[1, 2]"}))
    lines = await bench.store.read(logs.page, result.id)
    assert {(line.path, line.level, line.message) for line in lines} == {
        ("-1/1", "info", "hello"),
        ("-1/2", "info", "[1,2]"),
    }
