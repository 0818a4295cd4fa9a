"""What one activation writes to the store, and what it finds there of earlier ones."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from time import time
from typing import TYPE_CHECKING, Any

import msgspec

from flatwater.engine.flow import WALKS
from flatwater.engine.wait import Wait
from flatwater.store import log as logs
from flatwater.store import run as runs
from flatwater.store import step as steps
from flatwater.store import variable as variables
from flatwater.store import waiter as waiters
from flatwater.store.state import State

if TYPE_CHECKING:
    from flatwater.engine.call import Call
    from flatwater.engine.definition import Node
    from flatwater.engine.service import Services
    from flatwater.store.commit import Commit
    from flatwater.store.run import Claimed
    from flatwater.store.step import Step
    from flatwater.store.tx import Tx
    from flatwater.store.variable import Variable
    from flatwater.store.waiter import Grant, Waiter

_encode = msgspec.json.Encoder(enc_hook=str).encode
_decode = msgspec.json.decode
TRIM_EVERY = 100
"""Log lines of one run after which the store is told to drop its oldest."""


def dump(value: Any) -> str:
    """JSON text of plain values; what JSON does not know becomes its ``str``."""
    return _encode(value).decode()


class Past(msgspec.Struct, frozen=True):
    """What is left in memory of a block's record: all but its outputs."""

    state: str
    attempt: int
    started_at: float | None
    order_id: str | None
    error: str | None
    progress: dict[str, Any] | None


class Memory:
    """Records of earlier activations of a run, reduced to what the walk asks of them."""

    __slots__ = ("inner", "iterations", "outputs", "sources", "steps", "touched", "variables", "waits")

    def __init__(
        self,
        rows: Iterable[Step],
        values: dict[str, Variable],
        waiting: Iterable[Waiter],
        live_names: frozenset[str],
    ) -> None:
        self.steps: dict[str, Past] = {}
        self.outputs: dict[str, Any] = {}
        self.sources: dict[str, str] = {}
        self.inner: list[tuple[str, str, Any]] = []
        self.touched: set[str] = set()
        self.iterations: dict[str, int] = {}
        self.variables = {name: _decode(variable.value) for name, variable in values.items()}
        self.waits = {row.path: _wait(row) for row in waiting}
        for row in sorted(rows, key=lambda row: row.ended_at or 0.0):
            self._learn(row, live_names)
        for path in self.waits:
            self._touch(path)

    def _learn(self, row: Step, live_names: frozenset[str]) -> None:
        progress = _decode(row.progress) if row.progress else None
        self.steps[row.path] = Past(row.state, row.attempt, row.started_at, row.order_id, row.error, progress)
        if row.state == State.SUCCEEDED and row.name in live_names and (row.outputs or row.type not in WALKS):
            self.outputs[row.name] = _decode(row.outputs) if row.outputs else {}
            self.sources[row.name] = row.path
            if "[" in row.path:
                self.inner.append((row.path, row.name, self.outputs[row.name]))
        self._touch(row.path)

    def outputs_within(self, base: str) -> dict[str, Any]:
        """What the blocks of one copy, or of one iteration, gave last, by name."""
        return {name: given for path, name, given in self.inner if path.startswith(f"{base}/")}

    def forget(self, path: str) -> None:
        """The block there is started again as a whole: nothing is known of what is inside it."""
        inside = [known for known in self.touched if known.startswith((f"{path}/", f"{path}["))]
        for known in (path, *inside):
            self.touched.discard(known)
            self.steps.pop(known, None)
            self.iterations.pop(known, None)
        self.inner = [entry for entry in self.inner if not entry[0].startswith((f"{path}/", f"{path}["))]

    def _touch(self, path: str) -> None:
        """A record of ``path`` tells that everything around it has begun, in that iteration."""
        path = path.partition("#")[0]
        while path and path not in self.touched:
            self.touched.add(path)
            slash, bracket = path.rfind("/"), path.rfind("[")
            if bracket > slash:
                loop, index = path[:bracket], int(path[bracket + 1 : path.index("]", bracket)])
                self.iterations[loop] = max(index, self.iterations.get(loop, 0))
                path = loop
            else:
                path = path[:slash] if slash > 0 else ""


def _wait(row: Waiter) -> Wait:
    granted = _decode(row.granted) if row.granted is not None else msgspec.UNSET
    return Wait(
        row.path, row.kind, row.key, row.reason or row.kind, row.since, row.due_at, row.want, granted, stored=True
    )


def _began(path: str, started: float, waits: Iterable[Wait]) -> float:
    """A block that waited while its run was not in memory began before this activation came to it."""
    return min([started, *(wait.since for wait in waits if wait.path == path)]) if waits else started


def conclude(tx: Tx, ops: list[Any], function: Callable[..., list[Grant]], *args: Any) -> list[Grant]:
    """The last change that a block makes, and the record of its end."""
    grants = function(tx, *args)
    tx.apply(*ops)
    return grants


