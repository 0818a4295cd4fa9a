"""Makers: the line that inserts and the line that makes, for every way to fill a container."""

import asyncio
import inspect
import os
import subprocess
import sys
import threading
import time
import tracemalloc
import warnings
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from tests.memory.maker_forms import FORMS, Item

from flatwater.memory.target import Here

HERE = str(Path(__file__))
FORMS_FILE = inspect.getfile(Item)


@contextmanager
def running(work: Callable[[int], object], pause_s: float = 0.0005, threads: int = 1) -> Iterator[None]:
    """Call ``work`` with rising numbers in threads."""
    stop = threading.Event()

    def loop() -> None:
        number = 0
        while not stop.is_set():
            number += 1
            work(number)
            time.sleep(pause_s)

    workers = [threading.Thread(target=loop) for _ in range(threads)]
    for worker in workers:
        worker.start()
    try:
        yield
    finally:
        stop.set()
        for worker in workers:
            worker.join()


def watched(*containers: object, seconds: float = 60.0, **settings: Any) -> list[dict[str, Any]]:
    with Here() as here:
        told = here.ask("watch", addresses=[id(each) for each in containers], seconds=seconds, **settings)
    rows: list[dict[str, Any]] = told["containers"]
    return rows


def line_of(function: Callable[..., object], mark: str = "# here") -> int:
    lines, first = inspect.getsourcelines(function)
    return first + next(number for number, line in enumerate(lines) if mark in line)


@pytest.mark.parametrize("name", FORMS)
def test_the_inserting_line_is_named(name: str) -> None:
    container, insert = FORMS[name]()
    with running(insert):
        (row,) = watched(container, max_events=60)
    assert row["grew"] >= 60
    place = row["inserted_at"][0]
    assert (place["file"], place["line"]) == (FORMS_FILE, line_of(FORMS[name]))
    assert "insert" in place["function"]
    assert place["share"] > 0.9
    assert sum(each["share"] for each in row["inserted_at"]) <= 1.0 + 1e-9
    assert place["stack"][-1]["function"].endswith("_bootstrap")


@pytest.mark.parametrize("name", ["append", "key", "add_to_set", "deque_left", "ordered"])
def test_the_making_line_is_named(name: str) -> None:
    container, insert = FORMS[name]()
    with running(insert):
        (row,) = watched(container, max_events=60)
    made = row["allocated_at"][0]
    assert (made["file"], made["line"]) == (FORMS_FILE, line_of(FORMS[name]))
    assert made["function"].endswith("insert")
    assert {each["type"].rpartition(".")[2] for each in row["items"]} == {"Item"}


def test_making_and_inserting_lines_differ() -> None:
    container, insert = FORMS["append_of_a_call"]()
    with running(insert):
        (row,) = watched(container, max_events=60)
    made = row["allocated_at"][0]
    assert made["line"] == line_of(FORMS["append_of_a_call"], "made = [Item(number)]")
    assert made["function"].endswith("make")


def test_tuples_of_the_free_list_and_decorated_functions() -> None:
    kept: deque[tuple[Any, int]] = deque()

    class Decorated:
        def __init__(self, function: Callable[[int], None]) -> None:
            self.call = function

    @Decorated
    def add(number: int) -> None:
        kept.append((lambda: number, number))  # here

    with running(add.call):
        (row,) = watched(kept, max_events=60)
    here = test_tuples_of_the_free_list_and_decorated_functions
    made = row["allocated_at"][0]
    assert made["line"] == line_of(here)
    assert made["function"].startswith(f"{here.__name__}.<locals>.add")
    assert made["share"] > 0.8


def test_bytes_that_are_appended() -> None:
    kept = bytearray()

    def work(number: int) -> None:
        kept.extend(b"12345")  # here

    with running(work):
        (row,) = watched(kept, max_events=60)
    assert row["inserted_at"][0]["line"] == line_of(test_bytes_that_are_appended)
    assert row["grew"] == 5 * row["rises"]


def test_removals_and_shares() -> None:
    kept: list[int] = []

    def work(number: int) -> None:
        kept.append(number)
        kept.append(number)
        kept.append(number)
        if number % 2:
            kept.append(number)
            kept.pop(0)  # removed

    with running(work):
        (row,) = watched(kept, max_events=400)
    assert [place["line"] for place in row["removed_at"]] == [line_of(test_removals_and_shares, "# removed")]
    assert len(row["inserted_at"]) == 4
    shares = sorted(place["share"] for place in row["inserted_at"])
    assert 0.05 < shares[0] < 0.22
    assert 0.2 < shares[1] <= shares[3] < 0.4


