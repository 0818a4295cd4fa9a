"""``@pytest.mark.flat`` and the fixture ``flat``, as a project that uses them sees them."""

from __future__ import annotations

import re
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


@pytest.mark.flat
def test_names():  # as opening a file does: CPython keeps names that were looked up for some thousand look-ups
    NUMBER[0] += 1
    assert not any(hasattr(Order, f"{letter}{NUMBER[0]}") for letter in "abc")


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

# What runs tests in other ways than pytest does functions: marked, they are measured or fail, each with a leak.
OTHERS = """
import asyncio, collections, unittest
import django.test, pytest
from django.conf import settings

settings.configure(DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}})
django.setup()
KEPT = {}
CALLS = collections.Counter()


class Order:
    pass


def leak():
    KEPT[len(KEPT)] = Order()


@pytest.fixture(params=["asyncio"])
def anyio_backend(request):
    return request.param


@pytest.mark.anyio
@pytest.mark.flat(80)
async def test_anyio_leaks():
    leak()


@pytest.mark.anyio
@pytest.mark.flat(80)
async def test_anyio(anyio_backend):
    CALLS[anyio_backend] += 1
    await asyncio.sleep(0)


class Plain(unittest.TestCase):
    def setUp(self):
        CALLS["set up"] += 1

    @pytest.mark.flat(80)
    def test_case_leaks(self):
        leak()

    @pytest.mark.flat(80)
    def test_case(self):
        CALLS["case"] += 1

    @pytest.mark.flat(80)
    def test_case_that_skips(self):
        self.skipTest("not here")

    @pytest.mark.flat(80)
    async def test_that_unittest_does_not_await(self):
        leak()


class Asynchronous(unittest.IsolatedAsyncioTestCase):
    @pytest.mark.flat(80)
    async def test_case_of_coroutines(self):
        CALLS["coroutine"] += 1


@pytest.mark.flat(80)
class Database(django.test.TestCase):
    def test_django(self):
        CALLS["django"] += 1

    async def test_django_coroutine(self):
        CALLS["django coroutine"] += 1


def test_calls():
    assert CALLS.pop("set up") == 4
    assert {*CALLS.values()} == {80}
    assert {*CALLS} == {"asyncio", "case", "coroutine", "django", "django coroutine"}


@pytest.mark.flat(80)
async def test_coroutine_that_nobody_runs():
    leak()


@pytest.mark.flat(80)
def test_that_returns_a_coroutine():
    return asyncio.sleep(0)


def test_fixture_called_with_a_coroutine(flat):
    async def one():
        leak()
    flat(one, cycles=60)


@pytest.mark.asyncio
async def test_fixture_of_a_function(flat):
    await flat.of(leak, cycles=60)


def test_fixture_not_awaited(flat):
    flat.of(asyncio.sleep)
"""
# A runner of its own, which does not call the function that pytest has.
CONFTEST = """
import pytest

class Own(pytest.Item):
    def runtest(self):
        pass

    def reportinfo(self):
        return self.path, 0, self.name

def pytest_collection_modifyitems(session, items):
    own = Own.from_parent(items[0].parent, name="test_own_item")
    own.add_marker(pytest.mark.flat)
    items.append(own)
"""


def run(folder: Path, *arguments: str, module: str = MODULE) -> dict[str, str]:
    """Outcome and message of each test."""
    (folder / "test_flat.py").write_text(module)
    command = [sys.executable, "-m", "pytest", "-rA", "-o", "asyncio_mode=auto", "-p", "no:cacheprovider", *arguments]
    command += ["-p", "no:schemathesis", "-p", "no:hypothesispytest"]  # a heap half as large
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False, timeout=100)
    found: dict[str, str] = {}
    for line in done.stdout.splitlines():
        outcome, _, rest = line.partition(" test_flat.py::")
        if outcome in ("PASSED", "FAILED", "ERROR"):
            found[rest.split(" ")[0].replace("::", ".")] = outcome
    return {
        name.rpartition(".")[2]: outcome if outcome == "PASSED" else outcome + _message(done.stdout, name)
        for name, outcome in found.items()
    }


def _message(text: str, name: str) -> str:
    """What pytest says was wrong: its lines with an E, or a message without a traceback, or with none of its frames."""
    said = re.search(rf"^_+ (?:ERROR at teardown of )?{re.escape(name)} _+\n(.*?)^(?:___|===)", text, re.M | re.S)
    lines = said[1].splitlines() if said else []
    shown = [] if lines and "entries are hidden" in lines[-1] else [line for line in lines if line[:1] == "E"]
    return "\n".join(shown or lines)


@pytest.fixture(scope="module")
def outcome(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    return run(tmp_path_factory.mktemp("flat"))


@pytest.mark.parametrize("name", ["test_nothing_stays", "test_names", "test_a_cache_with_a_bound", "test_fixture"])
def test_flat_passes(outcome: dict[str, str], name: str) -> None:
    assert outcome[name] == "PASSED", outcome[name]


@pytest.mark.parametrize(
    ("name", "words"),
    [
        (
            "test_registry",
            ["test_flat.REGISTRY (dict", "+1 a cycle", "test_flat.Order +1", "test_flat.py:17"],
        ),
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
    assert "flatwater/memory" not in outcome[name], "what measures is no part of the message"


def test_in_parallel(tmp_path: Path, outcome: dict[str, str]) -> None:
    parallel = run(tmp_path, "-n", "2")
    assert {name: text[:6] for name, text in parallel.items()} == {name: text[:6] for name, text in outcome.items()}


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("others")
    (folder / "conftest.py").write_text(CONFTEST)
    return run(folder, "-o", "asyncio_mode=strict", module=OTHERS)


@pytest.mark.parametrize("name", ["test_anyio_leaks[asyncio]", "test_case_leaks"])
def test_marked_tests_are_measured_whoever_runs_them(other: dict[str, str], name: str) -> None:
    assert other[name].startswith("FAILED")
    assert "test_flat.KEPT (dict" in other[name]


PASS = ["test_anyio[asyncio]", "test_case", "test_case_of_coroutines", "test_django", "test_django_coroutine"]


@pytest.mark.parametrize("name", [*PASS, "test_calls"])
def test_marked_tests_run_in_cycles_whoever_runs_them(other: dict[str, str], name: str) -> None:
    assert other[name] == "PASSED", other[name]


def test_a_marked_test_that_skips_itself_does_not_fail(other: dict[str, str]) -> None:
    assert "test_case_that_skips" not in other


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("test_that_unittest_does_not_await", "IsolatedAsyncioTestCase"),
        ("test_coroutine_that_nobody_runs", "async def functions are not natively supported"),
        ("test_that_returns_a_coroutine", "make it an async def"),
        ("test_own_item", "what runs this test does not call it as a function"),
        ("test_fixture_called_with_a_coroutine", "TypeError: flat() runs no coroutines"),
        ("test_fixture_of_a_function", "TypeError: flat.of() awaits"),
        ("test_fixture_not_awaited", "flat.of() was not awaited"),
    ],
)
def test_what_was_not_measured_fails(other: dict[str, str], name: str, words: str) -> None:
    assert other[name].startswith(("FAILED", "ERROR"))
    assert words in other[name]
