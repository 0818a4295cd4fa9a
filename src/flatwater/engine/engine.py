"""The engine: submit runs, steer them, await them.

Everything it holds is bounded and shown (`statistics`); everything it has accepted is in the store.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine, Mapping
from contextlib import AsyncExitStack, suppress
from time import time
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

import msgspec

from flatwater.bounded import Fanout, Ledger, TaskGroup
from flatwater.engine.activation import Activation
from flatwater.engine.block import Kind, Registry, kind_of
from flatwater.engine.blocks import builtin
from flatwater.engine.context import ContextStatistics, ContextWatch, OnOverdue
from flatwater.engine.database import Databases
from flatwater.engine.definition import check_inputs
from flatwater.engine.ending import Ending
from flatwater.engine.figure import Figures
from flatwater.engine.journal import dump
from flatwater.engine.library import CALL, Library
from flatwater.engine.modbus import Modbus
from flatwater.engine.modbus_watch import ModbusWatch
from flatwater.engine.news import NewsLoop
from flatwater.engine.option import EngineOptions
from flatwater.engine.result import Outcome, Results
from flatwater.engine.runner import Runner
from flatwater.engine.scheduler import Scheduler, SchedulerStatistics
from flatwater.engine.service import Services
from flatwater.engine.steering import Steering
from flatwater.engine.submission import Origin, Submission, as_claimed, new_run
from flatwater.engine.trigger import Triggers
from flatwater.engine.web import Web
from flatwater.errors import ClosedError, FencedError, InputError, LimitError
from flatwater.store import event as events
from flatwater.store import log as logs
from flatwater.store import run as runs
from flatwater.store import site as sites
from flatwater.store.run import NewRun
from flatwater.store.state import State

if TYPE_CHECKING:
    from flatwater.engine.definition import Flow, Node
    from flatwater.engine.driver import RobotDriver
    from flatwater.store.definition import Definition
    from flatwater.store.store import Store

log = logging.getLogger(__name__)
MAX_SHOWN = 1_000
"""Characters of a log line that a live event shows; the store has all of it."""


class Delivery(msgspec.Struct, frozen=True):
    """What became of an external event: how many blocks had waited for it, and the runs that it started."""

    delivered: int
    started: list[str]


class EngineStatistics(msgspec.Struct, frozen=True):
    """Figures since the start, and of now."""

    scheduler: SchedulerStatistics
    contexts: ContextStatistics
    submitted: int
    ended: dict[str, int]
    flows: int
    awaited: int


class Engine:
    """Runs block flows from ``store``.

    Used as ``async with Engine(store) as engine:``. Leaving it gives every run in memory back to
    the store, where the next engine finds it.
    """

    def __init__(
        self,
        store: Store,
        *,
        registry: Registry | None = None,
        driver: RobotDriver | None = None,
        functions: Mapping[str, Callable[..., Any]] | None = None,
        databases: Mapping[str, str] | None = None,
        modbus: Mapping[str, str] | None = None,
        options: EngineOptions | None = None,
        ledger: Ledger | None = None,
        on_overdue: OnOverdue | None = None,
    ) -> None:
        self.store = store
        self.options = options or EngineOptions()
        self.registry = registry or builtin()
        self.ledger = ledger or Ledger()
        self.library = Library(store, self.registry, self.options.max_flows, self.options.max_flow_nodes)
        self.ledger.register(self.library)
        self.events: Fanout[dict[str, Any]] = Fanout(
            "engine events",
            max_messages=self.options.max_events,
            max_subscribers=self.options.max_subscribers,
            ledger=self.ledger,
        )
        self._tasks = self._group("activations", self.options.max_active + 100)
        self._branches = self._group("branches", self.options.max_branches)
        self._loops = self._group("engine loops", self.options.max_active + self.options.max_trigger_sources + 20)
        self.services = Services(
            store=store,
            options=self.options,
            registry=self.registry,
            tasks=self._tasks,
            branches=self._branches,
            web=_web(self.options, self.ledger),
            databases=_databases(databases or {}, self.options, self.ledger),
            modbus=_modbus(modbus or {}, self.options, self.ledger),
            driver=driver,
            functions=functions or {},
        )
        self._contexts = ContextWatch(self.options.dead_context_s, on_overdue)
        self.scheduler = Scheduler(store, self.options, self._begin)
        self.figures = Figures(self.options.ageing_s, ledger=self.ledger)
        self._runner = Runner(
            self.services, self.library, self.scheduler, self._contexts, self.figures, self._left
        )  # fmt: skip
        self.triggers = Triggers(self)
        self._bind()
        self._stack = AsyncExitStack()
        self._results = Results(store)
        self._steering = Steering(store, self.scheduler, self.library, self._results, self._begin)
        self._news = NewsLoop(store, self.scheduler, self._results, self.options.poll_s)
        self._submitted = 0

    def _group(self, name: str, max_tasks: int) -> TaskGroup:
        return TaskGroup(name, max_tasks=max_tasks, ledger=self.ledger)

    def _modbus_watch(self) -> ModbusWatch:
        options = self.options
        return ModbusWatch(
            self.services,
            poll_s=options.modbus_poll_s,
            max_conditions=options.max_modbus_conditions,
            ledger=self.ledger,
        )

    def _bind(self) -> None:
        services, scheduler = self.services, self.scheduler
        services.runs = self
        services.idle = scheduler.idle
        services.busy = scheduler.busy
        services.granted = scheduler.granted
        services.emit_block = self._emit_block
        services.emit_log = self._emit_log
        services.trim_log = self._trim_log
        services.abandoned = scheduler.abandoned

    async def _begin(self, claimed: Any) -> None:
        await self._runner.begin(claimed)

    # ---- lifetime -------------------------------------------------------------------------------

    async def __aenter__(self) -> Self:
        async with AsyncExitStack() as stack:
            await stack.enter_async_context(self.events)
            await stack.enter_async_context(self.services.web)
            await stack.enter_async_context(self.services.databases)
            await stack.enter_async_context(self.services.modbus)
            stack.callback(self.services.close)
            for group in (self._branches, self._tasks, self._loops):
                await stack.enter_async_context(group)
            await self.store.join()
            stack.push_async_callback(self.store.leave)
            self.store.writer.on_fenced = self._fenced
            await self.store.take_over(time())
            await self.store.writer.call(sites.sweep, time())
            if self.services.driver is not None:
                from flatwater.engine.robot import RobotBridge

                self.services.robots = await stack.enter_async_context(RobotBridge(self.services))
            if self.services.modbus.devices:
                self.services.modbus_watch = await stack.enter_async_context(self._modbus_watch())
            stack.push_async_callback(self.drain, 0.0)
            for loop in (self.scheduler.run, self._news.run, self._contexts.run, self.triggers.run):
                self._loops.start(loop(), name=loop.__qualname__)
            stack.push_async_callback(self._loops.stop)
            self._stack = stack.pop_all()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._stack.aclose()
        self._results.close()

    def stop_claiming(self) -> None:
        """Take no further run into memory."""
        self.scheduler.stop_claiming()

    async def drain(self, timeout_s: float) -> None:
        """Stop claiming, let executing blocks end within ``timeout_s`` seconds, give all runs back."""
        await self.scheduler.drain(timeout_s)

    def _fenced(self) -> None:
        log.error("another process has taken over this one's runs: leaving them, and beginning anew")
        with suppress(ClosedError):  # else it is leaving anyway
            self._loops.start(self._join_again(), name="join again")

    async def _join_again(self) -> None:
        """After a time in which this process could not show that it lives: leave all runs, and be a worker anew."""
        await self.scheduler.leave_all()
        with suppress(FencedError):
            await self.store.writer.flush()  # what they still wrote is refused; nothing of it may come later
        await self.store.leave()
        await self.store.join()
        self.scheduler.go_on()

    # ---- definitions ----------------------------------------------------------------------------

    async def save(self, definition: Mapping[str, Any] | bytes | str, id: str | None = None) -> Definition:
        """Check and store a definition. Raises ``DefinitionError`` with all its problems."""
        return await self.library.save(definition, id)

    # ---- submitting -----------------------------------------------------------------------------

    async def submit(self, definition_id: str, inputs: Mapping[str, Any] | None = None, **wish: Any) -> str:
        """Accept a run; it is durable when this returns its id.

        ``priority``: higher is sooner; one step outweighs ``ageing_s`` seconds of waiting.
        ``delay_s`` or ``due_at``: not before. ``idempotency_key``: the same key again returns the
        same run. ``retry``: ``{max_attempts, delay_s, factor, max_delay_s, jitter}``.
        ``timeout_s``: the run fails when it takes longer. ``trace``: the caller's ``traceparent`` (and ``tracestate``).
        Raises ``NotFoundError``, ``DefinitionError`` (inputs), ``InputError``, ``ConflictError``
        (the key was used for another run), ``StoreError`` (nothing was stored).
        """
        return (await self.accept(definition_id, inputs, **wish)).id

    async def accept(self, definition_id: str, inputs: Mapping[str, Any] | None = None, **wish: Any) -> runs.Submitted:
        """As `submit`, and says whether the run is new: ``created`` is false for a key that was used before."""
        return await self._accept(*await self.compose(definition_id, inputs, **wish))

    async def compose(
        self, definition_id: str, inputs: Mapping[str, Any] | None = None, **wish: Any
    ) -> tuple[NewRun, Flow]:
        """A run as ``submit`` stores it, for whoever does so in a transaction of its own; then call ``submitted``."""
        definition = await self.library.current(definition_id)
        flow = await self.library.flow(definition.hash)
        origin = Origin(
            definition_id, definition.label, definition.version, definition.hash, flow.timeout_s, flow.release
        )  # fmt: skip
        return self._new(origin, check_inputs(flow, inputs or {}), Submission(**wish)), flow

    async def submit_call(self, block: Any, /, inputs: Mapping[str, Any] | None = None, **wish: Any) -> str:
        """Run a single `@block` function, or a block type by name, as a run of its own."""
        kind = self.registry.require(block) if isinstance(block, str) else self._kind(block)
        flow = self.library.call_flow(kind)
        hash = CALL + kind.type
        origin = Origin(hash, kind.type, 1, hash)
        return (await self._accept(self._new(origin, inputs or {}, Submission(**wish)), flow)).id

    def _kind(self, block: Any) -> Kind:
        """The kind of a decorated function, registered here if it was not."""
        kind = kind_of(block)
        if kind is None:
            raise InputError(f"{block!r} is no block", hint="decorate the function with @block(…)")
        return self.registry.register(kind)

    def _new(self, origin: Origin, inputs: Mapping[str, Any], wish: Submission) -> NewRun:
        traced = self.services.spans.submitted(origin, wish)
        return new_run(origin, inputs, traced, self.options.ageing_s, self.options.max_run_depth)

    async def _accept(self, new: NewRun, flow: Flow) -> runs.Submitted:
        writer = self.store.writer
        await writer.room()
        self._submitted += 1
        if new.out_order_no is not None:
            submitted = await writer.call(runs.submit, new)
            self._queued(new, submitted.created)
            return submitted
        if new.parent_id is None and new.queue == "ready" and self.scheduler.reserve():
            await self._accept_running(new, flow)
        else:
            await writer.put(runs.insert(new))
            self._queued(new, True)
        return runs.Submitted(new.id, created=True)

    def listen(self, listening: Coroutine[Any, Any, None], name: str) -> asyncio.Task[None]:
        """Run a loop for as long as the engine runs."""
        return self._loops.start(listening, name=name)

    def submitted(self, new: NewRun) -> None:
        """A composed run has been stored."""
        self._submitted += 1
        self._queued(new, True)

    def _queued(self, new: NewRun, created: bool) -> None:
        if not created:
            return
        if new.queue == "due" and new.due_at is not None:
            self.scheduler.due(new.due_at)
        else:
            self.scheduler.ready()
        self._emit_run(new.id, State.QUEUED, new.definition_id, new.label)

    async def _accept_running(self, new: NewRun, flow: Flow) -> None:
        """Nobody is before it and there is room: it is stored as running and starts once durable."""
        now = time()
        new = msgspec.structs.replace(
            new, state=State.RUNNING, queue=None, epoch=1, worker=self.store.worker, started_at=now
        )
        commit = self.store.writer.put(runs.insert(new))
        try:
            await commit
        except asyncio.CancelledError:
            # The caller has left, the row may be stored: somebody must go on with it.
            self._loops.start(self._start_stored(commit, new, flow), name=f"start {new.id}")
            raise
        except BaseException:
            self.scheduler.unreserve()
            raise
        self._start(new, flow)

    async def _start_stored(self, commit: Any, new: NewRun, flow: Flow) -> None:
        try:
            await commit
        except BaseException:
            self.scheduler.unreserve()
            raise
        self._start(new, flow)

    def _start(self, new: NewRun, flow: Flow) -> None:
        self.scheduler.unreserve()
        if self.scheduler.stopping:
            return  # leaving the store gives it back
        self._runner.start(as_claimed(new), flow)
        self._emit_run(new.id, State.RUNNING, new.definition_id, new.label)

    # ---- steering -------------------------------------------------------------------------------

    def executing(self, run_id: str) -> Mapping[str, tuple[Node, float]]:
        """The blocks that this process is in the middle of, by path: what they are and when they began."""
        activation = self.scheduler.active.get(run_id)
        return activation.executing if activation is not None else {}

    async def cancel(self, run_id: str) -> None:
        """End a run as CANCELED, wherever it is. Raises ``ConflictError`` when it has ended."""
        await self._steering.request(run_id, "cancel")

    async def pause(self, run_id: str) -> None:
        """Let executing blocks end, then hold the run until ``resume``."""
        await self._steering.request(run_id, "pause")

    async def resume(self, run_id: str) -> None:
        """Go on with a PAUSED run. For one that needs an operator: its block did happen, go on after it."""
        await self._steering.decide(run_id, "resume")

    async def retry(self, run_id: str) -> None:
        """Go on with a FAILED or CANCELED run at the block that failed; NEEDS_OPERATOR: execute that block again."""
        await self._steering.decide(run_id, "retry")

    async def publish(self, name: str, data: Any = None) -> Delivery:
        """Deliver an external event to the blocks that wait for it, and start what it triggers."""
        published = await self.store.writer.call(events.publish, name, dump(data), time())
        self.scheduler.granted(published.grants)
        started = await self.triggers.fire_all(published.triggers, {"event": {"name": name, "data": data}})
        return Delivery(len(published.grants), started)

    # ---- awaiting -------------------------------------------------------------------------------

    async def result(self, run_id: str, timeout_s: float | None = None) -> Outcome:
        """Wait for the end of a run. Raises ``TimeoutError``, ``NotFoundError``."""

        async def first() -> None:
            if run_id not in self.scheduler.active:
                await self._results.look(run_id)

        return await self._results.wait(run_id, timeout_s, first)

    # ---- what activations report ----------------------------------------------------------------

    def _left(self, activation: Activation, ending: Ending) -> None:
        row = activation.row
        self._emit_run(row.id, ending.state, row.definition_id, row.label)
        if ending.ended:
            self.figures.left(row, ending.state, time())
            if row.id in self._results:
                self._results.resolve(
                    Outcome(row.id, ending.state, ending.outputs or {}, ending.error, ending.error_path)
                )

    def _emit_run(self, run_id: str, state: str, definition: str, label: str) -> None:
        if self.events.wanted:
            self.events.publish(
                {"type": "run", "id": run_id, "state": state, "definition": definition, "label": label, "at": time()}
            )

    def _emit_block(self, run_id: str, path: str, name: str, state: str) -> None:
        if self.events.wanted:
            self.events.publish({"type": "block", "run_id": run_id, "path": path, "name": name, "state": state})

    def _emit_log(self, run_id: str, path: str, level: str, message: str) -> None:
        self.events.offer(log_event, run_id, path, level, message)

    def _trim_log(self, run_id: str) -> None:
        trim = self.store.writer.call(logs.trim, run_id, self.options.max_log_lines)
        with suppress(LimitError):  # the next lines will ask again
            self._loops.start(trim, name=f"trim the log of {run_id}")

    def statistics(self) -> EngineStatistics:
        return EngineStatistics(
            scheduler=self.scheduler.statistics(),
            contexts=self._contexts.statistics(),
            submitted=self._submitted,
            ended=dict(self.figures.ended),
            flows=len(self.library),
            awaited=len(self._results),
        )


def log_event(run_id: str, path: str, level: str, message: str) -> dict[str, Any]:
    """The live event of a log line; long ones are cut, the store has all of them."""
    line = {"run_id": run_id, "path": path, "level": level, "message": message[:MAX_SHOWN]}
    return {"type": "log", "at": time(), **line}


def _web(options: EngineOptions, ledger: Ledger) -> Web:
    return Web(
        max_connections=options.max_http_connections, max_response_bytes=options.max_response_bytes, ledger=ledger
    )


def _databases(urls: Mapping[str, str], options: EngineOptions, ledger: Ledger) -> Databases:
    return Databases(urls, max_connections=options.max_database_connections, max_rows=options.max_rows, ledger=ledger)


def _modbus(urls: Mapping[str, str], options: EngineOptions, ledger: Ledger) -> Modbus:
    return Modbus(urls, max_connections=options.max_modbus_connections, ledger=ledger)
