"""What can be asked of a process from outside: each function here is a command of the agent.

A command takes JSON values and gives JSON values; the agent (:mod:`flatwater.memory.agent`) runs it in the process that
is examined, :mod:`flatwater.memory.target` is the other end. Standard library only. Addresses go over the agent's
socket, which only the same user can open; reports never show them.
"""

from __future__ import annotations

import gc
import json
import os
import platform
import sys
import threading
from collections.abc import Callable
from dataclasses import asdict
from typing import Any, cast

from flatwater import __version__
from flatwater.memory import heap
from flatwater.memory.bound import bounds
from flatwater.memory.heap_graph import Child
from flatwater.memory.heap_model import HeapError
from flatwater.memory.ledger import ledger
from flatwater.memory.maker import types_made, watch
from flatwater.memory.pool import pools as find_pools
from flatwater.memory.sample import hold, lengths, sample
from flatwater.memory.sampler import allocations, sample_allocations
from flatwater.memory.sampler import stop as stop_sampler
from flatwater.memory.usage import trim_malloc
from flatwater.memory.usage import usage as usage_now
from flatwater.memory.work import instances, work_done

Command = Callable[..., Any]
COMMANDS: dict[str, Command] = {}


class Session:
    """What one client holds in the process while it is connected: at most one graph. Closing twice is allowed.

    ``closed`` is set once the client is gone: commands that take long watch it.
    """

    def __init__(self) -> None:
        self.graph: Child | None = None
        self.sampling = False  # the sampler runs for this client alone
        self.closed = threading.Event()

    def close(self) -> None:
        """Let go of everything."""
        self.close_graph()
        if self.sampling:
            self.sampling = False
            stop_sampler()

    def close_graph(self) -> None:
        """End the snapshot's child, if there is one."""
        if self.graph is not None:
            self.graph.end()
            self.graph = None


def command(function: Command) -> Command:
    """Make a function ``(session, **arguments)`` a command of its own name."""
    COMMANDS[function.__name__] = function
    return function


command(sample)
command(hold)
command(lengths)
command(work_done)
command(instances)
command(bounds)
command(ledger)
command(watch)
command(types_made)
command(allocations)
command(sample_allocations)


@command
def hello(session: Session) -> dict[str, Any]:
    """Who answers."""
    return {
        "pid": os.getpid(),
        "python": platform.python_version(),
        "implementation": sys.implementation.name,
        "flatwater": __version__,
        "executable": sys.executable,
        "threads": threading.active_count(),
        "extension": heap._heap is not None,
        "missing": heap._missing,
    }


@command
def usage(session: Session, *, shares: bool = True) -> dict[str, Any]:
    """:func:`flatwater.memory.usage.usage` as JSON."""
    return asdict(usage_now(shares=shares))


@command
def census(session: Session, *, scope: heap.Scope = "containers", max_bytes: int = 512 << 20) -> dict[str, Any]:
    """Rows (type, count, bytes, tracked) and what is missing."""
    found = heap.census(scope, max_bytes=max_bytes)
    rows = [[row.type, row.count, row.bytes, row.tracked] for row in found.types]
    return {"types": rows, "missing": found.missing}


@command
def containers(
    session: Session, *, min_length: int = 100, max_containers: int = 100_000, max_bytes: int = 512 << 20
) -> list[list[Any]]:
    """Rows (address, type, length, bytes), longest first."""
    found = heap.containers(min_length, max_containers=max_containers, max_bytes=max_bytes)
    return [[row.address, row.type, row.length, row.bytes] for row in found]


@command
def graph_open(
    session: Session, *, max_bytes: int = 2 << 30, timeout_s: float = 300.0, values: bool = False, nice: int = 19
) -> dict[str, Any]:
    """Fork the snapshot, in place of the session's former one: the child's first words and the pause."""
    session.close_graph()
    child = session.graph = Child(heap._extension(), max_bytes, timeout_s, values, nice)
    figures = child.ask()
    return {"pause_s": child.pause_s, "figures": figures}


@command
def graph_ask(session: Session, *, line: str) -> Any:
    """A question to the snapshot's child, as :class:`flatwater.memory.heap_graph.Graph` writes it."""
    if session.graph is None:
        raise HeapError("no graph is open: take one first")
    return session.graph.ask(line)


@command
def graph_close(session: Session) -> None:
    """End the snapshot's child."""
    session.close_graph()


@command
def pools(session: Session) -> list[dict[str, Any]]:
    """:func:`flatwater.memory.pool.pools` as JSON."""
    return [asdict(pool) for pool in find_pools()]


@command
def collect(session: Session) -> dict[str, int]:
    """Run a full collection: objects that were freed, and those that cannot be."""
    return {"freed": gc.collect(), "uncollectable": len(gc.garbage)}


@command
def trim(session: Session) -> dict[str, int]:
    """Ask malloc to give free memory back to the kernel: RSS before and after, in bytes."""
    before = usage_now(shares=False).memory.rss
    trim_malloc()
    return {"before": before, "after": usage_now(shares=False).memory.rss}


def call(session: Session, name: str, arguments: dict[str, Any]) -> Any:
    """Run a command by name. Raises LookupError for one that does not exist."""
    if name not in COMMANDS:
        raise LookupError(f"there is no command {name!r}; known are {', '.join(sorted(COMMANDS))}")
    return COMMANDS[name](session, **arguments)


def run(session: Session, name: str, arguments: dict[str, Any]) -> Any:
    """:func:`call`, with the value as it would come over a socket."""
    return json.loads(json.dumps(cast(object, call(session, name, arguments))))
