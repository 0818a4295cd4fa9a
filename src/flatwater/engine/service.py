"""What activations and blocks may ask of the engine around them."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol

from flatwater.engine.span import Spans, configured

if TYPE_CHECKING:
    from flatwater.bounded.task import TaskGroup
    from flatwater.engine.activation import Activation
    from flatwater.engine.block import Registry
    from flatwater.engine.database import Databases
    from flatwater.engine.driver import RobotDriver
    from flatwater.engine.modbus import Modbus
    from flatwater.engine.modbus_watch import ModbusWatch
    from flatwater.engine.option import EngineOptions
    from flatwater.engine.robot import RobotBridge
    from flatwater.engine.web import Web
    from flatwater.store.store import Store
    from flatwater.store.waiter import Grant

log = logging.getLogger(__name__)


class Runs(Protocol):
    """What blocks may do to other runs; the engine implements it."""

    async def submit(self, definition_id: str, inputs: Mapping[str, Any] | None = None, **options: Any) -> str: ...
    async def cancel(self, run_id: str) -> Any: ...
    async def pause(self, run_id: str) -> Any: ...
    async def resume(self, run_id: str) -> Any: ...
    async def retry(self, run_id: str) -> Any: ...
    async def publish(self, name: str, data: Any = None) -> Any: ...


@dataclass(slots=True, kw_only=True)
class Services:
    """One engine's parts, handed to every activation."""

    store: Store
    options: EngineOptions
    registry: Registry
    tasks: TaskGroup
    branches: TaskGroup
    web: Web
    databases: Databases
    modbus: Modbus
    driver: RobotDriver | None = None
    functions: Mapping[str, Callable[..., Any]] = field(default_factory=dict)
    runs: Runs = field(init=False)
    idle: Callable[[Activation], None] = field(init=False)
    busy: Callable[[Activation], None] = field(init=False)
    granted: Callable[[Iterable[Grant]], None] = field(init=False)
    emit_block: Callable[[str, str, str, str], None] = field(init=False)
    emit_log: Callable[[str, str, str, str], None] = field(init=False)
    trim_log: Callable[[str], None] = field(init=False)
    abandoned: Callable[[str], None] = field(init=False)
    spans: Spans = field(default_factory=configured)
    robots: RobotBridge | None = None
    modbus_watch: ModbusWatch | None = None
    threads: ThreadPoolExecutor | None = None

    async def in_thread(self, func: Callable[..., Any], arguments: dict[str, Any]) -> Any:
        """Call a plain function in the bounded thread pool, which starts with its first use; it has the context
        variables of the caller."""
        if self.threads is None:
            self.threads = ThreadPoolExecutor(self.options.max_threads, thread_name_prefix="flatwater-block")
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self.threads, partial(copy_context().run, func, **arguments))

    def log_failure(self, run_id: str, path: str, error: BaseException) -> None:
        """A block raised something that is not one of our errors: its traceback goes to the log."""
        log.warning("run %s, block %s failed", run_id, path, exc_info=error, extra={"run_id": run_id, "path": path})

    def close(self) -> None:
        if self.threads is not None:
            self.threads.shutdown(wait=False, cancel_futures=True)
            self.threads = None
