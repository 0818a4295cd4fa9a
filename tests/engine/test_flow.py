"""The Flow family, run for real."""

from __future__ import annotations

from typing import Any

import pytest

from flatwater.engine.engine import Engine
from flatwater.store.state import State
from tests.engine.conftest import Open, Trace
from tests.engine.plan import b, plan


async def run(engine: Engine, *blocks: Any, inputs: dict[str, Any] | None = None, **extra: Any) -> Any:
    declared = [(name, "JSONObject") for name in inputs or {}]
    saved = await engine.save(plan("flow", *blocks, inputs=extra.pop("declared", declared), **extra))
    return await engine.result(await engine.submit(saved.id, inputs), 60)


async def test_serial_blocks_see_inputs_and_outputs_of_those_before(engine: Engine, trace: Trace) -> None:
    result = await run(
        engine,
        b(1, "Note", {"value": "=taskInputs.x"}),
        b(2, "Note", {"value": "=blocks.b1.value + 1"}),
        inputs={"x": 41},
        declared=[("x", "Long")],
        outputs={"y": "blocks.b2.value"},
    )
    assert (result.state, result.outputs) == (State.SUCCEEDED, {"y": 42})
    assert trace.calls == [("-1/1", 41), ("-1/2", 42)]


@pytest.mark.parametrize(("x", "taken"), [(1, "if"), (2, "else_if"), (3, "else")])
async def test_if_else_if_takes_one_branch(engine: Engine, trace: Trace, x: int, taken: str) -> None:
    result = await run(
        engine,
        b(
            1, "IfElseIfBp", {"conditionIf": "=taskInputs.x == 1", "conditionElseIf": "=taskInputs.x == 2"},
            if_=[b(2, "Note", {"value": "if"})],
            else_if=[b(3, "Note", {"value": "else_if"})],
            else_=[b(4, "Note", {"value": "else"})],
        ),
        inputs={"x": x},
        declared=[("x", "Long")],
    )  # fmt: skip
    assert result.state == State.SUCCEEDED
    assert [value for _, value in trace.calls] == [taken]


async def test_loops_nest_and_break_ends_the_inner_one(engine: Engine, trace: Trace) -> None:
    await run(
        engine,
        b(
            1, "RepeatNumBp", {"num": 2},
            default=[
                b(
                    2, "IterateListBp", {"list": "=['a', 'b', 'c']"},
                    default=[
                        b(3, "IfBp", {"condition": "=blocks.b2.item == 'c'"}, default=[b(4, "BreakBp")]),
                        b(5, "Note", {"value": "=string(blocks.b1.index) + blocks.b2.item"}),
                    ],
                )
            ],
        ),
    )  # fmt: skip
    assert [value for _, value in trace.calls] == ["0a", "0b", "1a", "1b"]
    assert trace.calls[-1][0] == "-1/1[1]/2[1]/5"


async def test_while_reads_a_variable_that_its_body_sets(engine: Engine, trace: Trace) -> None:
    result = await run(
        engine,
        b(1, "Var", {"name": "n", "value": "=0"}),
        b(
            2, "WhileBp", {"loopCondition": "=task.variables.n < 3", "retryPeriod": 1},
            default=[b(3, "Var", {"name": "n", "value": "=task.variables.n + 1"})],
        ),
        outputs={"n": "task.variables.n"},
    )  # fmt: skip
    assert (result.state, result.outputs) == (State.SUCCEEDED, {"n": 3})


async def test_return_ends_the_run_from_within(engine: Engine, trace: Trace) -> None:
    result = await run(
        engine,
        b(1, "ParallelFlowBp", default=[b(2, "SerialFlowBp", default=[b(3, "ReturnBp")]), b(4, "Gate")]),
        b(5, "Note"),
    )
    assert result.state == State.SUCCEEDED
    assert not [call for call in trace.calls if call[0] == "-1/5"]


async def test_a_failure_names_block_and_cause_and_stops_siblings(engine: Engine, trace: Trace) -> None:
    result = await run(engine, b(1, "ParallelFlowBp", default=[b(2, "Fail", {"message": "no oil"}), b(3, "Gate")]))
    assert (result.state, result.error, result.error_path) == (State.FAILED, "ValueError: no oil", "-1/1/2")
    assert ("-1/1/3", "left") not in trace.calls


