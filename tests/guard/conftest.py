"""A real control group for a test."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.guard.guarding import Group


@pytest.fixture
def group() -> Iterator[Group]:
    """A fresh control group; where none may be made the test is skipped with the reason."""
    for line in Path("/proc/self/cgroup").read_text().splitlines():
        _, controllers, path = line.split(":", 2)
        second, mount = not controllers, Path("/sys/fs/cgroup")
        if "memory" in controllers.split(",") or (second and (mount / "memory.stat").exists()):
            own = mount / ("" if second else "memory") / path.lstrip("/")
            break
    else:
        pytest.skip("no control group counts memory here")
    found = None
    try:
        found = Group(own / f"flatwater-{uuid.uuid4().hex[:8]}", second)
        found.limit(1 << 40)
    except OSError as error:
        if found is not None:
            found.remove()
        pytest.skip(f"no control group can be made here: {error}")
    yield found
    found.remove()
