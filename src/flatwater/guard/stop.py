"""How urgently signals ask the supervisor to end. Decisions only."""

from __future__ import annotations

import signal

STOPS = (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT)


class Stop:
    """SIGTERM and SIGINT ask for a warm stop; a second one, and SIGQUIT, for a kill at once.

    What comes within ``twice_s`` of the first is the same wish: ``timeout`` sends its signal to its child and to its
    whole group, and a Ctrl-C reaches a wrapper and the guard, to which the wrapper passes it on.
    """

    def __init__(self, *, twice_s: float = 0.5) -> None:
        self._twice_s = twice_s
        self._since: float | None = None
        self.kills = ""  # why workers are killed now; "" while they may end their work

    @property
    def asked(self) -> bool:
        return self._since is not None

    def take(self, number: int, now: float) -> None:
        """A signal of :data:`STOPS` has come; ``now`` is any clock in seconds."""
        if number == signal.SIGQUIT:
            self.kills = "asked by SIGQUIT"
        elif self._since is not None and now - self._since >= self._twice_s:
            self.kills = self.kills or "asked twice"
        self._since = now if self._since is None else self._since
