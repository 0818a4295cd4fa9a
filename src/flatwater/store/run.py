"""Runs: the writes of their life, and the changes that come from outside.

Every write of an activation carries its epoch: when another activation owns the run by now, it is refused with
FencedError and nothing of its put is stored.
"""

from __future__ import annotations

from typing import Literal, TypeAlias

import msgspec
from sqlalchemy import bindparam, case, delete, literal_column, or_, select, update

from flatwater.errors import ConflictError, FencedError, NotFoundError
from flatwater.store import schema, waiter
from flatwater.store.claim import (
    DUE,
    READY,
    claim,
    next_due,
    owned,
    promote_due,
    ready_count,
    requeue,
    requeue_of,
    wake,
)
from flatwater.store.commit import refusable
from flatwater.store.run_query import children, count, find, get, page, requests, states
from flatwater.store.run_record import (
    Canceled,
    Claimed,
    Grant,
    NewRun,
    Page,
    Requested,
    RunFilter,
    RunRow,
    RunSummary,
    Submitted,
)
from flatwater.store.state import ENDED, State
from flatwater.store.statement import Op, Statement
from flatwater.store.tx import Query, Tx

__all__ = [
    "Canceled", "Claimed", "NewRun", "Page", "Request", "Requested", "RunFilter", "RunRow", "RunSummary", "Submitted",
    "abandon", "again", "ask", "cancel", "children", "claim", "count", "end", "find", "get", "insert", "mark",
    "message", "next_due", "owned", "page", "park", "promote_due", "ready_count", "request", "requests", "requeue",
    "requeue_of", "respond", "resume", "retry", "set_out_order_no", "states", "submit", "wake",
]  # fmt: skip

Request: TypeAlias = Literal["cancel", "pause"]

_r, _s, _w = schema.run, schema.step, schema.waiter
_KEY = ("id", "epoch")
_NEW = NewRun.__struct_fields__
_CLEARED = {"queue": "NULL", "worker": "NULL", "request": "NULL", "wait": "NULL", "due_at": "NULL"}
# A run that parks as PAUSED has got the pause it was asked for, and no grant may end that: only a cancel goes before,
# or that the pause was withdrawn meanwhile.
_AWAKE = (
    "run.request = 'cancel' OR v.state = 'PAUSED' AND run.request IS NULL"
    " OR v.state = 'WAITING' AND (run.request IS NOT NULL OR EXISTS"
    " (SELECT 1 FROM waiter WHERE waiter.run_id = run.id AND waiter.granted IS NOT NULL"
    " AND COALESCE(waiter.due_at, 0) >= 0))"
)

INSERT = Statement(
    "run.insert", _r, "insert", _NEW, refusable=True, large=tuple(_NEW.index(name) for name in ("inputs", "policy"))
)
END = Statement(
    "run.end", _r, "update",
    (*_KEY, "state", "ended_at", "outputs", "error", "error_path", "error_kind"),
    key=_KEY, extra=_CLEARED, fenced=True, large=(4, 5),
)  # fmt: skip
PARK = Statement(
    "run.park", _r, "update", (*_KEY, "state", "wait", "due_at"),
    key=_KEY, fenced=True, large=(3,),
    extra={
        "worker": "NULL",
        "state": f"CASE WHEN {_AWAKE} THEN 'QUEUED' ELSE v.state END",
        "queue": f"CASE WHEN {_AWAKE} THEN 'ready' WHEN v.due_at IS NOT NULL THEN 'due' END",
    },
)  # fmt: skip
AGAIN = Statement(
    "run.again", _r, "update",
    (*_KEY, "attempt", "due_at", "rank", "error", "error_path", "error_kind"),
    key=_KEY, fenced=True, large=(5,),
    extra={"state": "'QUEUED'", "queue": "CASE WHEN run.request IS NULL THEN 'due' ELSE 'ready' END",
           "worker": "NULL", "wait": "NULL"},
)  # fmt: skip
MARK = Statement("run.mark", _r, "update", (*_KEY, "state", "wait"), key=_KEY, fenced=True, large=(3,))
MESSAGE = Statement("run.message", _r, "update", (*_KEY, "state_message"), key=_KEY, fenced=True, large=(2,))
RESPOND = Statement("run.respond", _r, "update", (*_KEY, "response"), key=_KEY, fenced=True, large=(2,))
ASK = Statement(
    "run.ask", _r, "update", (*_KEY, "request"), key=_KEY,
    given="run.ended_at IS NULL AND COALESCE(run.request, '') <> 'cancel'",
)  # fmt: skip
ABANDON = Statement(
    "run.abandon", _r, "update", ("id",), key=("id",),
    given="run.ended_at IS NULL",
    extra={
        "request": "'cancel'",
        "state": "CASE WHEN run.worker IS NULL THEN 'QUEUED' ELSE run.state END",
        "queue": "CASE WHEN run.worker IS NULL THEN 'ready' ELSE run.queue END",
        "due_at": "CASE WHEN run.worker IS NULL THEN NULL ELSE run.due_at END",
    },
)  # fmt: skip


