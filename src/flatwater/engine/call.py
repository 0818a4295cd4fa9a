"""What a block's function is given of its run: the `BlockCall` of `flatwater.engine.block`."""

from __future__ import annotations

import hashlib
from collections import ChainMap
from collections.abc import Callable, Mapping
from time import time
from typing import TYPE_CHECKING, Any

import msgspec

from flatwater.engine.signal import OperatorNeeded
from flatwater.engine.wait import Wait
from flatwater.errors import LimitError
from flatwater.store.state import State

if TYPE_CHECKING:
    from flatwater.engine.activation import Activation
    from flatwater.engine.definition import Node
    from flatwater.engine.service import Services
    from flatwater.store.waiter import Grant

_ALPHABET = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"


def order_id(run_id: str, path: str, run_attempt: int, attempt: int, around: str = "") -> str:
    """The id under which the outside knows this attempt of this block: the same after a replay.

    The attempts of the run and of the blocks ``around`` are part of it: each of them does afresh what is in it.
    """
    digest = hashlib.sha256(f"{run_id}\n{path}\n{run_attempt}\n{attempt}{around}".encode()).digest()
    number = int.from_bytes(digest[:17], "big")
    return "".join(_ALPHABET[(number >> shift) & 31] for shift in range(130, -1, -5))[-26:]