def test_threads_that_fill_beside_threads_that_do_not() -> None:
    first: list[int] = []
    second: dict[int, int] = {}

    def fill(number: int) -> None:
        first.append(number)  # first
        second[id(first) + number] = number  # second

    def other(number: int) -> int:
        total = 0
        for each in range(200):
            total += each
        return total

    with running(fill, threads=3), running(other, pause_s=0.0, threads=2):
        rows = watched(first, second, max_events=100)
    for row, mark in zip(rows, ("# first", "# second"), strict=True):
        assert row["inserted_at"][0]["line"] == line_of(test_threads_that_fill_beside_threads_that_do_not, mark)
        assert row["inserted_at"][0]["share"] > 0.8


def test_threads_that_begin_in_the_window() -> None:
    kept: list[Item] = []

    def job() -> None:
        kept.append(Item(1))  # here

    def work(number: int) -> None:
        thread = threading.Thread(target=job)
        thread.start()
        thread.join()

    with running(work):
        (row,) = watched(kept, max_events=60)
    assert row["inserted_at"][0]["line"] == line_of(test_threads_that_begin_in_the_window)
    assert row["inserted_at"][0]["share"] > 0.8


def test_a_loop_that_runs_already_in_one_frame() -> None:
    kept: list[int] = []
    stop = threading.Event()

    def main() -> None:
        while not stop.is_set():
            kept.append(1)  # here
            time.sleep(0.0005)

    thread = threading.Thread(target=main)
    thread.start()
    try:
        (row,) = watched(kept, max_events=60)
    finally:
        stop.set()
        thread.join()
    assert row["inserted_at"][0]["line"] == line_of(test_a_loop_that_runs_already_in_one_frame)
    assert row["inserted_at"][0]["share"] > 0.9


def run_loop(loop_factory: Callable[[], asyncio.AbstractEventLoop], main: Callable[[threading.Event], Any]) -> Any:
    """The watch's answer while ``main(stop)`` runs on a loop in a thread."""
    stop = threading.Event()

    def run() -> None:
        with asyncio.Runner(loop_factory=loop_factory) as runner:
            runner.run(main(stop))

    thread = threading.Thread(target=run)
    thread.start()
    return stop, thread


def loops() -> list[Callable[[], asyncio.AbstractEventLoop]]:
    found: list[Callable[[], asyncio.AbstractEventLoop]] = [asyncio.SelectorEventLoop]
    try:
        import uvloop

        found.append(uvloop.new_event_loop)
    except ImportError:
        pass
    return found


@pytest.mark.may_leave("fd")  # uvloop keeps a pipe for signals from its first loop on
@pytest.mark.parametrize("loop_factory", loops())
def test_tasks_tell_their_coroutine_and_who_created_them(loop_factory: Callable[[], Any]) -> None:
    background: set[asyncio.Task[None]] = set()

    async def handle(number: int, stop: threading.Event) -> None:
        while not stop.is_set():
            await asyncio.sleep(0.01)

    async def serve(stop: threading.Event) -> None:
        while not stop.is_set():
            task = asyncio.create_task(handle(1, stop))  # created
            background.add(task)  # added
            await asyncio.sleep(0.005)
        await asyncio.gather(*background)

    stop, thread = run_loop(loop_factory, serve)
    try:
        (row,) = watched(background, max_events=60)
    finally:
        stop.set()
        thread.join()
    here = test_tasks_tell_their_coroutine_and_who_created_them
    assert row["inserted_at"][0]["line"] == line_of(here, "# added")
    assert row["allocated_at"][0]["line"] == line_of(here, "# created")
    coroutine = row["coroutines"][0]
    assert coroutine["name"].endswith("handle")
    assert coroutine["line"] == line_of(here, "async def handle")
    assert coroutine["created_at"]["line"] == line_of(here, "# created")
    assert coroutine["created_at"]["function"].endswith("serve")


def test_types_made() -> None:
    class Link:
        def __init__(self, before: Any) -> None:
            self.before = before

    head: Any = None

    def work(number: int) -> None:
        nonlocal head
        head = Link(head)  # here

    with running(work), Here() as here:
        told = here.ask("types_made", seconds=0.5, types=[f"{__name__}.{Link.__qualname__}", "no.such"])
    link, nothing = told["types"]
    assert link["allocated_at"][0]["line"] == line_of(test_types_made)
    assert link["allocated_at"][0]["share"] > 0.9
    assert nothing["allocated_at"] == []
    while head is not None:  # a chain that is freed at once would recurse
        head = head.before


def test_an_idle_process_is_watched_for_as_long_as_was_asked() -> None:
    kept: list[int] = []
    begun = time.monotonic()
    (row,) = watched(kept, seconds=0.5)
    assert time.monotonic() - begun >= 0.5
    assert (row["alive"], row["grew"], row["inserted_at"]) == (True, 0, [])


