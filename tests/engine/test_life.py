"""Runs that wait, leave memory, come back, are stopped, and survive."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest

from flatwater.engine.engine import Engine
from flatwater.errors import ConflictError, DefinitionError, InputError, NotFoundError
from flatwater.store import run as runs
from flatwater.store import step as steps
from flatwater.store import waiter as waiters
from flatwater.store.state import State
from flatwater.store.tx import Tx
from tests.engine.conftest import Open, Trace
from tests.engine.plan import b, plan


async def submit(engine: Engine, *blocks: Any, **extra: Any) -> str:
    wish = {key: extra.pop(key) for key in ("retry", "timeout_s", "delay_s", "priority") if key in extra}
    saved = await engine.save(plan("life", *blocks, **extra))
    return await engine.submit(saved.id, {}, **wish)


async def state_of(engine: Engine, run_id: str) -> str:
    return (await engine.store.read(runs.get, run_id)).state


async def until(engine: Engine, run_id: str, state: State, timeout_s: float = 60.0) -> None:
    async with asyncio.timeout(timeout_s):
        while await state_of(engine, run_id) != state:
            await asyncio.sleep(0.01)


async def test_a_waiting_run_leaves_memory_and_comes_back(open_engine: Open, trace: Trace) -> None:
    async with open_engine(park_after_s=0.05) as engine:
        run_id = await submit(
            engine, b(1, "Note"), b(2, "Await", {"event": "go"}), b(3, "Note", {"value": "=blocks.b2.data.x"})
        )
        await until(engine, run_id, State.WAITING)
        async with asyncio.timeout(60):  # the commit is seen a moment before the loop hears of it
            while engine.statistics().scheduler.active or engine.statistics().contexts.live:
                await asyncio.sleep(0.005)
        await engine.publish("go", {"x": 7})
        assert (await engine.result(run_id, 60)).state == State.SUCCEEDED
    assert trace.calls == [("-1/1", None), ("-1/3", 7)]


def _asked_to_pause(tx: Tx, run_id: str) -> None:
    """As a process leaves a parked run that was woken, claimed and asked to pause, when it ends at once."""
    update = "UPDATE run SET state = 'QUEUED', queue = 'ready', request = 'pause' WHERE id = ?"
    tx.connection.execute(update, (run_id,))


async def test_a_pause_found_at_the_claim_keeps_what_the_run_waits_for(open_engine: Open) -> None:
    async with open_engine(park_after_s=0.05) as engine:
        run_id = await submit(engine, b(1, "Await", {"event": "go"}))
        await until(engine, run_id, State.WAITING)
        before = (await engine.store.read(waiters.load, [run_id]))[run_id]
        await engine.store.writer.call(_asked_to_pause, run_id)
        engine.scheduler.ready()
        await until(engine, run_id, State.PAUSED)
        assert (await engine.store.read(waiters.load, [run_id]))[run_id] == before != []


async def test_an_event_wakes_a_run_that_is_still_in_memory(open_engine: Open) -> None:
    async with open_engine(park_after_s=600) as engine:
        run_id = await submit(engine, b(1, "Await", {"event": "go"}))
        async with asyncio.timeout(60):
            while not (await engine.publish("go")).delivered:
                assert engine.statistics().scheduler.active <= 1
                await asyncio.sleep(0.005)
        assert (await engine.result(run_id, 60)).state == State.SUCCEEDED
        assert engine.statistics().scheduler.parked == 0, "it had left memory"


async def test_a_grant_in_the_moment_of_parking_is_not_lost(open_engine: Open) -> None:
    async with open_engine(park_after_s=0.001) as engine:
        saved = await engine.save(plan("race", b(1, "Await", {"event": "go"}), inputs=[("i", "Long")]))
        ids = [await engine.submit(saved.id, {"i": i}) for i in range(50)]
        done = asyncio.gather(*(engine.result(run_id, 60) for run_id in ids))
        while not done.done():
            await engine.publish("go")
            await asyncio.sleep(0.002)
        assert {result.state for result in await done} == {State.SUCCEEDED}


async def test_a_wait_that_is_too_long_fails_the_block(open_engine: Open) -> None:
    async with open_engine(park_after_s=0.05) as engine:
        result = await engine.result(await submit(engine, b(1, "Await", {"event": "never", "timeout_s": 0.3})), 60)
    assert result.state == State.FAILED
    assert "the event never" in result.error


async def test_more_waiting_runs_than_places_in_memory(open_engine: Open) -> None:
    async with open_engine(max_active=5) as engine:
        saved = await engine.save(plan("many", b(1, "Await", {"event": "go"})))
        ids = [await engine.submit(saved.id) for _ in range(40)]
        quick = await engine.save(plan("quick", b(1, "Note")))
        assert (await engine.result(await engine.submit(quick.id), 60)).state == State.SUCCEEDED
        for run_id in ids:
            await until(engine, run_id, State.WAITING)
        assert engine.statistics().scheduler.active <= 5
        await engine.publish("go")
        results = await asyncio.gather(*(engine.result(run_id, 60) for run_id in ids))
    assert {result.state for result in results} == {State.SUCCEEDED}


async def test_a_restart_goes_on_without_repeating(open_engine: Open, trace: Trace) -> None:
    async with open_engine(park_after_s=0.05) as engine:
        run_id = await submit(
            engine,
            b(
                1,
                "RepeatNumBp",
                {"num": 3},
                default=[b(2, "Note", {"value": "=blocks.b1.index"}), b(3, "Await", {"event": "go"})],
            ),
            b(4, "Var", {"name": "done", "value": "=true"}),
            outputs={"done": "task.variables.done"},
        )
        for _ in range(2):
            await until(engine, run_id, State.WAITING)
            await engine.publish("go")
            await until(engine, run_id, State.WAITING)
    async with open_engine(park_after_s=0.05) as engine:
        await engine.publish("go")
        result = await engine.result(run_id, 60)
    assert result.outputs == {"done": True}
    assert [value for _, value in trace.calls if value != "done"] == [0, 1, 2]


async def test_cancel_ends_executing_waiting_and_queued_runs(open_engine: Open, trace: Trace) -> None:
    async with open_engine(max_active=2, park_after_s=0.05) as engine:
        executing = await submit(engine, b(1, "Gate"))
        waiting = await submit(engine, b(1, "Await", {"event": "never"}))
        delayed = await submit(engine, b(1, "Note"), delay_s=3600)
        await until(engine, waiting, State.WAITING)
        for run_id in (executing, waiting, delayed):
            await engine.cancel(run_id)
            assert (await engine.result(run_id, 60)).state == State.CANCELED
        with pytest.raises(ConflictError):
            await engine.cancel(executing)
        with pytest.raises(NotFoundError):
            await engine.cancel("01ARZ3NDEKTSV4RRFFQ69G5FAV")
    assert ("-1/1", "left") not in trace.calls


async def test_cancel_walks_the_catch_branch_when_asked_to(engine: Engine, trace: Trace) -> None:
    run_id = await submit(
        engine,
        b(1, "TryCatchBp", {"ignoreAbort": False}, try_=[b(2, "Gate")], catch=[b(3, "Note", {"value": "cleaned"})]),
    )
    await asyncio.sleep(0.1)
    await engine.cancel(run_id)
    assert (await engine.result(run_id, 60)).state == State.CANCELED
    assert trace.calls[-1] == ("-1/1/3", "cleaned")


async def test_pause_lets_blocks_end_and_resume_goes_on(engine: Engine, trace: Trace) -> None:
    run_id = await submit(engine, b(1, "Gate"), b(2, "Note"))
    await asyncio.sleep(0.1)
    pausing = asyncio.ensure_future(engine.pause(run_id))
    await asyncio.sleep(0.05)
    trace.gate.set()
    await pausing
    await until(engine, run_id, State.PAUSED)
    assert [call for call in trace.calls if call[0] == "-1/2"] == []
    await engine.resume(run_id)
    assert (await engine.result(run_id, 60)).state == State.SUCCEEDED
    assert trace.calls == [("-1/1", "entered"), ("-1/1", "left"), ("-1/2", None)]


async def test_retry_goes_on_from_the_failed_block(engine: Engine, trace: Trace) -> None:
    run_id = await submit(engine, b(1, "Note"), b(2, "Await", {"event": "go", "timeout_s": 0.05}))
    assert (await engine.result(run_id, 60)).state == State.FAILED
    await engine.retry(run_id)
    await asyncio.sleep(0.02)
    for _ in range(20):
        await engine.publish("go")
        await asyncio.sleep(0.01)
        if await state_of(engine, run_id) in ("SUCCEEDED", "FAILED"):
            break
    assert (await engine.result(run_id, 60)).state == State.SUCCEEDED
    assert [path for path, _ in trace.calls].count("-1/1") == 1


async def test_block_retries_back_off_and_survive_a_restart(open_engine: Open, trace: Trace) -> None:
    again = {"maxAttempts": 4, "delayMs": 200, "factor": 1, "jitter": 0}
    async with open_engine(park_after_s=0.05) as engine:
        run_id = await submit(engine, b(1, "Fail", {"times": 2}, retry=again), outputs={"n": "blocks.b1.attempt"})
        await until(engine, run_id, State.WAITING)
    async with open_engine() as engine:
        assert (await engine.result(run_id, 60)).outputs == {"n": 3}
    assert [attempt for _, attempt in trace.calls] == [1, 2, 3]


async def test_run_retries_are_due_times(engine: Engine, trace: Trace) -> None:
    retry = {"max_attempts": 3, "delay_s": 0.1, "factor": 1, "jitter": 0}
    started = time.time()
    run_id = await submit(engine, b(1, "Note"), b(2, "ThrowExceptionBp", {"message": "no"}), retry=retry)
    result = await engine.result(run_id, 60)
    assert result.state == State.FAILED
    assert (await engine.store.read(runs.get, run_id)).attempt == 3
    assert time.time() - started >= 0.2
    assert [path for path, _ in trace.calls].count("-1/1") == 1


async def test_timeouts_of_block_and_run(engine: Engine, trace: Trace) -> None:
    result = await engine.result(await submit(engine, b(1, "Gate", timeoutMs=50)), 60)
    assert (result.state, result.error_path) == (State.FAILED, "-1/1")
    assert "time-out of 0.05 s" in result.error
    result = await engine.result(await submit(engine, b(1, "Gate"), timeout_s=0.1), 60)
    assert (result.state, result.error) == (State.FAILED, "the run took longer than its time-out")


async def test_delay_is_a_due_time(engine: Engine) -> None:
    started = time.time()
    result = await engine.result(await submit(engine, b(1, "DelayBp", {"timeMillis": 1500})), 60)
    assert result.state == State.SUCCEEDED
    assert time.time() - started >= 1.5
    assert engine.statistics().scheduler.claimed >= 1


async def test_an_operator_decides_on_calls_of_unknown_end(open_engine: Open, trace: Trace) -> None:
    async with open_engine() as engine:
        first = await submit(engine, b(1, "Outside"), b(2, "Note"))
        second = await engine.submit("life")
        await asyncio.sleep(0.2)
    async with open_engine() as engine:
        for run_id in (first, second):
            await until(engine, run_id, State.NEEDS_OPERATOR)
        await engine.resume(first)
        assert (await engine.result(first, 60)).state == State.SUCCEEDED
        trace.gate.set()
        await engine.retry(second)
        assert (await engine.result(second, 60)).state == State.SUCCEEDED
    sent = [order for path, order in trace.calls if path == "-1/1"]
    assert len(set(sent)) == len(sent) == 3  # done again is another order


async def test_priority_decides_who_is_first(open_engine: Open, trace: Trace) -> None:
    async with open_engine(max_active=1) as engine:
        blocker = await submit(engine, b(1, "Gate"))
        saved = await engine.save(plan("prio", b(1, "Note", {"value": "=taskInputs.n"}), inputs=[("n", "Long")]))
        ids = [await engine.submit(saved.id, {"n": n}, priority=n) for n in (1, 3, 2)]
        trace.gate.set()
        for run_id in (blocker, *ids):
            await engine.result(run_id, 60)
    assert [value for path, value in trace.calls if path == "-1/1" and isinstance(value, int)] == [3, 2, 1]


async def test_an_idempotency_key_names_one_run(engine: Engine) -> None:
    saved = await engine.save(plan("once", b(1, "Note"), inputs=[("n", "Long")]))
    ids = {await engine.submit(saved.id, {"n": 1}, idempotency_key="A-1") for _ in range(3)}
    assert len(ids) == 1
    with pytest.raises(ConflictError):
        await engine.submit(saved.id, {"n": 2}, idempotency_key="A-1")


@pytest.mark.parametrize(
    "wish", [{"priority": 10**9}, {"delay_s": -1}, {"delay_s": float("nan")}, {"timeout_s": 0}, {"retry": {"tries": 1}}]
)
async def test_absurd_wishes_are_refused(engine: Engine, wish: dict[str, Any]) -> None:
    saved = await engine.save(plan("wish", b(1, "Note")))
    with pytest.raises(InputError):
        await engine.submit(saved.id, {}, **wish)


async def test_wrong_inputs_are_refused_with_their_paths(engine: Engine) -> None:
    saved = await engine.save(plan("typed", b(1, "Note"), inputs=[("n", "Long")]))
    with pytest.raises(DefinitionError, match="n"):
        await engine.submit(saved.id, {"n": "many"})


async def test_a_single_function_is_a_run(engine: Engine) -> None:
    result = await engine.result(await engine.submit_call("Double", {"number": 4}), 60)
    assert result.outputs == {"result": 8}


async def test_iterations_long_past_leave_the_store(open_engine: Open) -> None:
    async with open_engine(max_kept_iterations=5) as engine:
        run_id = await submit(engine, b(1, "RepeatNumBp", {"num": 50}, default=[b(2, "Note")]))
        assert (await engine.result(run_id, 60)).state == State.SUCCEEDED
        kept = (await engine.store.read(steps.load, [run_id]))[run_id]
    assert len([step for step in kept if step.block_id == 2]) <= 6


async def test_a_trigger_starts_runs_and_skips_while_one_is_open(engine: Engine, trace: Trace) -> None:
    saved = await engine.save(plan("tick", b(1, "Gate"), inputs=[("event", "JSONObject")]))
    await engine.triggers.save("every", saved.id, "interval", "0.1")
    async with asyncio.timeout(60):
        while not trace.calls:
            await asyncio.sleep(0.005)
        await asyncio.sleep(0.5)
        assert len(trace.calls) == 1
        trace.gate.set()
        while len(trace.calls) <= 2:
            await asyncio.sleep(0.005)


async def test_copies_find_their_own_outputs_after_a_restart(open_engine: Open, trace: Trace) -> None:
    copies = b(
        1, "ParallelRepeatNBp", {"num": 3},
        default=[
            b(2, "Note", {"value": "=blocks.b1.index"}),
            b(3, "Await", {"event": "go"}),
            b(4, "Note", {"value": "=blocks.b2.value"}),
        ],
    )  # fmt: skip
    async with open_engine(park_after_s=0.05) as engine:
        run_id = await submit(engine, copies)
        await until(engine, run_id, State.WAITING)
    async with open_engine(park_after_s=0.05) as engine:
        await engine.publish("go")
        assert (await engine.result(run_id, 60)).state == State.SUCCEEDED
    assert {path: value for path, value in trace.calls if path.endswith("/4")} == {
        f"-1/1[{index}]/4": index for index in range(3)
    }


async def test_a_flow_block_that_may_fail_begins_afresh(open_engine: Open, trace: Trace) -> None:
    again = {"maxAttempts": 3, "delayMs": 50, "factor": 1, "jitter": 0}
    step = b(2, "Var", {"name": "n", "value": "=task.variables.n + 1"})
    check = b(
        3, "IfBp", {"condition": "=task.variables.n < 3"}, default=[b(4, "ThrowExceptionBp", {"message": "not yet"})]
    )
    async with open_engine(park_after_s=0.01) as engine:
        run_id = await submit(
            engine,
            b(5, "Var", {"name": "n", "value": "=0"}),
            b(1, "SerialFlowBp", default=[step, check], retry=again),
            outputs={"n": "task.variables.n"},
        )
        result = await engine.result(run_id, 60)
        steps_ = {step.path: step for step in (await engine.store.read(steps.load, [run_id]))[run_id]}
    assert (result.state, result.outputs) == (State.SUCCEEDED, {"n": 3})
    assert steps_["-1/1"].attempt == 3


async def test_short_waits_get_on_however_many_queue_for_their_places(open_engine: Open) -> None:
    """Each pass by memory must end a wait that is over, or runs would come and go for ever."""
    async with open_engine(max_active=3, park_after_s=5) as engine:
        saved = await engine.save(
            plan("short", b(1, "DelayBp", {"timeMillis": 30}), b(2, "DelayBp", {"timeMillis": 30}))
        )
        ids = [await engine.submit(saved.id) for _ in range(60)]
        results = await asyncio.gather(*(engine.result(run_id, 60) for run_id in ids))
        assert {result.state for result in results} == {State.SUCCEEDED}
        assert engine.statistics().scheduler.claimed < 1_000


async def test_a_deadline_ends_a_wait_however_many_queue_for_its_place(open_engine: Open) -> None:
    async with open_engine(max_active=2) as engine:
        saved = await engine.save(plan("late", b(1, "Await", {"event": "never"}, timeoutMs=200)))
        ids = [await engine.submit(saved.id) for _ in range(20)]
        results = await asyncio.gather(*(engine.result(run_id, 60) for run_id in ids))
        assert {result.state for result in results} == {State.FAILED}
        assert engine.statistics().scheduler.claimed < 500


@pytest.mark.parametrize("turns", range(6))
async def test_a_cancel_in_the_first_moments_ends_the_run(engine: Engine, turns: int) -> None:
    """The task that advances a run may be canceled before its first step."""
    run_id = await submit(engine, b(1, "Gate"))
    while (activation := engine.scheduler.active.get(run_id)) is None:
        await asyncio.sleep(0)
    for _ in range(turns):
        await asyncio.sleep(0)
    activation.stop("cancel", at_once=True)
    assert (await engine.result(run_id, 60)).state == State.CANCELED
    assert run_id not in engine.scheduler.active
