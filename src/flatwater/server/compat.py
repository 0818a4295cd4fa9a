"""The compatibility edge: the calls, names and numbers of the known systems, over the same engine.

What is known of their shapes, and from where, is said in ``docs/reference/compatibility.md``. Numbers for states exist
only here. Unknown fields are ignored, as they are there.
"""

from __future__ import annotations

import contextlib
from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime
from typing import Any

import msgspec

from flatwater.errors import ConflictError, NotFoundError
from flatwater.server.problem import RequestError
from flatwater.server.route import Table
from flatwater.server.service import Service
from flatwater.server.type.base import MAX_ITEMS, Id, TraceHeaders
from flatwater.server.type.compat import (
    BlockRecord,
    BlockRecords,
    Chosen,
    Done,
    Envelope,
    Order,
    Ordered,
    Record,
    RecordId,
    RecordQuery,
    Records,
    Refused,
)
from flatwater.store import definition as definitions
from flatwater.store import ident
from flatwater.store import run as runs
from flatwater.store import step as steps
from flatwater.store.state import State
from flatwater.store.tx import Tx

table = Table("compatibility", enveloped=True)

RUN_CODES: dict[State, int] = {
    State.QUEUED: 1000,
    State.RUNNING: 1000,
    State.WAITING: 1000,
    State.CANCELED: 1001,
    State.PAUSED: 1002,
    State.SUCCEEDED: 1003,
    State.FAILED: 1004,
    State.NEEDS_OPERATOR: 1006,
}
BLOCK_CODES: dict[State, int] = {
    **RUN_CODES,
    State.QUEUED: 1005,
    State.SKIPPED: 1005,
    State.WAITING: 1007,
    State.NEEDS_OPERATOR: 1004,
}


@table.add("POST", "/api/set-order", errors=(404, 409))
async def set_order(service: Service, headers: TraceHeaders, body: Order) -> Envelope[Ordered]:
    """Start a run."""
    if body.out_order_no and body.task_record_id and body.out_order_no != body.task_record_id:
        raise RequestError(422, "invalid", "give outOrderNo or taskRecordId: a run has one name from outside")
    service.refuse_when_draining()
    key = body.task_record_id or body.out_order_no
    run_id = await service.engine.submit(
        await _definition_id(service, body),
        _inputs(body.input_params),
        priority=body.priority or 0,
        idempotency_key=key,
        trace=headers.carrier,
    )
    return Envelope(Ordered(body.task_record_id or run_id))


@table.add("POST", "/api/queryTaskRecord", errors=(404,))
async def query_records(service: Service, body: RecordQuery) -> Envelope[Records]:
    """A page of runs, newest first."""
    number = body.current_page or body.page_num or 1
    size = min(body.page_size, MAX_ITEMS)
    wanted = body.query_param
    named = wanted.task_record_id or body.task_record_id
    order_no = wanted.out_order_no or body.out_order_no
    if named:
        row = await _find(service, named)
        rows = [row] if row is not None and number == 1 else []
    else:
        chosen = runs.RunFilter(
            states=_states(wanted.status), label=wanted.task_label or None, out_order_no=order_no or None
        )
        rows = await service.store.read(_page, chosen, number, size)
    robots = await _robots(service)
    return Envelope(Records([_record(row, robots.get(row.id)) for row in rows], number, size))


@table.add("POST", "/api/queryBlocksByTaskId", errors=(404,))
async def query_blocks(service: Service, body: RecordId) -> Envelope[BlockRecords]:
    """The blocks of a run, the first 500 by path, and its state."""
    row = await _require(service, body.task_record_id)
    found = await service.store.read(steps.page, row.id, "", MAX_ITEMS)
    families = {step.type: _family(service, step.type) for step in found}
    blocks = [_block(step, families[step.type]) for step in found]
    return Envelope(BlockRecords(blocks, RUN_CODES[State(row.state)]))


@table.add("POST", "/api/stop-task", errors=(404, 409))
async def stop_task(service: Service, body: Chosen) -> Envelope[Done]:
    """Cancel runs."""
    return await _each(service, body.ids(), service.engine.cancel)


@table.add("POST", "/api/stop-all-task", errors=(404, 409))
async def stop_listed_tasks(service: Service, body: Chosen) -> Envelope[Done]:
    """Cancel the listed runs."""
    return await _each(service, body.ids(), service.engine.cancel)


@table.add("POST", "/api/suspend-task", errors=(404, 409))
async def suspend_task(service: Service, body: Chosen) -> Envelope[Done]:
    """Pause runs."""
    return await _each(service, body.ids(), service.engine.pause)


@table.add("POST", "/api/start-task", errors=(404, 409))
async def start_task(service: Service, body: Chosen) -> Envelope[Done]:
    """Go on with paused runs."""
    return await _each(service, body.ids(), service.engine.resume)


@table.add("GET", "/api/suspend-task/{task_id}/{task_record_id}", errors=(404, 409), changing=True)
async def suspend_one(service: Service, task_id: Id, task_record_id: Id) -> Envelope[Done]:
    """Pause a run; `task_id` is not looked at."""
    return await _each(service, [task_record_id], service.engine.pause)


@table.add("GET", "/api/start-task/{task_id}/{task_record_id}", errors=(404, 409), changing=True)
async def start_one(service: Service, task_id: Id, task_record_id: Id) -> Envelope[Done]:
    """Go on with a paused run; `task_id` is not looked at."""
    return await _each(service, [task_record_id], service.engine.resume)


