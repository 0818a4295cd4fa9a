"""``@pytest.mark.flat`` and the fixture ``flat``, as a project that uses them sees them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

MODULE = """
import asyncio, ctypes, functools, logging
import pytest

REGISTRY = {}
TASKS = set()
HEAD = [None]
NUMBER = [0]


class Order:
    before = None


def accept():
    NUMBER[0] += 1
    REGISTRY[NUMBER[0]] = Order()  # the line that makes them


@functools.lru_cache(maxsize=100)
def cached(number):
    return object()


@pytest.mark.flat(cycles=200)
def test_registry():
    accept()


@pytest.mark.flat
def test_nothing_stays():
    logging.getLogger("x").warning("hello %s", "x" * 100)
    assert [object() for _ in range(100)]


@pytest.mark.flat(cycles=600)
def test_a_cache_with_a_bound():
    NUMBER[0] += 1
    cached(NUMBER[0])


@pytest.mark.flat(100)
async def test_tasks():
    async def work():
        pass
    task = asyncio.get_running_loop().create_task(work())
    TASKS.add(task)
    await task


async def test_fixture(flat):
    async def one():
        await asyncio.sleep(0)
    await flat.of(one, cycles=100)


def test_chain(flat):
    def one():
        order = Order()
        order.before, HEAD[0] = HEAD[0], order
    flat(one, cycles=100)


def test_native(flat):
    malloc = ctypes.CDLL(None).malloc
    malloc.restype = ctypes.c_void_p
    flat(lambda: malloc(5000) and None, cycles=100)


@pytest.mark.flat(cycles=100)
def test_that_fails():
    assert 1 == 2, "an ordinary failure"


@pytest.mark.flat(cycles=3)
def test_too_few():
    pass
"""


def run(folder: Path, *arguments: str) -> dict[str, str]:
    """Outcome and message of each test."""
    (folder / "test_flat.py").write_text(MODULE)
    command = [sys.executable, "-m", "pytest", "-rA", "-o", "asyncio_mode=auto", "-p", "no:cacheprovider", *arguments]
    command += ["-p", "no:schemathesis", "-p", "no:hypothesispytest"]  # a heap half as large
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False, timeout=100)
    found: dict[str, str] = {}
    for line in done.stdout.splitlines():
        outcome, _, rest = line.partition(" test_flat.py::")
        if outcome in ("PASSED", "FAILED", "ERROR"):
            found[rest.split(" ")[0]] = outcome
    return {name: outcome + _message(done.stdout, name) for name, outcome in found.items()}


def _message(text: str, name: str) -> str:
    return "\n".join(
        line for line in text.partition(f"_ {name} _")[2].partition("\n____")[0].splitlines() if line[:1] == "E"
    )


@pytest.fixture(scope="module")
def outcome(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    return run(tmp_path_factory.mktemp("flat"))


@pytest.mark.parametrize("name", ["test_nothing_stays", "test_a_cache_with_a_bound", "test_fixture"])
def test_flat_passes(outcome: dict[str, str], name: str) -> None:
    assert outcome[name] == "PASSED", outcome[name]


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("test_registry", ["test_flat.REGISTRY (dict", "+1 a cycle", "test_flat.Order +1", "test_flat.py:17"]),
        ("test_tasks", ["held by  test_flat.TASKS (set", "_asyncio.Task +1"]),
        ("test_chain", ["test_flat.Order +1", "held by  test_flat.HEAD"]),
        ("test_native", ["bytes of malloc", "something native"]),
        ("test_that_fails", ["an ordinary failure"]),
        ("test_too_few", ["cycles=3 are too few"]),
    ],
)
def test_growth_fails_with_its_cause(outcome: dict[str, str], name: str, words: list[str]) -> None:
    assert outcome[name].startswith("FAILED")
    for word in words:
        assert word in outcome[name], outcome[name]


def test_in_parallel(tmp_path: Path, outcome: dict[str, str]) -> None:
    parallel = run(tmp_path, "-n", "2")
    assert {name: text[:6] for name, text in parallel.items()} == {name: text[:6] for name, text in outcome.items()}