def test_an_address_without_a_container_is_not_believed() -> None:
    begun = time.monotonic()
    text = "no container"
    rows = watched(text, seconds=90)
    with Here() as here:
        rows += here.ask("watch", addresses=[12345, 2**63], seconds=90)["containers"]
    assert [row["alive"] for row in rows] == [False, False, False]
    assert time.monotonic() - begun < 80, "it waited all the same"


def test_the_window_ends_when_the_client_is_gone() -> None:
    kept: list[int] = []
    with Here() as here:
        timer = threading.Timer(0.3, here._session.closed.set)
        timer.start()
        begun = time.monotonic()
        here.ask("watch", addresses=[id(kept)], seconds=90)
        assert time.monotonic() - begun < 80
        timer.join()


def traces() -> tuple[Any, ...]:
    """Everything that a window sets."""
    tools: tuple[Any, ...] = ()
    if sys.version_info >= (3, 12):
        tools = tuple((sys.monitoring.get_tool(tool), tool) for tool in range(6))
    return tracemalloc.is_tracing(), sys.gettrace(), sys.getprofile(), tools


def test_everything_is_as_it_was() -> None:
    before = traces()
    container, insert = FORMS["append"]()
    with running(insert):
        watched(container, max_events=20)
        references = sys.getrefcount(container)
        watched(container, max_events=20)
    assert sys.getrefcount(container) == references
    assert traces() == before


def test_tracing_that_is_on_already_stays() -> None:
    container, insert = FORMS["append"]()
    tracemalloc.start(1)
    try:
        with running(insert):
            (row,) = watched(container, max_events=20)
        assert tracemalloc.is_tracing()
        assert tracemalloc.get_traceback_limit() == 1
        assert row["allocated_at"][0]["line"] == line_of(FORMS["append"])
    finally:
        tracemalloc.stop()


def test_a_thread_with_a_tracer_keeps_it() -> None:
    seen: list[str] = []
    stop = threading.Event()
    kept: list[int] = []
    ready = threading.Event()

    def tracer(frame: Any, event: str, arg: Any) -> Any:
        if frame.f_code.co_name == "step" and len(seen) < 100_000:
            seen.append(event)
        return tracer

    def step() -> None:
        kept.append(1)

    def main() -> None:
        sys.settrace(tracer)
        ready.set()
        while not stop.is_set():
            step()
            time.sleep(0.001)
        assert sys.gettrace() is tracer
        sys.settrace(None)

    thread = threading.Thread(target=main)
    thread.start()
    ready.wait()
    try:
        with Here() as here:
            told = here.ask("watch", addresses=[id(kept)], seconds=0.5)
        count = len(seen)
        assert count > 10
        while len(seen) < count + 10:  # it still works
            time.sleep(0.01)
    finally:
        stop.set()
        thread.join()
    left = told["overhead"]["threads_left"]
    assert left == (1 if sys.version_info < (3, 12) else 0)
    if sys.version_info >= (3, 12):
        assert told["containers"][0]["inserted_at"][0]["function"].endswith("step")


def test_many_windows_do_not_harm_a_process_that_churns() -> None:
    """``FLATWATER_WINDOWS=200`` for the long form."""
    windows = os.environ.get("FLATWATER_WINDOWS", "25")
    command = [sys.executable, "-W", "ignore::DeprecationWarning", "-m", "tests.memory.maker_stress", windows]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=110, check=False)
    assert ended.returncode == 0, ended.stdout + ended.stderr


def test_a_process_that_ends_in_a_window_ends_well() -> None:
    program = """
import threading, time
from flatwater.memory.target import Here
kept = []
def watch():
    with Here() as here:
        here.ask("watch", addresses=[id(kept)], seconds=60)
threading.Thread(target=watch, daemon=True).start()
end = time.monotonic() + 1
while time.monotonic() < end:
    kept.append(str(end))
"""
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False)
    assert (ended.returncode, ended.stderr) == (0, "")


def test_a_child_that_is_forked_in_a_window_is_not_traced() -> None:
    kept: list[int] = []
    told: list[int] = []

    def work(number: int) -> None:
        kept.append(number)
        if number % 20 == 10 and len(told) < 5:
            pid = os.fork()
            if pid == 0:
                tools = traces()[3] if sys.version_info >= (3, 12) else ()
                ours = any(name == "flatwater" for name, _ in tools) or tracemalloc.is_tracing()
                os._exit(1 if ours else 0)
            told.append(os.waitpid(pid, 0)[1])

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of forking with threads, from 3.12 on
        with running(work):
            watched(kept, max_events=150)
    assert told
    assert set(told) == {0}