def insert(new: NewRun) -> Op:
    """A new run. An id that exists already is left as it is; an `out_order_no` that is taken refuses the put with
    ConflictError."""
    return INSERT, msgspec.structs.astuple(new)


def end(
    run_id: str,
    epoch: int,
    state: str,
    ended_at: float,
    outputs: str | None = None,
    error: str | None = None,
    error_path: str | None = None,
    error_kind: str | None = None,
) -> Op:
    """The run's end: SUCCEEDED, FAILED or CANCELED."""
    return END, (run_id, epoch, state, ended_at, outputs, error, error_path, error_kind)


def park(run_id: str, epoch: int, state: str, wait: str | None, due_at: float | None = None) -> Op:
    """Leave memory as WAITING, PAUSED or NEEDS_OPERATOR until woken, or until `due_at`.

    A waiter granted or a request made meanwhile makes the run ready at once: after the commit, look for ready runs.
    """
    return PARK, (run_id, epoch, state, wait, due_at)


def again(
    run_id: str,
    epoch: int,
    attempt: int,
    due_at: float,
    rank: float,
    error: str | None = None,
    error_path: str | None = None,
    error_kind: str | None = None,
) -> Op:
    """Try the run again at `due_at`; the error shown meanwhile is that of the attempt that failed."""
    return AGAIN, (run_id, epoch, attempt, due_at, rank, error, error_path, error_kind)


def mark(run_id: str, epoch: int, state: str, wait: str | None = None) -> Op:
    """Show a run that stays in memory as RUNNING or WAITING."""
    return MARK, (run_id, epoch, state, wait)


def message(run_id: str, epoch: int, text: str | None) -> Op:
    """The text that the run shows about itself."""
    return MESSAGE, (run_id, epoch, text)


def respond(run_id: str, epoch: int, response: str) -> Op:
    """What the run answers to whoever submitted it, as JSON text."""
    return RESPOND, (run_id, epoch, response)


def ask(run_id: str, epoch: int, what: Request) -> Op:
    """Put on record that the activation was asked to cancel or to pause, so that a crash does not forget it.

    A cancel is never taken back; a pause is, by `resume`, and then the run that parks as PAUSED becomes ready at once.
    """
    return ASK, (run_id, epoch, what)


def abandon(run_id: str) -> Op:
    """Ask a run to cancel, as `request` does, beside the record of whoever waited for it; nothing if it has ended."""
    return ABANDON, (run_id,)


