"""A process that can be asked: this one (:class:`Here`) or another (:func:`flatwater.memory.attach.attach`).

Everything above (growth, diagnosis, the live views) takes a :class:`Target`, so it works on both alike.
"""

from __future__ import annotations

import os
from types import TracebackType
from typing import Any, Protocol, Self

from flatwater.memory.command import Session, run
from flatwater.memory.heap_graph import Graph
from flatwater.memory.heap_model import Census, Container, census_of


class Target(Protocol):
    """A process that answers the commands of :mod:`flatwater.memory.command`. Leave it when done: it is a ``with``."""

    pid: int

    def ask(self, name: str, /, **arguments: Any) -> Any:
        """Run a command there and give its JSON value. Raises FlatwaterError or HeapError with the remedy."""
        ...

    def close(self) -> None: ...

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None: ...


class Here:
    """This process as a target."""

    def __init__(self) -> None:
        self.pid = os.getpid()
        self._session = Session()

    def ask(self, name: str, /, **arguments: Any) -> Any:
        return run(self._session, name, arguments)

    def close(self) -> None:
        """Let go of the graph. Closing twice is allowed."""
        self._session.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()


class _Source:
    """The target's snapshot as the source of a Graph here."""

    def __init__(self, target: Target, settings: dict[str, Any]) -> None:
        self._target = target
        opened = target.ask("graph_open", **settings)
        self.pause_s: float = opened["pause_s"]
        self._figures = opened["figures"]

    def ask(self, line: str = "") -> Any:
        return self._target.ask("graph_ask", line=line) if line else self._figures

    def end(self) -> None:
        self._target.ask("graph_close")


def graph(target: Target, **settings: Any) -> Graph:
    """The target's reference graph; ``settings`` are those of :func:`flatwater.memory.heap.graph`. One at a time."""
    return Graph(_Source(target, settings))


def census(target: Target, **settings: Any) -> Census:
    """The target's heap by type; ``settings`` are those of :func:`flatwater.memory.heap.census`."""
    raw = target.ask("census", **settings)
    return census_of(raw["types"], raw["missing"])


def containers(target: Target, **settings: Any) -> tuple[Container, ...]:
    """The target's containers; ``settings`` are those of :func:`flatwater.memory.heap.containers`."""
    return tuple(Container(*row) for row in target.ask("containers", **settings))