# ---- from their terms to ours ----------------------------------------------------------------------------------------


async def _definition_id(service: Service, body: Order) -> str:
    if body.task_id:
        return body.task_id
    if not body.task_label:
        raise RequestError(422, "invalid", "taskId or taskLabel is needed", where="body")
    found = await service.store.read(definitions.page, "", 2, body.task_label)
    if len(found) > 1:
        hint = f"give taskId, e.g. {found[0].id}"
        raise RequestError(409, "conflict", f"several definitions are called {body.task_label!r}", hint=hint)
    return found[0].id if found else body.task_label


def _inputs(given: dict[str, Any] | str | None) -> dict[str, Any]:
    if isinstance(given, str):
        try:
            given = msgspec.json.decode(given) if given.strip() else {}
        except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
            raise RequestError(422, "invalid", f"this is no JSON: {error}", where="body: inputParams") from None
    if given is not None and not isinstance(given, dict):
        raise RequestError(422, "invalid", "an object is needed", where="body: inputParams")
    return given or {}


def _states(status: str | int | None) -> tuple[State, ...]:
    if status is None or status == "":
        return ()
    found = tuple(state for state, code in RUN_CODES.items() if str(code) == str(status))
    if not found:
        known = ", ".join(map(str, sorted(set(RUN_CODES.values()))))
        raise RequestError(
            422, "invalid", f"there is no status {status!r}", where="body: status", hint=f"known: {known}"
        )
    return found


async def _find(service: Service, task_record_id: str) -> runs.RunRow | None:
    """By our id, or by the name that the caller gave."""
    return await service.store.read(_by_any_name, task_record_id)


def _by_any_name(tx: Tx, name: str) -> runs.RunRow | None:
    if ident.is_id(name):
        with contextlib.suppress(NotFoundError):
            return runs.get(tx, name)
    run_id = runs.find(tx, name)
    return None if run_id is None else runs.get(tx, run_id)


def _page(tx: Tx, wanted: runs.RunFilter, number: int, size: int) -> list[runs.RunRow]:
    """Page ``number`` with inputs, in one snapshot: a walk over the pages before it."""
    cursor: str | None = None
    for _ in range(number - 1):
        cursor = runs.page(tx, wanted, cursor, size).next
        if cursor is None:
            return []
    return [runs.get(tx, row.id) for row in runs.page(tx, wanted, cursor, size).items]


async def _require(service: Service, task_record_id: str) -> runs.RunRow:
    row = await _find(service, task_record_id)
    if row is None:
        raise NotFoundError(f"no run {task_record_id!r}", where="taskRecordId")
    return row


async def _each(service: Service, ids: Sequence[str], act: Callable[[str], Awaitable[None]]) -> Envelope[Done]:
    """Act upon every run; a single one that refuses is an error, of several the list says which."""
    if not ids:
        raise RequestError(422, "invalid", "name the runs: taskRecordId, taskRecordIds or stopTaskList", where="body")
    if len(ids) == 1:
        await act((await _require(service, ids[0])).id)
        return Envelope(Done([ids[0]], []))
    done: list[str] = []
    refused: list[Refused] = []
    for task_record_id in ids[:MAX_ITEMS]:
        try:
            await act((await _require(service, task_record_id)).id)
            done.append(task_record_id)
        except (NotFoundError, ConflictError) as error:
            refused.append(Refused(task_record_id, error.message))
    return Envelope(Done(done, refused))


# ---- from our terms to theirs ----------------------------------------------------------------------------------------


def _date(at: float | None) -> str | None:
    """As ``2022-05-23T04:56:57.000+00:00``."""
    if at is None:
        return None
    return datetime.fromtimestamp(at, UTC).isoformat(timespec="milliseconds")


async def _robots(service: Service) -> dict[str, str]:
    driver = service.engine.services.driver
    found = await driver.robots() if driver is not None else []
    return {robot.run_id: robot.id for robot in found if robot.run_id is not None}


def _record(row: runs.RunRow, robot: str | None) -> Record:
    inputs = msgspec.json.decode(row.inputs) if row.inputs else {}
    params = [{"name": name, "defaultValue": value} for name, value in inputs.items()]
    took_s = None if row.started_at is None or row.ended_at is None else round(row.ended_at - row.started_at)
    return Record(
        id=row.id,
        def_id=row.definition_id,
        def_label=row.label,
        def_version=row.version,
        status=RUN_CODES[State(row.state)],
        priority=row.priority,
        out_order_no=row.out_order_no,
        input_params=msgspec.json.encode(params).decode(),
        agv_id=robot,
        created_on=_date(row.created_at),
        first_executor_time=_date(row.started_at),
        ended_on=_date(row.ended_at),
        executor_time=took_s,
        ended_reason=row.error,
        state_description=row.state_message,
    )


def _family(service: Service, kind: str) -> str:
    found = service.engine.registry.get(kind)
    return found.family if found is not None else ""


def _block(step: steps.Step, family: str) -> BlockRecord:
    return BlockRecord(
        block_name=step.type,
        block_label=family,
        status=BLOCK_CODES[State(step.state)],
        started_on=_date(step.started_at),
        ended_on=_date(step.ended_at),
        ended_reason=step.error,
        block_id=step.block_id,
        name=step.name,
        path=step.path,
    )
