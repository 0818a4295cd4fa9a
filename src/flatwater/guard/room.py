"""How much memory there is for workers: the limits of each in words, and whether one more fits beside them."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from pathlib import Path

from flatwater.guard.policy import Limits
from flatwater.memory import control_group, procfs
from flatwater.quantity import size

_PART = 0.95  # of the whole that may be taken: the kernel needs some, and levels are a look old


def part(count: int) -> int | None:
    """The part of the control group's limit that each of ``count`` workers has; None where nothing is limited."""
    group = procfs.cgroup()
    return group.limit // count if group is not None and group.limit is not None else None


def fits(need: int) -> bool:
    """Whether ``need`` bytes more fit into the control group and into the machine.

    Page cache that the kernel can drop is room.
    """
    group = control_group.of(os.getpid())
    if group is not None and group.limit and group.held is not None and group.held + need >= _PART * group.limit:
        return False
    available = _available()
    return available is None or need < _PART * available


def explained(given: Limits, found: Limits, room: int | None, count: int) -> Iterator[tuple[int, str]]:
    """Where the limits come from, a line of the log each with its level; what is off is a warning."""
    if found.soft is None and found.hard is None:
        yield (
            logging.WARNING,
            (
                "no limits: neither --soft nor --hard is given, and no control group limits memory; "
                "workers are started again when they end, and recycled only by limits of their own (install(…, soft=…))"
            ),
        )
        return
    share = {1: "the", 2: "half of the", 3: "a third of the"}.get(count, f"a {count}th of the")
    whole = "" if room is None else f"{size(room)}, {share} control group's limit"
    for name, own, limit in (("soft", given.soft, found.soft), ("hard", given.hard, found.hard)):
        if limit is not None:
            source = "as given" if own is not None else f"{100 * limit / room:.0f} % of {whole}" if room else "derived"
            yield logging.INFO, f"{name} limit of each worker: {size(limit)} ({source})"
    if found.hard is None and room is not None:
        yield (
            logging.WARNING,
            (
                f"the hard limit is off: --soft {size(found.soft or 0)} is not below 92 % of {whole}; "
                "the kernel kills first. Give a lower --soft, or --hard"
            ),
        )
    elif found.hard is None:
        yield logging.INFO, "no hard limit: --hard is not given, and no control group limits memory"
    elif room is not None and found.hard > room:
        yield logging.WARNING, f"--hard {size(found.hard)} is above {whole}: the kernel kills first"


def _available() -> int | None:
    """What the machine could give without swapping, in bytes; None where the kernel does not tell (before 3.14)."""
    try:
        lines = Path("/proc/meminfo").read_text("ascii").splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:")), None)
