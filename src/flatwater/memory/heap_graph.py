"""The reference graph of this process, built by a forked child from its frozen copy. Standard library only."""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import sys
import threading
import time
import weakref
from pathlib import PurePath
from types import FrameType, ModuleType, TracebackType
from typing import Any, Protocol

from flatwater.memory.heap_model import (
    Census,
    Difference,
    Garbage,
    GraphStatistics,
    HeapError,
    HeapFull,
    HolderGrowth,
    Neighbours,
    Node,
    ObjectUnknown,
    Root,
    census_diff,
    census_of,
    link_of,
    node_of,
    root_of,
)
from flatwater.memory.heap_path import Path

_PACKAGE = str(PurePath(__file__).parent) + os.sep
_END_S = 5.0


def locals_of_frames(heap: ModuleType) -> list[tuple[object, tuple[str, str, int, int], str]]:
    """Local variables of running frames, for builds of the walker that cannot read frames themselves.

    Empty where they can, and before Python 3.13, where reading ``f_locals`` writes into the frame.
    """
    if heap.INTERNALS or sys.hexversion < 0x030D0000:
        return []
    native = {thread.ident: thread.native_id or 0 for thread in threading.enumerate()}
    rows: list[tuple[object, tuple[str, str, int, int], str]] = []
    for ident, top in sys._current_frames().items():
        frame: FrameType | None = top
        while frame is not None:
            code = frame.f_code
            if not code.co_filename.startswith(_PACKAGE):
                key = (code.co_qualname, code.co_filename, frame.f_lineno or 0, native.get(ident, 0))
                if frame.f_locals is not frame.f_globals:
                    rows += [(value, key, name) for name, value in frame.f_locals.items()]
            frame = frame.f_back
    return rows


class Source(Protocol):
    """Whatever answers the questions of a graph: the forked child, or an agent in another process that has one."""

    pause_s: float

    def ask(self, line: str = "") -> Any: ...

    def end(self) -> object: ...


class Child:
    """The forked child: one line of question, one line of JSON."""

    def __init__(self, heap: ModuleType, max_bytes: int, timeout_s: float, values: bool, nice: int) -> None:
        self._lock = threading.Lock()
        self._timeout_s = timeout_s
        request, self._request = os.pipe()
        self._reply, reply = os.pipe()
        self._buffer = b""
        self.pid, self.pause_s, pidfd = 0, 0.0, -1
        try:
            frames = locals_of_frames(heap)
            self.pid, self.pause_s = heap.fork_graph(request, reply, max_bytes, nice, values, _PACKAGE, frames)
            with contextlib.suppress(OSError):  # a kernel before 5.3, or a seccomp filter
                pidfd = os.pidfd_open(self.pid)
        finally:
            os.close(request)
            os.close(reply)
            self.end = weakref.finalize(self, _end, os.getpid(), self.pid, pidfd, self._request, self._reply)
            if not self.pid:
                self.end()

    def ask(self, line: str = "") -> Any:
        """The answer to a question; without one, the child's first words."""
        with self._lock:
            if not self.end.alive:
                raise HeapError("this graph is closed: take a new one")
            try:
                if line:
                    os.write(self._request, line.encode() + b"\n")
                answer = json.loads(self._line(time.monotonic() + self._timeout_s))
            except BaseException:  # the stream is out of step now: it cannot be used again
                self.end()
                raise
        if isinstance(answer, dict) and "error" in answer:
            raise _error(answer)
        return answer

    def _line(self, deadline: float) -> bytes:
        poll = select.poll()
        poll.register(self._reply, select.POLLIN)
        while b"\n" not in self._buffer:
            if not poll.poll(max(0.0, deadline - time.monotonic()) * 1000):
                raise HeapError(f"the graph was not ready within timeout_s={self._timeout_s:g}; give it more time")
            part = os.read(self._reply, 1 << 20)
            if not part:
                raise HeapError(
                    "the child that held the snapshot is gone (killed for memory, or by a type whose tp_traverse"
                    " fails); this process is unharmed: try again with a lower max_bytes, or take a census"
                )
            self._buffer += part
        line, _, self._buffer = self._buffer.partition(b"\n")
        return line


def _end(owner: int, pid: int, pidfd: int, *pipe: int) -> None:
    """End the child and reap it; whoever else reaped it already is welcome. A fork of the owner only lets go."""
    mine = os.getpid() == owner
    with contextlib.suppress(OSError):
        if mine:
            os.write(pipe[0], b"quit\n")
    for fd in pipe:
        os.close(fd)
    if not mine:
        if pidfd >= 0:
            os.close(pidfd)
        return
    if pidfd >= 0:
        waiting = select.poll()
        waiting.register(pidfd, select.POLLIN)
        if not waiting.poll(_END_S * 1000):
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(pidfd, signal.SIGKILL)
        os.close(pidfd)
    if pid:
        with contextlib.suppress(ChildProcessError):
            os.waitpid(pid, 0)


def _error(answer: dict[str, Any]) -> HeapError:
    if answer["error"] == "unknown":
        return ObjectUnknown("the object is not in this graph: it is younger than the snapshot")
    if answer["error"] == "memory":
        used, objects = answer.get("used", 0), answer.get("objects", 0)
        return HeapFull(
            f"the graph needs more than max_bytes: {used:,} bytes were used at {objects:,} objects; raise it"
        )
    return HeapError(f"the snapshot's child did not understand: {answer['error']}")


