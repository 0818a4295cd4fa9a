"""What only repeats a proof, or looks for rarer cases of it, is for ``make test LONG=1``.

``@pytest.mark.long`` marks a test whose proof another one gives by default, with the reason beside it; ``-m long`` runs
those alone. ``often(count)`` is ``count`` then, and a quarter of it by default.
"""

from __future__ import annotations

import os

import pytest

LONG = os.environ.get("LONG", "") not in ("", "0")


def often(count: int) -> int:
    """How many examples or repetitions there are: ``count``, or a quarter of it by default."""
    return count if LONG else max(1, count // 4)


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "long: a repetition of a proof, left out unless LONG=1; say of which beside it")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if LONG or config.option.markexpr:
        return
    if left_out := [item for item in items if item.get_closest_marker("long")]:
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if not item.get_closest_marker("long")]
