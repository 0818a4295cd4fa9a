"""Work that may take long, beside a thread that must not wait for it."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

log = logging.getLogger("flatwater.guard")


class Aside:
    """Runs a step in a thread of its own, one at a time; make a new one after a fork."""

    def __init__(self, name: str, step: Callable[[], object]) -> None:
        self._name, self._step = name, step
        self._thread: threading.Thread | None = None

    def begin(self) -> None:
        """Run the step, unless it still runs. What it raises is logged."""
        if self._thread is None or not self._thread.is_alive():
            self._thread = threading.Thread(target=self._run, name=self._name, daemon=True)
            self._thread.start()

    def end(self, seconds: float) -> None:
        """Wait for the step that runs, at most so long; from the step itself, not at all."""
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join(seconds)

    def _run(self) -> None:
        try:
            self._step()
        except Exception:
            log.exception("%s", self._name)
