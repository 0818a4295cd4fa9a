"""From what a caller asks for to the row of a run: checked, ranked, nothing stored yet."""

from __future__ import annotations

import math
from collections.abc import Mapping
from time import time
from typing import Any

import msgspec

from flatwater.engine.call import Call
from flatwater.engine.journal import dump
from flatwater.errors import InputError, LimitError
from flatwater.store.ident import child_id, new_id
from flatwater.store.run import Claimed, NewRun
from flatwater.store.state import State

MAX_DELAY_S = 10 * 366 * 86_400.0
MAX_PRIORITY = 1_000_000
MAX_KEY = 200
RETRY = {
    "max_attempts": (1, 1_000),
    "delay_s": (0, MAX_DELAY_S),
    "factor": (1, 100),
    "max_delay_s": (0, MAX_DELAY_S),
    "jitter": (0, 1),
}


class Submission(msgspec.Struct, frozen=True, kw_only=True):
    """What may be said of a run beside its definition and inputs; see `Engine.submit`."""

    priority: int = 0
    delay_s: float = 0.0
    due_at: float | None = None
    idempotency_key: str | None = None
    retry: Mapping[str, Any] | None = None
    timeout_s: float | None = None
    trigger_id: str | None = None
    parent: Call | None = None
    trace: Mapping[str, str] | None = None


class Origin(msgspec.Struct, frozen=True):
    """The definition that a run comes from."""

    id: str
    label: str
    version: int
    hash: str
    timeout_s: float | None = None
    release: str = "always"


def new_run(origin: Origin, inputs: Mapping[str, Any], wish: Submission, ageing_s: float, max_depth: int) -> NewRun:
    """The row of a run. ``rank = due_at - priority * ageing_s``: the lowest rank is first.

    Raises ``InputError`` for numbers out of bounds, ``LimitError`` for sub-tasks too deep.
    """
    now = time()
    check_number("priority", wish.priority, -MAX_PRIORITY, MAX_PRIORITY)
    check_number("delay_s", wish.delay_s, 0, MAX_DELAY_S)
    due_at = now + wish.delay_s if wish.due_at is None else wish.due_at
    check_number("due_at", due_at, 0, now + MAX_DELAY_S)
    timeout_s = origin.timeout_s if wish.timeout_s is None else wish.timeout_s
    if timeout_s is not None:
        check_number("timeout_s", timeout_s, 0.001, MAX_DELAY_S)
    new = NewRun(
        id=new_id(),
        definition_id=origin.id,
        label=origin.label,
        version=origin.version,
        hash=origin.hash,
        state=State.QUEUED,
        queue="due" if due_at > now else "ready",
        rank=due_at - wish.priority * ageing_s,
        due_at=due_at,
        priority=wish.priority,
        created_at=now,
        deadline_at=None if timeout_s is None else due_at + timeout_s,
        attempt=1,
        inputs=dump(inputs),
        policy=policy_of(origin, wish),
        out_order_no=check_key(wish.idempotency_key),
        trigger_id=wish.trigger_id,
    )
    return new if wish.parent is None else as_child(new, wish.parent, max_depth)


def as_claimed(new: NewRun) -> Claimed:
    """A run that is stored as RUNNING from the start, as if it had been claimed."""
    return Claimed(**{name: getattr(new, name) for name in _SHARED}, request=None, locked=False)


_SHARED = [name for name in Claimed.__struct_fields__ if name in NewRun.__struct_fields__]


def as_child(new: NewRun, parent: Call, max_depth: int) -> NewRun:
    """The same run as a sub-task: its id follows from the block that starts it, so twice is once."""
    if parent.depth + 1 > max_depth:
        raise LimitError(f"sub-tasks nest deeper than max_run_depth ({max_depth})", where=parent.path)
    return msgspec.structs.replace(
        new,
        id=child_id(parent.run_id, parent.path),
        parent_id=parent.run_id,
        parent_path=parent.path,
        depth=parent.depth + 1,
    )


def check_number(name: str, value: Any, least: float, most: float) -> None:
    """A finite number within bounds, or ``InputError`` that names it."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise InputError(f"{name} must be a finite number, not {value!r}", where=name)
    if not least <= value <= most:
        raise InputError(f"{name} is {value}, not within {least:g} … {most:g}", where=name)


def policy_of(origin: Origin, wish: Submission) -> str | None:
    """What the store and later activations must know beside the definition, as JSON; most runs need nothing."""
    policy: dict[str, Any] = {} if origin.release == "always" else {"release": origin.release}
    if wish.retry:
        policy["retry"] = check_retry(wish.retry)
    if wish.trace:
        policy["trace"] = wish.trace
    return dump(policy) if policy else None


def check_key(key: str | None) -> str | None:
    if key is not None and not 1 <= len(key) <= MAX_KEY:
        raise InputError(f"an idempotency key has 1 to {MAX_KEY} characters, not {len(key)}", where="idempotency_key")
    return key


def check_retry(retry: Mapping[str, Any]) -> dict[str, Any]:
    """A retry policy of a submission, checked."""
    for name, value in retry.items():
        if name not in RETRY:
            raise InputError(f"retry has no {name!r}", where="retry", hint=f"it knows {', '.join(RETRY)}")
        check_number(f"retry.{name}", value, *RETRY[name])
    return dict(retry)