class Graph:
    """The reference graph of a process at one moment: who holds what, and how much.

    A forked child holds the frozen copy and answers; this process stands still for the fork alone
    (``statistics().pause_s``) and pays a page copy for what it writes while the graph is open: close it soon, or use
    it in a ``with``. Made by :func:`flatwater.memory.heap.graph`. Methods may be called from any thread.
    """

    def __init__(self, source: Source) -> None:
        self._child = source
        try:
            figures = self._child.ask()
        except BaseException:
            self._child.end()
            raise
        self._statistics = GraphStatistics(pause_s=self._child.pause_s, **figures)

    def statistics(self) -> GraphStatistics:
        """Sizes of the graph in objects, references and bytes; seconds of each phase and of the pause."""
        return self._statistics

    def close(self) -> None:
        """End the child. Closing twice is allowed."""
        self._child.end()

    def __enter__(self) -> Graph:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    async def __aenter__(self) -> Graph:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        self.close()

    # Every question may be asked of an object or, where only its address is known (a Container, a Node), of that.

    def node(self, item: object, *, address: int | None = None) -> Node:
        """The object's type, own bytes, retained bytes and, for a container, number of entries.

        Raises ObjectUnknown for an object younger than the graph, as all questions about one object do.
        """
        node = node_of(self._ask("node", item, address))
        assert isinstance(node, Node)  # only nodes have addresses
        return node

    def retained(self, item: object, *, address: int | None = None) -> int:
        """Bytes that would be freed if the object were: its own and all that only it keeps alive."""
        return self.node(item, address=address).retained

    def dominators(self, item: object, *, address: int | None = None) -> tuple[Node | Root, ...]:
        """The objects without which the object would be freed, nearest first, at most 64; a root may end the row."""
        return tuple(node_of(raw) for raw in self._ask("dominators", item, address))

    def dominator(self, item: object, *, address: int | None = None) -> Node | Root | None:
        """The nearest of :meth:`dominators`; None when several roots hold the object independently."""
        return next(iter(self.dominators(item, address=address)), None)

    def path_to(self, item: object, *, address: int | None = None) -> Path:
        """The shortest path from a root, through modules and other lasting names if there is one, else through frames.

        The root is ``garbage`` when nothing reaches the object, ``C`` when only C code that hides its references does.
        """
        raw = self._ask("path", item, address)
        return Path(root_of(raw["root"]), tuple(link_of(step) for step in raw["steps"]), raw["skipped"])

    def children(self, item: object, *, limit: int = 20, address: int | None = None) -> tuple[Node, ...]:
        """The objects whose nearest dominator this one is, by retained bytes: where its retained size comes from."""
        return self._nodes(self._ask("children", item, address, limit))

    def holdings(self, item: object, *, address: int | None = None) -> Census:
        """What the object retains, itself included, by type."""
        return census_of(self._ask("holdings", item, address)["types"])

    def foreign(self, item: object, *, address: int | None = None) -> int:
        """How many of the objects that it retains may own memory that no object shows: types of C extensions."""
        return int(self._ask("foreign", item, address)["count"])

    def referrers(self, item: object, *, limit: int = 20, address: int | None = None) -> Neighbours:
        """Who refers to the object, and how. Roots count."""
        return self._neighbours("referrers", item, address, limit)

    def referents(self, item: object, *, limit: int = 20, address: int | None = None) -> Neighbours:
        """What the object refers to, and how."""
        return self._neighbours("referents", item, address, limit)

    def garbage(self) -> Garbage:
        """What a collection would free. Nothing is collected."""
        raw = self._child.ask("garbage 0 0")
        return Garbage(raw["retained"], census_of(raw["types"]))

    def census(self) -> Census:
        """Every object of the graph by type, atoms included."""
        return census_of(self._child.ask("census 0 0")["types"])

    def largest(self, limit: int = 20) -> tuple[Node, ...]:
        """The objects that retain most, at most 1000; an object and its only holder both appear."""
        return self._nodes(self._child.ask(f"largest 0 {limit}"))

    def outline(self, limit: int = 1000) -> tuple[tuple[Node, int, Root | None], ...]:
        """The objects that retain most, at most 1000, each with what dominates it: an address, or a root.

        Of a chain of like objects, each of which holds the rest, only the first two are given. Neither is there
        (0, None) where several roots hold an object independently.
        """
        roots = self.roots()
        rows = self._child.ask(f"outline 0 {limit}")
        return tuple(
            (node, row["above"], roots[row["root"]] if row["root"] >= 0 else None)
            for row in rows
            if isinstance(node := node_of(row["node"]), Node)
        )

    def roots(self) -> tuple[Root, ...]:
        """Every root with what it alone retains."""
        return tuple(root_of(raw) for raw in self._child.ask("roots 0 0"))

    def diff(self, earlier: Graph, *, limit: int = 20) -> Difference:
        """What changed since an earlier graph of the same process.

        Holders are found among the 1000 that retain most; each has its path: ``path_to(None, address=…)``.
        """
        before = {node.address: node.retained for node in earlier.largest(1000)}
        grown = [HolderGrowth(node, before.get(node.address)) for node in self.largest(1000)]
        holders = sorted((row for row in grown if row.bytes > 0), key=lambda row: -row.bytes)
        return Difference(census_diff(earlier.census(), self.census()), tuple(holders[:limit]))

    def _ask(self, command: str, item: object, address: int | None, limit: int = 0) -> Any:
        return self._child.ask(f"{command} {id(item) if address is None else address} {limit}")

    def _neighbours(self, command: str, item: object, address: int | None, limit: int) -> Neighbours:
        raw = self._ask(command, item, address, limit)
        return Neighbours(raw["count"], tuple(link_of(row) for row in raw["rows"]))

    @staticmethod
    def _nodes(rows: list[dict[str, Any]]) -> tuple[Node, ...]:
        return tuple(node for node in map(node_of, rows) if isinstance(node, Node))
