"""``usual_priority``: the forked child that holds a snapshot of the test's own process answers at once.

At its own, lowest priority it gets what the other tests leave over of the machine, which may be nothing for a minute.
"""

from __future__ import annotations

import pytest

from flatwater.memory import command, heap


@pytest.fixture
def usual_priority(monkeypatch: pytest.MonkeyPatch) -> None:
    for function in (heap.graph, heap.snapshot, command.graph_open):
        monkeypatch.setitem(function.__kwdefaults__, "nice", 0)
