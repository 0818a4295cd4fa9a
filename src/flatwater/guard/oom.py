"""Which deaths the kernel's out-of-memory killer explains: what it counts in the control groups of some processes."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from flatwater.bounded import check_bound
from flatwater.memory import procfs


class OomKills:
    """Kills for memory among the processes that were looked at; each explains one death, for ``keep_s`` seconds.

    A process may change its group (a command that enters a container): the groups are looked up at each look.
    """

    def __init__(self, *, keep_s: float = 10.0, root: Path = Path("/")) -> None:
        check_bound("keep_s", keep_s, where="guard")
        self._keep_s, self._root = keep_s, root
        self._counts: dict[Path, int] = {}
        self._fresh = 0
        self._until = 0.0

    def look(self, pids: Iterable[int], now: float) -> None:
        """Count what is new; ``now`` is any clock in seconds."""
        own = {counter for pid in pids for counter in procfs.kill_counters(pid, root=self._root)}
        counts = {counter: procfs.kills(counter) for counter in own | self._counts.keys()}
        fresh = sum(max(count - self._counts.get(counter, count), 0) for counter, count in counts.items())
        if fresh:
            self._fresh += fresh
            self._until = now + self._keep_s
        elif now >= self._until:
            self._fresh = 0
            counts = {counter: count for counter, count in counts.items() if counter in own}
        self._counts = counts

    def take(self) -> bool:
        """Whether a kill is there that no death has been explained by; it is used up."""
        if self._fresh <= 0:
            return False
        self._fresh -= 1
        return True
