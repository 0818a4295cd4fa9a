"""Which keys are due when: for expiry that costs a little at each store, and never a sweep.

Keys stand in chunks of at most 1,024 that are due at about the same time; a key costs 8 bytes. What leaves before its
time leaves its place behind. Such places are collected chunk by chunk, so that no call takes long and they stay fewer
than the keys that live.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from heapq import heapify, heappop, heappush
from typing import Generic, TypeVar

K = TypeVar("K")

_CHUNK = 1024
_SPARE = 4096  # places left behind that are not worth collecting


class Schedule(Generic[K]):
    """``is_held(key, ticket)`` says whether ``key`` still stands where :meth:`add` put it under ``ticket``."""

    def __init__(self, span_s: float, is_held: Callable[[K, int], bool]) -> None:
        self._span_s = span_s  # a key is found due at most this much late
        self._is_held = is_held
        self._chunks: dict[int, list[K]] = {}
        self._open: dict[int, int] = {}  # span → ticket of the chunk that takes its keys
        self._due: list[tuple[int, int]] = []  # heap of (span, ticket)
        self._turn: deque[int] = deque()  # tickets, in the order of collection
        self._last = 0
        self._count = 0

    def add(self, key: K, at: float) -> int:
        """Note that ``key`` is due at ``at``; return its ticket (32 bits, never 0)."""
        span = int(at / self._span_s) + 1
        ticket = self._open.get(span)
        chunk = self._chunks.get(ticket) if ticket is not None else None
        if ticket is None or chunk is None or len(chunk) >= _CHUNK:
            ticket, chunk = self._new_chunk(span)
        chunk.append(key)
        self._count += 1
        return ticket

    def due(self, now: float, max_keys: int) -> list[K]:
        """Take out up to ``max_keys`` keys whose time has passed, those still held."""
        found: list[K] = []
        while self._due and max_keys > 0 and self._due[0][0] * self._span_s <= now:
            span, ticket = self._due[0]
            chunk = self._chunks.get(ticket)
            if not chunk:
                self._drop(span, ticket)
                continue
            taken = chunk[-max_keys:]
            del chunk[-max_keys:]
            max_keys -= len(taken)
            self._count -= len(taken)
            found += [key for key in taken if self._is_held(key, ticket)]
        return found

    def collect(self, held: int) -> None:
        """Drop the places left behind in one chunk, when there are more of them than half of ``held``."""
        if self._count <= held + held // 2 + _SPARE or not self._turn:
            return
        ticket = self._turn.popleft()
        chunk = self._chunks.get(ticket)
        if chunk is None:
            return
        kept = [key for key in chunk if self._is_held(key, ticket)]
        self._count -= len(chunk) - len(kept)
        if kept:
            self._chunks[ticket] = kept
            self._turn.append(ticket)
        else:
            del self._chunks[ticket]

    def clear(self) -> None:
        self._chunks.clear()
        self._open.clear()
        self._due.clear()
        self._turn.clear()
        self._count = 0

    def __len__(self) -> int:
        """Keys and places left behind."""
        return self._count

    def _new_chunk(self, span: int) -> tuple[int, list[K]]:
        self._last = ticket = self._last % 0xFFFF_FFFF + 1
        chunk: list[K] = []
        self._chunks[ticket] = chunk
        self._open[span] = ticket
        heappush(self._due, (span, ticket))
        self._turn.append(ticket)
        self._tidy()
        return ticket, chunk

    def _tidy(self) -> None:
        """Let go of tickets whose chunk is gone; called once a chunk, so that there are never many."""
        for _ in range(2):
            ticket = self._turn.popleft()
            if ticket in self._chunks:
                self._turn.append(ticket)
            if not self._turn:
                return
        if len(self._due) > 2 * len(self._chunks) + 64:
            self._due = [(span, ticket) for span, ticket in self._due if ticket in self._chunks]
            heapify(self._due)
            self._open = {span: ticket for span, ticket in self._open.items() if ticket in self._chunks}

    def _drop(self, span: int, ticket: int) -> None:
        heappop(self._due)
        self._chunks.pop(ticket, None)
        if self._open.get(span) == ticket:
            del self._open[span]