class Journal:
    """Writes behind: records go to the writer at once and to the disk with its next group.

    ``barrier`` returns when all of it is durable. One ``put`` is one transaction, in order.
    """

    __slots__ = ("_abandoned", "_emit", "_emit_log", "_epoch", "_last", "_lines", "_run_id", "_trim", "_writer")

    def __init__(self, services: Services, row: Claimed) -> None:
        self._writer = services.store.writer
        self._run_id = row.id
        self._epoch = row.epoch
        self._emit = services.emit_block
        self._emit_log = services.emit_log
        self._trim = services.trim_log
        self._abandoned = services.abandoned
        self._last: Commit | None = None
        self._lines = 0

    def step(
        self,
        node: Node,
        path: str,
        state: State,
        started: float,
        *,
        attempt: int = 1,
        outputs: dict[str, Any] | None = None,
        progress: dict[str, Any] | None = None,
        error: str | None = None,
        order_id: str | None = None,
        waits: Iterable[Wait] = (),
    ) -> Commit:
        """Record how a block stands; with it go the rows of ``waits`` that it no longer has."""
        ended = None if state is State.RUNNING else time()
        text = dump(outputs) if outputs else None
        noted = dump(progress) if progress is not None else None
        op = steps.put(
            self._run_id,
            path,
            node.id,
            node.name,
            node.type,
            state,
            attempt,
            _began(path, started, waits),
            ended,
            text,
            noted,
            order_id,
            error,
        )
        return self._put(node, path, state, op, *self.drop(waits))

    def begin_afresh(self, node: Node, path: str, attempt: int, waits: Iterable[Wait]) -> None:
        """Record that a block with children begins its next attempt, for which none of them is done or waits."""
        op = steps.put(self._run_id, path, node.id, node.name, node.type, State.RUNNING, attempt, time(), None)
        self._put(node, path, State.RUNNING, steps.delete(self._run_id, path), op, *self.drop(waits))

    def drop(self, waits: Iterable[Wait]) -> list[Any]:
        """The writes that end waits: their rows go, and a child that was waited for in vain is canceled."""
        ops: list[Any] = []
        for wait in waits:
            ops.append(waiters.delete(self._run_id, wait.path))
            if (child := wait.forsaken) is not None:
                ops.append(runs.abandon(child))
                self._abandoned(child)
        return ops

    def _put(self, node: Node, path: str, state: State, *ops: Any) -> Commit:
        self._last = commit = self._writer.put(*ops)
        self._emit(self._run_id, path, node.name, state)
        return commit

    async def end_call(self, call: Call, started: float, outputs: dict[str, Any], waits: list[Wait]) -> None:
        """Record that a block succeeded, with all that it changed, in one transaction.

        It need not be awaited by the disk, unless the block has a conclusion, which may fail: then nothing is recorded.
        """
        ops = self._end_ops(call, started, outputs, waits)
        if call.conclusion is None:
            self._put(call.node, call.path, State.SUCCEEDED, *ops)
            return
        call.granted(await self._writer.call(conclude, ops, *call.conclusion))
        self._emit(self._run_id, call.path, call.node.name, State.SUCCEEDED)

    def _end_ops(self, call: Call, started: float, outputs: dict[str, Any], waits: list[Wait]) -> list[Any]:
        node, path = call.node, call.path
        text = dump(outputs) if outputs else None
        if text is not None:
            call.check(text, "outputs")
        order = call.order_id if node.recovery != "rerun" else None
        ops: list[Any] = [
            steps.put(
                self._run_id, path, node.id, node.name, node.type, State.SUCCEEDED, call.attempt,
                _began(path, started, waits), time(), text, None, order, None,
            )
        ]  # fmt: skip
        for name, value in call.variables_set.items():
            encoded = dump(value)
            call.check(encoded, f"variable {name}")
            ops.append(variables.put(self._run_id, name, encoded, path))
        if "state_message" in call.changes:
            ops.append(runs.message(self._run_id, self._epoch, call.changes["state_message"]))
        if "response" in call.changes:
            ops.append(runs.respond(self._run_id, self._epoch, dump(call.changes["response"])))
        ops.extend(self.drop(waits))
        return ops

    def wait(self, wait: Wait, rank: float) -> None:
        self._last = self._writer.put(
            waiters.put(
                self._run_id, wait.path, wait.kind, wait.key, wait.since, rank, wait.due_at, wait.reason, wait.want
            )
        )

    def end_wait(self, path: str) -> None:
        self._last = self._writer.put(waiters.delete(self._run_id, path))

    def ask(self, what: runs.Request) -> None:
        """Put a cancel or a pause on record."""
        self._last = self._writer.put(runs.ask(self._run_id, self._epoch, what))

    def forget(self, prefix: str) -> None:
        """Drop the records below a path: those of a loop's iteration long past."""
        self._last = self._writer.put(steps.delete(self._run_id, prefix))

    def log(self, path: str, level: str, message: str) -> None:
        self._last = self._writer.put(logs.add(self._run_id, time(), level, path, message))
        self._emit_log(self._run_id, path, level, message)
        self._lines += 1
        if self._lines % TRIM_EVERY == 0:
            self._trim(self._run_id)

    async def barrier(self) -> None:
        if self._last is not None:
            await self._last
