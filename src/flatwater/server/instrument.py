"""The server looks at its own heap: types and containers with their past, one object after another, the diagnosis.

One graph at a time is open, for at most ``keep_s`` after the last question: its child keeps a copy of every page that
this process writes meanwhile. Whatever stops this process or takes long runs in a thread, one at a time.
"""

from __future__ import annotations

import asyncio
import logging
import time
import weakref
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Any, Self, TypeVar

from flatwater.memory import heap, pool
from flatwater.memory.heap_model import HeapError, HeapMissing, Link, Node, ObjectUnknown, report_id
from flatwater.memory.live import HeapWatch
from flatwater.memory.target import Here, graph
from flatwater.memory.usage import Usage, usage
from flatwater.server.problem import RequestError

T = TypeVar("T")

log = logging.getLogger(__name__)
MAX_LINKS = 100
MAX_KNOWN = 20_000
KEEP_S = 60.0
HOLDERS_S = 60.0
"""Who holds what should be dead is looked for at most each so many seconds."""
_REST = 20  # this process runs so many times as long as a look stops it
_LEAST_S = 1.0


class Instruments:
    """``async with``: leaving closes the graph. Raises RequestError where the walker cannot answer."""

    def __init__(self, *, keep_s: float = KEEP_S) -> None:
        self._here = Here()
        self._watch = HeapWatch(self._here)
        self._looked_at = float("-inf")
        self._keep_s = keep_s
        self._holders_at = float("-inf")
        self._graph: heap.Graph | None = None
        self._known: dict[str, int] = {}  # ids that this graph has shown, to their addresses
        self._lock = asyncio.Lock()
        self._expiry: asyncio.TimerHandle | None = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        async with self._lock:
            self._keep()
            await asyncio.to_thread(self._close)

    async def usage(self) -> tuple[Usage, tuple[pool.Pool, ...]]:
        """All figures of this process, and its SQLAlchemy pools."""
        return await self._run(lambda: (usage(), pool.pools()))

    async def look(self) -> HeapWatch:
        """The watch after a fresh look, or after the last one while this process must rest from it."""
        return await self._run(self._look)

    async def take(self) -> heap.Graph:
        """A new graph, in place of the one before."""
        return await self._run(self._take)

    async def ask(self, question: Callable[[heap.Graph], T]) -> T:
        """Ask the open graph; opens one when there is none."""
        return await self._run(lambda: question(self._graph or self._take()))

    async def holders(self, references: Sequence[weakref.ref[Any]]) -> Sequence[str]:
        """The retaining path of each of these objects, "" where there is none to tell; () when it is too soon to look.

        Of a graph of its own: one that is open was taken before they should have died.
        """
        if time.monotonic() - self._holders_at < HOLDERS_S:
            return ()
        self._holders_at = time.monotonic()
        try:
            return await self._run(lambda: paths(references))
        except RequestError as error:
            log.info("who holds what should be dead is not known: %s", error)
            return ()

    async def command(self, name: str, **arguments: Any) -> Any:
        """Run a command of :mod:`flatwater.memory.command` here."""
        return await self._run(lambda: self._here.ask(name, **arguments))

    def know(self, node: Node) -> str:
        """The id under which :meth:`address` will find the object while the graph is open."""
        if len(self._known) < MAX_KNOWN:
            self._known[node.id] = node.address
        return node.id

    def know_container(self, address: int) -> None:
        """As :meth:`know`, for a row of :meth:`look`; younger than the graph, it will not be found there."""
        self._known[report_id(address)] = address

    def address(self, ident: str) -> int:
        """The object of an id. Raises RequestError 404 for one that the open graph has not shown."""
        try:
            return self._known[ident]
        except KeyError:
            hint = "take a new graph and begin from its largest objects"
            raise RequestError(404, "not_found", f"no object {ident!r} in the open graph", hint=hint) from None

    def know_links(self, links: tuple[Link, ...]) -> None:
        """As :meth:`know`, for all neighbours."""
        for link in links:
            if isinstance(link.node, Node):
                self.know(link.node)

    async def _run(self, work: Callable[[], T]) -> T:
        async with self._lock:
            self._keep()
            try:
                return await asyncio.to_thread(work)
            except HeapMissing as error:
                raise RequestError(503, "no_walker", str(error)) from error
            except ObjectUnknown as error:
                raise RequestError(404, "not_found", str(error), hint="take a new graph") from error
            except HeapError as error:
                raise RequestError(503, "heap", str(error), hint="take a new graph") from error
            finally:
                self._expire_later()

    def _look(self) -> HeapWatch:
        now = time.monotonic()
        if now - self._looked_at >= max(_LEAST_S, _REST * self._watch.cost_s):
            self._watch.look()
            self._looked_at = now
        return self._watch

    def _take(self) -> heap.Graph:
        self._close()
        self._graph = graph(self._here)
        return self._graph

    def _close(self) -> None:
        self._known.clear()
        if self._graph is not None:
            self._graph.close()
            self._graph = None

    def _keep(self) -> None:
        """Stop the clock of the open graph."""
        if self._expiry is not None:
            self._expiry.cancel()
            self._expiry = None

    def _expire_later(self) -> None:
        if self._graph is not None:
            self._expiry = asyncio.get_running_loop().call_later(self._keep_s, self._expire)

    def _expire(self) -> None:
        self._expiry = None
        self._close()  # reaps a process: a matter of milliseconds


def paths(references: Sequence[weakref.ref[Any]]) -> list[str]:
    """The retaining paths of objects, from one graph. Raises HeapError when there is none."""
    with heap.graph() as taken:  # before this thread holds any of them itself
        return [_path(taken, reference) for reference in references]


def _path(taken: heap.Graph, reference: weakref.ref[Any]) -> str:
    item = reference()
    try:
        return str(taken.path_to(item)) if item is not None else ""
    except ObjectUnknown:
        return ""
