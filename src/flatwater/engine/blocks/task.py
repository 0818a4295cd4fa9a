"""The task family: the run itself, other runs, and the events between them."""

from __future__ import annotations

from time import time
from typing import Annotated, Any, Final

import msgspec
from msgspec import Meta, Struct

from flatwater.engine.block import SUB_TASK, BlockCall, block
from flatwater.engine.catalogue import Millis
from flatwater.errors import ConflictError, InputError, NotFoundError, RunError
from flatwater.store import run as runs
from flatwater.store import variable as variables
from flatwater.store import waiter as waiters
from flatwater.store.ident import child_id
from flatwater.store.run import RunRow
from flatwater.store.state import ENDED, State
from flatwater.store.tx import Tx

MAX_NAME: Final = 200
GOING: Final = frozenset({State.QUEUED, State.RUNNING, State.WAITING})

RunId = Annotated[str, Meta(min_length=1, description="a run's id, or the order number it was given")]
OwnRunId = Annotated[str | None, Meta(description="a run's id or order number; not given: this run")]
Name = Annotated[str, Meta(min_length=1, max_length=MAX_NAME)]


class Started(Struct, rename="camel"):
    start_success: bool


class Suspended(Struct, rename="camel"):
    suspend_success: bool


class Halted(Struct, rename="camel"):
    stop_success: bool


class Received(Struct):
    data: Any


class TaskRecord(Struct, rename="camel"):
    """A run as definitions see it; times in seconds since the epoch."""

    id: str
    task_record_id: str
    def_id: str
    def_label: str
    version: int
    status: str
    priority: int
    created_on: float
    started_on: float | None
    ended_on: float | None
    out_order_no: str | None
    state_msg: str | None
    error: str | None
    inputs: Any
    outputs: Any
    response: Any
    variables: dict[str, Any]
    parent_task_record_id: str | None


class Recorded(Struct, rename="camel"):
    task_record: TaskRecord


# ---- the run itself ---------------------------------------------------------------------------------


@block("TaskStateBp", family="task", camel=True)
async def task_state(
    state_msg: Annotated[str | None, Meta(description="the text that the run shows about itself")] = None,
    *,
    call: BlockCall,
) -> None:
    """Says how the run stands, for people."""
    call.set_run(state_message=state_msg)


@block("SetTaskVariableBp", family="task", camel=True)
async def set_task_variable(
    var_name: Annotated[Name, Meta(description="read as task.variables.<varName>")],
    var_value: Annotated[Any, Meta(description="any JSON value")] = None,
    *,
    call: BlockCall,
) -> None:
    """Sets one task variable."""
    call.set_variable(var_name, var_value)


@block("SetTaskVariablesBp", family="task", camel=True)
async def set_task_variables(
    variables: Annotated[dict[str, Any] | None, Meta(description="names and values")] = None,
    *,
    call: BlockCall,
    **extra: Any,
) -> None:
    """Sets several task variables: those of variables, and every further parameter under its own name."""
    for name, value in {**(variables or {}), **extra}.items():
        if not 1 <= len(name) <= MAX_NAME:
            raise InputError(f"a variable's name has 1 to {MAX_NAME} characters, not {len(name)}", where=call.path)
        call.set_variable(name, value)


@block("SetOutOrderNoBp", family="task", camel=True)
async def set_out_order_no(
    order_no: Annotated[Name, Meta(description="no other run may have it")], *, call: BlockCall
) -> None:
    """Gives the run an order number of the outside, by which it can be found. Fails when another run has it."""
    await call.transact(runs.set_out_order_no, call.run_id, call.epoch, order_no)


@block("SetResponseBp", family="task", camel=True)
async def set_response(
    body: Annotated[Any, Meta(description="any JSON value")] = None,
    code: Annotated[int, Meta(ge=0, le=999_999, description="what the caller takes as the result")] = 200,
    *,
    call: BlockCall,
) -> None:
    """Sets what the run answers to whoever submitted it."""
    call.set_run(response={"code": code, "body": body})


@block("GetTaskRecordBp", family="task", camel=True)
async def get_task_record(task_record_id: OwnRunId = None, *, call: BlockCall) -> Recorded:
    """Gives a run's record as it stands in the store."""
    return Recorded(await call.services.store.read(record, task_record_id or call.run_id))


def record(tx: Tx, name: str) -> TaskRecord:
    """Raises `NotFoundError`."""
    row = find(tx, name)
    values = variables.load(tx, [row.id])[row.id]
    return TaskRecord(
        id=row.id,
        task_record_id=row.id,
        def_id=row.definition_id,
        def_label=row.label,
        version=row.version,
        status=row.state,
        priority=row.priority,
        created_on=row.created_at,
        started_on=row.started_at,
        ended_on=row.ended_at,
        out_order_no=row.out_order_no,
        state_msg=row.state_message,
        error=row.error,
        inputs=_json(row.inputs),
        outputs=_json(row.outputs),
        response=_json(row.response),
        variables={name: _json(each.value) for name, each in values.items()},
        parent_task_record_id=row.parent_id,
    )


def find(tx: Tx, name: str) -> RunRow:
    """The run with this id, else with this order number. Raises `NotFoundError`."""
    try:
        return runs.get(tx, name)
    except NotFoundError:
        other = runs.find(tx, name)
        if other is None:
            raise NotFoundError(f"run {name!r}", hint="neither an id nor an order number of a run") from None
        return runs.get(tx, other)


def _json(text: str | None) -> Any:
    return None if text is None else msgspec.json.decode(text)


