"""Who holds a worker's memory, told while there is somebody to tell it; and what is said of tasks that die with it."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from functools import partial

from flatwater.guard.channel import Killed
from flatwater.guard.policy import Limits
from flatwater.memory import heap
from flatwater.memory.trim import holders
from flatwater.quantity import size

log = logging.getLogger("flatwater.guard")


class Witness:
    """Of one worker ``kind``. ``flying()`` gives the tasks in flight: name, id and peak in bytes."""

    def __init__(
        self,
        kind: str,
        limits: Limits,
        *,
        send: Callable[..., object],
        flying: Callable[[], list[tuple[str, str, int]]],
    ) -> None:
        self._kind, self._limits, self._send, self._flying = kind, limits, send, flying
        self._held = ""
        self._told = 0  # the level, the last time

    def look(self, level: int, rss: int) -> None:
        """Tell it again when the level has risen by a quarter since."""
        if level > self._told * 1.25:
            self.tell(level, rss)

    def tell(self, level: int, rss: int) -> None:
        """The largest types, the allocators and the tasks in flight, to the supervisor."""
        self._told = level
        self._held = evidence()
        tasks = [(name, id) for name, id, _ in self._flying()[:20]]
        limit = self._limits.hard or self._limits.soft
        self._send("evidence", kind=self._kind, tasks=tasks, peak=rss, limit=limit, holders=self._held)

    def last_words(
        self, reason: str, level: int, rss: int, write: Callable[[Killed], object] | None
    ) -> Iterator[Callable[[], object]]:
        """The supervisor first, which has the next worker write what this one cannot; then the results in flight."""
        yield partial(self._send, "died", kind=self._kind, reason=reason, level=level)
        yield partial(self.tell, level, rss)
        limit = self._limits.soft if reason == "grace passed" else self._limits.hard
        for name, id, peak in self._flying():
            highest, held = max(peak, rss), self._held
            note = Killed(kind=self._kind, name=name, id=id, reason=reason, peak=highest, limit=limit, holders=held)
            yield partial(log.critical, "%s", note)
            if write is not None:
                yield partial(write, note)


def evidence(max_types: int = 3) -> str:
    """Who holds this process's memory, in one line: the largest types and the allocators."""
    types = heap.census("all").types[:max_types]
    objects = ", ".join(f"{row.count:,} {row.type} ({size(row.bytes)})" for row in types)
    return f"{objects}; {holders()}"