class Call:
    """One attempt of one block."""

    __slots__ = (
        "_holding", "_run", "_waits", "attempt", "changes", "conclusion", "node", "path", "replayed", "variables_set",
    )  # fmt: skip

    def __init__(self, run: Activation, node: Node, path: str, attempt: int) -> None:
        self._run = run
        self.node = node
        self.path = path
        self.attempt = attempt
        self.replayed = False
        self.variables_set: dict[str, Any] = {}
        self.changes: dict[str, Any] = {}
        self.conclusion: tuple[Any, ...] | None = None
        self._waits = 0
        self._holding = False

    # ---- facts ----------------------------------------------------------------------------------

    @property
    def run_id(self) -> str:
        return self._run.id

    @property
    def name(self) -> str:
        return self.node.name

    @property
    def block_id(self) -> int:
        return self.node.id

    @property
    def sub_task(self) -> str | None:
        return self.node.sub_task

    @property
    def priority(self) -> int:
        return self._run.row.priority

    @property
    def rank(self) -> float:
        return self._run.row.rank

    @property
    def epoch(self) -> int:
        """The number of this activation; transactions that change the run carry it."""
        return self._run.row.epoch

    @property
    def retried(self) -> bool:
        """Whether this block, or its run, has failed before and is tried again."""
        return self.attempt > 1 or self._run.row.attempt > 1

    @property
    def depth(self) -> int:
        return self._run.row.depth

    @property
    def order_id(self) -> str:
        step = self._run.past(self.path)
        if step is not None and step.state == State.RUNNING and step.attempt == self.attempt:
            known = step.order_id
            if known is not None:
                return known
        above = [self.path[:end] for end, sign in enumerate(self.path) if sign in "/["]
        later = [f"\n{path} {number}" for path in above if (number := self._run.attempt_of(path)) > 1]
        return order_id(self._run.id, self.path, self._run.row.attempt, self.attempt, "".join(later))

    @property
    def robot(self) -> str | None:
        """The robot that the innermost block around this one has selected."""
        robots = self._run.robots
        around = [p for p in robots if self.path.startswith(f"{p}/") or self.path.startswith(f"{p}[")]
        return robots[max(around, key=len)] if around else None

    @property
    def variables(self) -> Mapping[str, Any]:
        """The task variables, with those that this block has set."""
        variables = self._run.context.variables
        return ChainMap(self.variables_set, variables) if self.variables_set else variables

    @property
    def services(self) -> Services:
        return self._run.services

    # ---- what lasts with the end of the block ------------------------------------------------------

    def set_variable(self, name: str, value: Any) -> None:
        """Set a task variable: for others at the end of this block, durable in the transaction that records it."""
        self.variables_set[name] = value

    def set_run(self, **changes: Any) -> None:
        """Set ``state_message``, ``response`` or ``out_order_no`` of the run, likewise."""
        self.changes.update(changes)

    def pause(self) -> None:
        """Hold the run once this block has ended, until somebody resumes it."""
        self._run.stop("pause", at_once=False)

    def log(self, message: str, level: str = "info") -> None:
        """Add a line to the run's log."""
        self._run.journal.log(self.path, level, message)

    # ---- durability -----------------------------------------------------------------------------

    async def barrier(self) -> None:
        """Return when everything recorded so far is on the disk."""
        await self._run.journal.barrier()

    async def transact(self, fn: Callable[..., Any], *args: Any) -> Any:
        """``fn(tx, *args)`` in the writer's next transaction; its result after the commit."""
        return await self._run.services.store.writer.call(fn, *args)

    def conclude(self, fn: Callable[..., list[Grant]], *args: Any) -> None:
        """``fn(tx, *args)`` in the transaction that records the end of this block: both happen, once, or neither.

        For changes that must not be made again by a replay. It returns grants; what it raises fails the block.
        """
        self.conclusion = (fn, *args)

    def granted(self, grants: Any) -> None:
        """Wake the runs that a transaction of ours has granted something."""
        self._run.services.granted(grants)

    def holds_site(self) -> None:
        """This run has locked a site, so its end has sites to release."""
        self._run.holds_sites = True

    # ---- waiting --------------------------------------------------------------------------------

    async def sleep(self, seconds: float, reason: str) -> None:
        """Wait without holding up other branches; the run may leave memory meanwhile."""
        await self._aside(self._run.waits.sleep(self._next(), seconds, reason))

    async def wait(
        self,
        kind: str,
        key: str,
        *,
        reason: str,
        timeout_s: float | None = None,
        want: Any = None,
        insert: bool = True,
    ) -> Any:
        """Wait until somebody grants this: an event, or what was announced (`expect`): a child, a site, a robot.

        The wait is durable and may leave memory; a replay of the block gets the same answer at
        once. ``insert`` is false when a transaction of the block has written the waiter row.
        Raises ``WaitTimeout`` after ``timeout_s`` seconds.
        """
        now = time()
        due_at = None if timeout_s is None else now + timeout_s
        encoded = None if want is None else msgspec.json.encode(want).decode()
        wait = Wait(self._next(), kind, key, reason, now, due_at, encoded)
        return await self._aside(self._run.waits.grant(wait, insert=insert))

    def expect(self, kind: str, key: str, *, reason: str, timeout_s: float | None = None) -> Wait:
        """Announce the next ``wait``, whose row a transaction of the block is about to write.

        The row then goes with the block even when that is stopped in the middle of the transaction.
        """
        now = time()
        due_at = None if timeout_s is None else now + timeout_s
        wait = Wait(self._path_of(self._waits + 1), kind, key, reason, now, due_at)
        return self._run.waits.expect(wait)

    def waited(self) -> Wait | None:
        """The stored wait that the next ``wait`` of this call would find, if there is one."""
        return self._run.waits.stored(self._path_of(self._waits + 1))

    @property
    def wait_path(self) -> str:
        """The path of the row that the next ``wait`` uses."""
        return self._path_of(self._waits + 1)

    def _next(self) -> str:
        self._waits += 1
        return self._path_of(self._waits)

    def _path_of(self, ordinal: int) -> str:
        return self.path if ordinal == 1 else f"{self.path}#{ordinal}"

    async def _aside(self, waiting: Any) -> Any:
        """Await with the right to execute handed to another branch."""
        held, self._holding = self._holding, False
        if held:
            self._run.branches.give_back()
        result = await waiting
        if held:
            await self._run.branches.permit()
            self._holding = True
        return result

    # ---- children -------------------------------------------------------------------------------

    async def children(
        self, branch: str = "default", *, robot: str | None = None, outputs: dict[str, Any] | None = None
    ) -> None:
        """Walk a branch of this block; ``robot`` is theirs meanwhile, and ``outputs`` are there for them to read."""
        if robot is not None:
            self._run.robots[self.path] = robot
            self._run.used_robot = True
        if outputs is not None:
            self._run.publish_outputs(self.node, self.path, outputs)
        try:
            await self._aside(self._run.serial(self.node.branches.get(branch, ()), self.path))
        finally:
            self._run.robots.pop(self.path, None)

    # ---- by the activation ----------------------------------------------------------------------

    async def enter(self) -> None:
        """Take the right to execute beside the other branches; waiting gives it away for the time."""
        await self._run.branches.permit()
        self._holding = True

    def leave(self) -> None:
        """Give that right back, if it is held."""
        if self._holding:
            self._holding = False
            self._run.branches.give_back()

    async def declare(self) -> float:
        """Write down what a later activation must know before the function is called; returns when that was begun.

        For a time-out that is the time; for a call of the outside its order id, and then it is on the disk. Other
        blocks may simply be executed again. Raises ``OperatorNeeded`` when an earlier activation declared the same call
        and nobody can tell what came of it.
        """
        node, outside = self.node, self.node.recovery != "rerun"
        now = time()
        if not outside and node.timeout_s is None:
            return now
        step = self._run.past(self.path)
        if step is not None and step.state == State.RUNNING and step.attempt == self.attempt:
            if outside and step.order_id == self.order_id:
                self._recognise()
            return step.started_at or now
        commit = self._run.journal.step(
            node, self.path, State.RUNNING, now, attempt=self.attempt, order_id=self.order_id if outside else None
        )
        if outside:
            await commit
        return now

    def _recognise(self) -> None:
        self.replayed = True
        if self.node.recovery == "operator" and self._run.waits.stored(self.path) is None:
            raise OperatorNeeded(
                self.path, f"block {self.name} was calling the outside when the process died; order {self.order_id}"
            )

    async def perform(self, params: dict[str, Any]) -> dict[str, Any]:
        """Call the function; returns its outputs as plain JSON values."""
        kind = self.node.kind
        function = kind.func
        assert function is not None, "flow kinds are walked, not called"
        arguments = kind.arguments(params)
        if kind.wants_call:
            arguments["call"] = self
        if kind.is_async:
            result = await function(**arguments)
        else:
            result = await self.services.in_thread(function, arguments)
        return kind.pack(result)

    def check(self, encoded: bytes | str, what: str) -> None:
        limit = self.services.options.max_value_bytes
        if len(encoded) > limit:
            raise LimitError(
                f"{what} of {len(encoded)} bytes is larger than max_value_bytes ({limit})",
                where=self.path,
                hint="keep large data elsewhere and pass its address",
            )
