"""What a worker still holds when its tasks are over: which allocator has it, and whether a trim may return it."""

from __future__ import annotations

import time
from collections.abc import Callable

from flatwater.memory.trim import holders


class Rest:
    """Tells the split of the allocators while the level at rest is more than ``part`` above the first one.

    It is measured again when the level has changed by ``part`` since, at most once in ``every_s`` seconds: it takes
    about 1 ms per 100 MB. A worker that is never at rest is measured under way, as seldom.
    """

    def __init__(
        self,
        *,
        part: float = 0.1,
        every_s: float = 60.0,
        split: Callable[[], object] = holders,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._part, self._every_s, self._split, self._clock = part, every_s, split, clock
        self._next = -float("inf")
        self._busy_since: float | None = None
        self._at = 0  # the level at the last split
        self.holders = ""
        self.pending = False  # there is more to tell, later

    def look(self, level: int, base: int, *, resting: bool = True) -> str:
        """The split as a sentence, "" within ``part`` of ``base``; the former one while none may be measured. Bytes."""
        now = self._clock()
        if not resting:
            self._busy_since = now if self._busy_since is None else self._busy_since
            if now < self._busy_since + self._every_s:
                return self.holders
        self._busy_since = None
        self.pending = False
        if level <= base * (1 + self._part):
            self.holders, self._at = "", 0
        elif abs(level - self._at) > self._part * self._at:
            if now < self._next:
                self.pending = True
                return self.holders
            self._next, self._at = now + self._every_s, level
            self.holders = str(self._split())
        return self.holders
