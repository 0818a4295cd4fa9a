"""What may go wrong without harm: the parts of a loop that only tell or write down what happens."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager

log = logging.getLogger("flatwater.guard")


class Bookkeeping:
    """Parts of the work that cost figures when they fail (a full disk, a folder that is gone), never a worker.

    What went wrong is logged, for each part at most once in ``repeat_s``.
    """

    def __init__(self, *, repeat_s: float = 60.0) -> None:
        self._repeat_s = repeat_s
        self._told: dict[str, float] = {}  # by part, of which there are few

    @contextmanager
    def part(self, what: str) -> Iterator[None]:
        """``what`` says what is lost when the block fails."""
        try:
            yield
        except Exception as error:  # whatever it is: nobody would look after the workers
            now = time.monotonic()
            if now - self._told.get(what, -self._repeat_s) >= self._repeat_s:
                self._told[what] = now
                log.error("%s: %s: %s", what, type(error).__name__, error)