@pytest.mark.parametrize(("swallow", "state"), [(True, State.SUCCEEDED), (False, State.FAILED)])
async def test_try_catch(engine: Engine, trace: Trace, swallow: bool, state: State) -> None:
    result = await run(
        engine,
        b(
            1, "TryCatchBp", {"swallowError": swallow},
            try_=[b(2, "Fail", {"message": "dropped"})],
            catch=[b(3, "Note", {"value": "=blocks.b1.error"})],
        ),
    )  # fmt: skip
    assert result.state == state
    assert trace.calls[-1] == ("-1/1/3", "ValueError: dropped")


async def test_throw_fails_with_its_message(engine: Engine) -> None:
    result = await run(engine, b(1, "ThrowExceptionBp", {"message": "stop here"}))
    assert result.state == State.FAILED
    assert "stop here" in result.error


async def test_stop_other_branch_ends_the_siblings_and_goes_on(engine: Engine, trace: Trace) -> None:
    result = await run(
        engine,
        b(
            1, "ParallelFlowBp",
            default=[
                b(2, "Gate"),
                b(3, "SerialFlowBp", default=[b(4, "StopOtherBranch"), b(5, "Note", {"value": "on"})]),
            ],
        ),
    )  # fmt: skip
    assert result.state == State.SUCCEEDED
    assert trace.calls[-1] == ("-1/1/3/5", "on")


async def test_parallel_limit_counts_branches_that_execute(open_engine: Open, trace: Trace) -> None:
    async with open_engine(max_parallel=3) as engine:
        result = await run(engine, b(1, "ParallelRepeatNBp", {"num": 12}, default=[b(2, "Work", {"seconds": 0.02})]))
    assert result.state == State.SUCCEEDED
    assert trace.peak == 3


@pytest.mark.parametrize("max_parallel", [1, 10])
@pytest.mark.parametrize("wait", ["WhileBp", "Await"])
async def test_branch_eleven_frees_the_ten_that_wait_for_it(open_engine: Open, max_parallel: int, wait: str) -> None:
    """Batches and semaphores deadlock here (S1.7)."""

    def waiter(i: int) -> Any:
        if wait == "WhileBp":
            return b(
                i,
                "WhileBp",
                {"loopCondition": "=task.variables.go != true", "retryPeriod": 5},
                default=[b(100 + i, "Note")],
            )
        return b(i, "Await", {"event": "never", "timeout_s": 0.3}, name=f"w{i}")

    last = b(50, "SerialFlowBp", default=[b(51, "Note"), b(52, "Var", {"name": "go", "value": "=true"})])
    async with open_engine(max_parallel=max_parallel) as engine:
        blocks = [waiter(i) for i in range(2, 12)]
        result = await run(engine, b(1, "ParallelFlowBp", default=[*blocks, last]))
    assert result.state == (State.SUCCEEDED if wait == "WhileBp" else State.FAILED)


async def test_plain_functions_run_in_threads(engine: Engine) -> None:
    result = await run(engine, b(1, "Double", {"number": 21}), outputs={"y": "blocks.b1.result"})
    assert result.outputs == {"y": 42}


async def test_a_disabled_block_is_skipped(engine: Engine, trace: Trace) -> None:
    result = await run(engine, b(1, "Note", disabled=True), b(2, "Note"))
    assert result.state == State.SUCCEEDED
    assert [path for path, _ in trace.calls] == ["-1/2"]


async def test_each_copy_of_a_parallel_repeat_reads_its_own_outputs(engine: Engine, trace: Trace) -> None:
    result = await run(
        engine,
        b(
            1, "ParallelRepeatNBp", {"num": 5},
            default=[
                b(2, "Note", {"value": "=blocks.b1.index"}),
                b(3, "Work", {"seconds": "=0.01 * (5 - blocks.b1.index)"}),
                b(4, "Note", {"value": "=blocks.b2.value"}),
            ],
        ),
        outputs={"last": "blocks.b2.value"},
    )  # fmt: skip
    assert result.outputs == {"last": 4}
    read = {path: value for path, value in trace.calls if path.endswith("/4")}
    assert read == {f"-1/1[{index}]/4": index for index in range(5)}