# ---- other runs -------------------------------------------------------------------------------------


@block("StartTaskBp", family="task", camel=True)
async def start_task(task_record_id: RunId, *, call: BlockCall) -> Started:
    """Resumes a paused run; false when it has ended, or when a person must decide first."""
    row = await call.services.store.read(find, task_record_id)
    if row.state == State.PAUSED or row.request == "pause":
        try:
            await call.services.runs.resume(row.id)
        except ConflictError as error:  # it ended, or somebody else has resumed it
            call.log(str(error), "warning")
        row = await call.services.store.read(find, row.id)
    return Started(start_success=row.state in GOING)


@block("SuspendTaskBp", family="task", camel=True)
async def suspend_task(task_record_id: OwnRunId = None, *, call: BlockCall) -> Suspended:
    """Pauses a run once the blocks that it is executing have ended; false when it has ended.

    Without an id the run pauses itself, after this block. Another's pause is not waited for: two may pause each other.
    """
    row = await call.services.store.read(find, task_record_id or call.run_id)
    try:
        await call.transact(runs.request, row.id, "pause", time())
    except ConflictError:
        return Suspended(suspend_success=False)
    if row.id == call.run_id:
        call.pause()
    return Suspended(suspend_success=True)


@block("StopTaskBp", family="task", camel=True)
async def stop_task(task_record_id: RunId, *, call: BlockCall) -> Halted:
    """Cancels a run, with what it has locked; false when it had ended otherwise before."""
    row = await call.services.store.read(find, task_record_id)
    if row.state not in ENDED:
        try:
            await call.services.runs.cancel(row.id)
            return Halted(stop_success=True)
        except ConflictError:
            row = await call.services.store.read(find, row.id)
    return Halted(stop_success=row.state == State.CANCELED)


@block(SUB_TASK, family="flow", recovery="reattach", outputs=dict[str, Any], camel=True)
async def sub_task(
    if_async: Annotated[bool, Meta(description="do not wait for its end; gives taskRecordId")] = False,
    task_record_id: Annotated[str | None, Meta(description="an order number for the new run, to find it by")] = None,
    *,
    call: BlockCall,
    **extra: Any,
) -> dict[str, Any]:
    """Runs another definition; parameters it does not name are that one's inputs. Gives its outputs and taskRecordId.

    Fails when that run fails or is canceled. Its id follows from this run and this block, so a replay starts nothing
    twice; a retry goes on with that run from the block that failed.
    """
    definition = call.sub_task
    if definition is None:
        raise InputError("the block does not say which definition to start", where=call.path, hint="SubTask::<id>")
    if if_async:
        return {"taskRecordId": await _submit(call, definition, task_record_id, extra)}
    child, ended = await _child_end(call, definition, task_record_id, extra)
    if ended["state"] != State.SUCCEEDED:
        what = "was canceled" if ended["state"] == State.CANCELED else f"failed: {ended['error']}"
        raise RunError(f"sub-task {definition} ({child}) {what}", where=call.path)
    return {"taskRecordId": child, **(ended["outputs"] or {})}


async def _child_end(
    call: BlockCall, definition: str, order_no: str | None, inputs: dict[str, Any]
) -> tuple[str, dict[str, Any]]:
    """The child's id and how it ended. A block that is stopped while it waits takes the child with it."""
    known = call.waited()
    if known is None:
        expected = child_id(call.run_id, call.path)
        known = call.expect("child", expected, reason=f"the sub-task {definition} ({expected})")
        started = await _submit(call, definition, order_no, inputs)
        if started != expected:
            hint = "only a run that this block has started tells it of its end; use another number, or ifAsync"
            raise ConflictError(f"order number {order_no!r} belongs to run {started}", where=call.path, hint=hint)
        granted = await call.transact(waiters.add, known.row(call.run_id, call.rank))  # it may have ended already
        if granted is not None:
            known.granted = msgspec.json.decode(granted)
    child = str(known.key)
    return child, await call.wait("child", child, reason=known.reason, insert=False)


async def _submit(call: BlockCall, definition: str, order_no: str | None, inputs: dict[str, Any]) -> str:
    """Start the child, or find the one that this block has started; one that has failed goes on where it failed."""
    others = call.services.runs
    child: str = await others.submit(definition, inputs, priority=call.priority, idempotency_key=order_no, parent=call)
    if call.retried:
        states = await call.services.store.read(runs.states, [child])
        if states.get(child) in (State.FAILED, State.CANCELED):
            await others.retry(child)
    return child


# ---- events -----------------------------------------------------------------------------------------


@block("TriggerTaskEventBp", family="task", camel=True)
async def trigger_task_event(
    event_name: Annotated[Name, Meta(description="who waits for this name hears of it")],
    event_data: Annotated[Any, Meta(description="any JSON value")] = None,
    *,
    call: BlockCall,
) -> None:
    """Publishes an event: to the blocks that wait for it, and to triggers that start runs."""
    await call.services.runs.publish(event_name, event_data)


@block("WaitEventBp", family="task", camel=True)
async def wait_event(
    event_name: Annotated[Name, Meta(description="the event's name")],
    timeout_ms: Annotated[Millis | None, Meta(description="milliseconds to wait; not given: for ever")] = None,
    *,
    call: BlockCall,
) -> Received:
    """Waits for the next event of this name and gives its data. Fails when the time is over."""
    limit_s = None if timeout_ms is None else timeout_ms / 1000
    return Received(await call.wait("event", event_name, reason=f"the event {event_name}", timeout_s=limit_s))
