"""Runs: submit, list, look into, steer."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from typing import Any

import msgspec

from flatwater.engine.definition import Node as FlowNode
from flatwater.errors import FlatwaterError, NotFoundError
from flatwater.server.problem import RequestError
from flatwater.server.route import Reply, Table
from flatwater.server.service import Service
from flatwater.server.type.base import MAX_ITEMS, SHOWN_IN_LIST_BYTES, Id, Page, Paging, number, page_of, shown
from flatwater.server.type.run import (
    Blocks,
    LogLine,
    Node,
    Run,
    RunDetail,
    RunQuery,
    Step,
    StepQuery,
    Submission,
    SubmissionHeaders,
    Submitted,
    Wait,
)
from flatwater.store import log as logs
from flatwater.store import run as runs
from flatwater.store import step as steps
from flatwater.store import variable as variables
from flatwater.store import waiter as waiters
from flatwater.store.robot_waiter import ROBOT, SELECT
from flatwater.store.state import ENDED, State
from flatwater.store.tx import Tx

STEPS_AT_ONCE = 20
MAX_PLACES = 20
"""Waits of one run whose place in the queue is looked up."""

table = Table("runs")


@table.add("POST", "/api/runs", status=201, also=(200,), errors=(404, 409))
async def submit_run(service: Service, headers: SubmissionHeaders, body: Submission) -> Reply[Submitted]:
    """Start a run of a definition; it is durable when this answers.

    A second submission with the same idempotency key (in the body or the header) is answered 200 with the first run.
    """
    if body.idempotency_key and headers.idempotency_key and body.idempotency_key != headers.idempotency_key:
        raise RequestError(422, "invalid", "the header and the body have different keys", where="idempotency_key")
    if body.due_at is not None and body.delay_s:
        raise RequestError(422, "invalid", "due_at and delay_s exclude each other", where="body: delay_s")
    service.refuse_when_draining()
    accepted = await service.engine.accept(
        body.definition,
        body.inputs,
        priority=body.priority,
        delay_s=body.delay_s,
        due_at=body.due_at,
        idempotency_key=body.idempotency_key or headers.idempotency_key,
        retry=msgspec.to_builtins(body.retry) if body.retry else None,
        timeout_s=body.timeout_s,
        trace=headers.carrier,
    )
    states = await service.store.read(runs.states, [accepted.id])
    state = str(states.get(accepted.id, State.QUEUED))
    return Reply(Submitted(accepted.id, state), 201 if accepted.created else 200)


@table.add("GET", "/api/runs")
async def list_runs(service: Service, query: RunQuery) -> Page[Run]:
    """The runs, newest first. `after` and `before` bound the time of their submission."""
    wanted = runs.RunFilter(
        states=tuple(State(state) for state in query.state),
        definition=query.definition,
        label=query.label,
        parent=query.parent,
        out_order_no=query.out_order_no,
        since=query.after,
        until=query.before,
    )
    page = await service.store.read(runs.page, wanted, query.cursor, query.limit)
    return Page([Run(**_facts(row)) for row in page.items], page.next)


@table.add("GET", "/api/runs/{run_id}", errors=(404,))
async def get_run(service: Service, run_id: Id) -> RunDetail:
    """One run with its values, and what it waits for."""
    row = await service.store.read(runs.get, run_id)
    values = (await service.store.read(variables.load, [run_id])).get(run_id, {})
    facts = _facts(row)
    if row.state not in ENDED:
        facts["wait"] = await _waits(service, run_id) or facts["wait"]
    return RunDetail(
        **facts,
        inputs=shown(row.inputs),
        outputs=shown(row.outputs),
        response=shown(row.response),
        variables={name: shown(variable.value) for name, variable in values.items()},
    )


@table.add("GET", "/api/runs/{run_id}/blocks", errors=(404,))
async def list_steps(service: Service, run_id: Id, query: StepQuery) -> Blocks:
    """The steps of a run, in order of their paths, and on the first page the tree of its definition.

    The first page ends with the blocks that execute in this process and are not stored yet.

    Outputs of more than 4 KiB are shown as `{"truncated": characters}`.
    """
    row = await service.store.read(runs.get, run_id)
    tree = await _tree(service, row.hash) if query.cursor is None else None
    waits = {wait.path: wait for wait in await _waits(service, run_id)}
    found = await service.store.read(_steps, run_id, query.cursor or "", query.limit, waits)
    following = found[-1].path if len(found) == query.limit else None
    return Blocks(tree, _with_executing(service, run_id, found, waits, query.cursor is None), following)


@table.add("GET", "/api/runs/{run_id}/log", errors=(404,))
async def list_log(service: Service, run_id: Id, query: Paging) -> Page[LogLine]:
    """What the blocks of a run logged, oldest first."""
    await service.store.read(runs.get, run_id)
    found = await service.store.read(logs.page, run_id, number(query.cursor) or 0, query.limit + 1)
    return page_of(found, query.limit, _line, lambda line: line.id)


@table.add("POST", "/api/runs/{run_id}/cancel", errors=(404, 409))
async def cancel_run(service: Service, run_id: Id) -> Run:
    """End a run as CANCELED, wherever it is."""
    await service.engine.cancel(run_id)
    return await _run(service, run_id)


@table.add("POST", "/api/runs/{run_id}/pause", errors=(404, 409))
async def pause_run(service: Service, run_id: Id) -> Run:
    """Let blocks that execute end, then hold the run."""
    await service.engine.pause(run_id)
    return await _run(service, run_id)


@table.add("POST", "/api/runs/{run_id}/resume", errors=(404, 409))
async def resume_run(service: Service, run_id: Id) -> Run:
    """Go on with a paused run; with one that needs an operator, after the block in question, which did happen."""
    await service.engine.resume(run_id)
    return await _run(service, run_id)


@table.add("POST", "/api/runs/{run_id}/retry", errors=(404, 409))
async def retry_run(service: Service, run_id: Id) -> Run:
    """Go on with a failed or canceled run at the block that failed; what succeeded is not done again."""
    await service.engine.retry(run_id)
    return await _run(service, run_id)


def _line(line: logs.LogLine) -> LogLine:
    return LogLine(line.at, line.level, line.path, line.message)


async def _run(service: Service, run_id: str) -> Run:
    return Run(**_facts(await service.store.read(runs.get, run_id)))


def _facts(row: runs.RunRow | runs.RunSummary) -> dict[str, Any]:
    return {
        "id": row.id,
        "definition": row.definition_id,
        "label": row.label,
        "version": row.version,
        "state": str(row.state),
        "priority": row.priority,
        "due_at": row.due_at,
        "created_at": row.created_at,
        "started_at": row.started_at,
        "ended_at": row.ended_at,
        "attempt": row.attempt,
        "error": row.error,
        "error_path": row.error_path,
        "parent_id": row.parent_id,
        "out_order_no": row.out_order_no,
        "state_message": row.state_message,
        "wait": msgspec.json.decode(row.wait, type=list[Wait]) if row.wait else None,
    }


async def _waits(service: Service, run_id: str) -> list[Wait]:
    """What the blocks of a run wait for, the first of them with their place in the queue."""
    waiting = (await service.store.read(waiters.load, [run_id])).get(run_id, [])
    found: list[Wait] = []
    for index, row in enumerate(waiting[:MAX_ITEMS]):
        queues = row.kind == "site" or (row.kind, row.key) == (ROBOT, SELECT)
        queued = queues and index < MAX_PLACES and row.granted is None
        place = await service.store.read(_place, run_id, row.path) if queued else None
        found.append(Wait(row.path, row.kind, row.reason or row.kind, row.since, place))
    return found


def _place(tx: Tx, run_id: str, path: str) -> int | None:
    with contextlib.suppress(NotFoundError):  # it was granted meanwhile
        return waiters.place(tx, run_id, path)
    return None


async def _tree(service: Service, digest: str) -> Node | None:
    try:
        return _node((await service.engine.library.flow(digest)).root)
    except FlatwaterError:
        return None  # a kind of block that is no longer registered: the steps still tell what happened


def _node(node: FlowNode) -> Node:
    children = {name: [_node(child) for child in branch] for name, branch in node.branches.items()}
    return Node(node.id, node.name, node.type, children)


def _steps(tx: Tx, run_id: str, after: str, limit: int, waits: Mapping[str, Wait]) -> list[Step]:
    """Read in small parts, each reduced before the next: outputs may be megabytes, of which little is shown."""
    found: list[Step] = []
    while len(found) < limit:
        count = min(STEPS_AT_ONCE, limit - len(found))
        part = steps.page(tx, run_id, after, count)
        found += [_step(step, waits.get(step.path)) for step in part]
        if len(part) < count:
            break
        after = part[-1].path
    return found


def _with_executing(
    service: Service, run_id: str, found: list[Step], waits: Mapping[str, Wait], first: bool
) -> list[Step]:
    """Show the blocks that execute here: one without outside effect, or tried again, is recorded at its end only."""
    under_way = dict(service.engine.executing(run_id))
    shown_steps: list[Step] = []
    for step in found:
        node, began_at = under_way.pop(step.path, (None, 0.0))
        again = node is not None and step.state != State.RUNNING and step.wait is None
        shown_steps.append(_begun(node, step.path, began_at, waits, step.attempt + 1) if node and again else step)
    if first:
        shown_steps += [_begun(node, path, began_at, waits) for path, (node, began_at) in under_way.items()]
    return shown_steps


def _begun(node: FlowNode, path: str, began_at: float, waits: Mapping[str, Wait], attempt: int = 1) -> Step:
    row = steps.Step(
        path, node.id, node.name, node.type, State.RUNNING, attempt, began_at, None, None, None, None, None
    )
    return _step(row, waits.get(path))


def _step(step: steps.Step, wait: Wait | None) -> Step:
    return Step(
        path=step.path,
        block_id=step.block_id,
        name=step.name,
        type=step.type,
        state=str(State.WAITING if wait is not None and step.state == State.RUNNING else step.state),
        attempt=step.attempt,
        started_at=step.started_at,
        ended_at=step.ended_at,
        outputs=shown(step.outputs, SHOWN_IN_LIST_BYTES),
        error=step.error,
        progress=shown(step.progress, SHOWN_IN_LIST_BYTES),
        wait=wait,
    )