_NAMED = Query(select(_r.c.id, _r.c.definition_id, _r.c.inputs).where(_r.c.out_order_no == bindparam("out_order_no")))
_NAME = Query(
    update(_r)
    .where(_r.c.id == bindparam("run_id"), _r.c.epoch == bindparam("run_epoch"))
    .values(out_order_no=bindparam("text"))
)
_STATE = Query(select(_r.c.state, _r.c.worker, _r.c.epoch, _r.c.parent_id).where(_r.c.id == bindparam("run_id")))
_REQUEST = Query(update(_r).where(_r.c.id == bindparam("run_id")).values(request=bindparam("what")))
_REQUEST_READY = Query(
    update(_r)
    .where(_r.c.id == bindparam("run_id"))
    .values(request=bindparam("what"), state=State.QUEUED.value, queue=READY, due_at=None)
)
# What waits for its time (a delay, a back-off) goes on waiting for it after a pause.
_PAUSE = Query(
    update(_r)
    .where(_r.c.id == bindparam("run_id"))
    .ordered_values(  # MariaDB evaluates one after another
        (_r.c.due_at, case((_r.c.state == State.QUEUED.value, _r.c.due_at), else_=None)),
        (_r.c.state, State.PAUSED.value),
        (_r.c.queue, None),
    )
)
_LATER = _r.c.due_at > bindparam("now")
_RESUME = Query(
    update(_r)
    .where(_r.c.id == bindparam("run_id"))
    .ordered_values(
        (_r.c.queue, case((_LATER, DUE), else_=READY)),
        (_r.c.due_at, case((_LATER, _r.c.due_at), else_=None)),
        (_r.c.state, State.QUEUED.value),
        (_r.c.request, None),
        (_r.c.wait, None),
    )
)
_UNPAUSE = Query(update(_r).where(_r.c.id == bindparam("run_id")).values(request=None))
_RETRY = Query(
    update(_r)
    .where(_r.c.id == bindparam("run_id"))
    .values(
        state=State.QUEUED.value, queue=READY, due_at=None, request=None, wait=None, ended_at=None, outputs=None,
        error=None, error_path=None, error_kind=None, deadline_at=None, attempt=_r.c.attempt + 1,
    )
)  # fmt: skip
_FORGET_FAILED = Query(
    delete(_s).where(
        _s.c.run_id == bindparam("run_id"), or_(_s.c.state == State.FAILED.value, _s.c.state == State.CANCELED.value)
    )
)
_CANCEL = Query(
    update(_r)
    .where(_r.c.id == bindparam("run_id"))
    .values(
        state=State.CANCELED.value, ended_at=bindparam("now"), queue=None, due_at=None, request=None, wait=None,
        error_kind=case((_r.c.error_kind.is_(None), literal_column("'canceled'")), else_=_r.c.error_kind),
    )
)  # fmt: skip
_CANCEL_STEPS = Query(
    update(_s)
    .where(_s.c.run_id == bindparam("owner_id"), _s.c.ended_at.is_(None))
    .values(state=State.CANCELED.value, ended_at=bindparam("now"))
)
_FORGET_WAITERS = Query(delete(_w).where(_w.c.run_id == bindparam("run_id")))


@refusable
def submit(tx: Tx, new: NewRun) -> Submitted:
    """Insert, or find what the same `out_order_no` has inserted before.

    Raises:
        ConflictError: that key stands for another definition or other inputs.
    """
    if new.out_order_no is not None:
        found = tx.first(_NAMED, out_order_no=new.out_order_no)
        if found is not None:
            if (found[1], found[2]) == (new.definition_id, new.inputs):
                return Submitted(found[0], created=False)
            raise ConflictError(
                f"key {new.out_order_no!r} belongs to run {found[0]} of definition {found[1]!r}",
                hint="a key names one definition with one set of inputs; use another key",
            )
    tx.apply(insert(new))
    return Submitted(new.id, created=True)


def named(tx: Tx, out_order_no: str) -> str | None:
    """The id of the run with that key."""
    found = tx.first(_NAMED, out_order_no=out_order_no)
    return None if found is None else str(found[0])


def set_out_order_no(tx: Tx, run_id: str, epoch: int, text: str) -> None:
    """Name a run that is under way. Raises ConflictError when another run has that name, FencedError."""
    found = tx.first(_NAMED, out_order_no=text)
    if found is not None and found[0] != run_id:
        raise ConflictError(f"key {text!r} belongs to run {found[0]}", hint="use another key")
    if tx.run(_NAME, run_id=run_id, run_epoch=epoch, text=text) == 0:
        raise FencedError(f"run {run_id}")


