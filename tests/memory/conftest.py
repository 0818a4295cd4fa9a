"""What the tests of the instruments share."""

from __future__ import annotations

import pytest


@pytest.fixture(autouse=True)
def quick_snapshots(request: pytest.FixtureRequest) -> None:
    """Everywhere but in the tests of the child itself, which see its priority as it is."""
    if request.module.__name__.rpartition(".")[2] != "test_heap_child":
        request.getfixturevalue("usual_priority")