def request(tx: Tx, run_id: str, what: Request, now: float) -> Requested:
    """Ask a run to cancel or to pause; who does it is in the answer.

    In a worker's memory: that worker's activation. Parked, cancel: the next activation, as the run is made ready.
    Parked, pause, and anything never activated: done here.

    Raises:
        NotFoundError. ConflictError: the run has ended.
    """
    state, worker, epoch, _ = _look(tx, run_id)
    if state in ENDED:
        raise ConflictError(f"run {run_id} has ended as {state}")
    if worker is not None:
        tx.run(_REQUEST, run_id=run_id, what=what)
        return Requested(state, worker, done=False)
    if what == "pause":
        if state != State.NEEDS_OPERATOR:
            tx.run(_PAUSE, run_id=run_id)
        return Requested(State.PAUSED, None, done=True)
    if epoch == 0:
        canceled = cancel(tx, run_id, now)
        return Requested(State.CANCELED, None, done=True, grants=canceled.grants)
    tx.run(_REQUEST_READY, run_id=run_id, what=what)
    return Requested(State.QUEUED, None, done=False)


def resume(tx: Tx, run_id: str, now: float) -> None:
    """A PAUSED or NEEDS_OPERATOR run becomes ready; a pause not yet carried out is withdrawn.

    Raises:
        NotFoundError. ConflictError: the run is not paused.
    """
    state, worker, _, _ = _look(tx, run_id)
    if worker is not None:
        tx.run(_UNPAUSE, run_id=run_id)
    elif state in (State.PAUSED, State.NEEDS_OPERATOR):
        tx.run(_RESUME, run_id=run_id, now=now)
    else:
        raise ConflictError(f"run {run_id} is {state}, not PAUSED")


def retry(tx: Tx, run_id: str, now: float) -> None:
    """Run again from the failed block: what succeeded stays, failed and canceled steps are forgotten.

    Raises:
        NotFoundError. ConflictError: the run is not FAILED, CANCELED or NEEDS_OPERATOR.
    """
    state, _, _, _ = _look(tx, run_id)
    if state not in (State.FAILED, State.CANCELED, State.NEEDS_OPERATOR):
        raise ConflictError(f"run {run_id} is {state}; only FAILED, CANCELED and NEEDS_OPERATOR can be retried")
    tx.run(_FORGET_FAILED, run_id=run_id)
    tx.run(_RETRY, run_id=run_id)


def cancel(tx: Tx, run_id: str, now: float) -> Canceled:
    """End a run that no worker holds as CANCELED, here and now: waiters go, open steps are canceled, its parent knows.

    Its sites stay locked until `site.release`. Raises NotFoundError; ConflictError when a worker holds it or it ended.
    """
    state, worker, _, parent_id = _look(tx, run_id)
    if worker is not None or state in ENDED:
        raise ConflictError(f"run {run_id} is {state}" + (f" in worker {worker}" if worker else ""))
    tx.run(_CANCEL, run_id=run_id, now=now)
    tx.run(_CANCEL_STEPS, owner_id=run_id, now=now)
    tx.run(_FORGET_WAITERS, run_id=run_id)
    grants: list[Grant] = []
    if parent_id is not None:
        grants = waiter.grant_parent(tx, run_id, parent_id, waiter.outcome(State.CANCELED, None, None, "canceled"))
    return Canceled([child.id for child in children(tx, run_id) if child.state not in ENDED], tuple(grants))


def _look(tx: Tx, run_id: str) -> tuple[str, str | None, int, str | None]:
    """State, worker, epoch, parent."""
    row = tx.first(_STATE, run_id=run_id)
    if row is None:
        raise NotFoundError(f"run {run_id}")
    return row[0], row[1], row[2], row[3]
