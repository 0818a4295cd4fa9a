"""Growth: containers and types that grow are told from those that are worked off, rebuilt, or merely large."""

import functools
import io
import itertools
import subprocess
import sys
import threading
import time
from array import array
from collections import OrderedDict, deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from flatwater.memory import growth as growth_module
from flatwater.memory.growth import Observation, Track, growing, growing_types, growth, observe
from flatwater.memory.target import Here

ROOT = Path(__file__).parents[2]


def alone(test: Callable[[], None]) -> Callable[[], None]:
    """Run a test in a process of its own: each look at that of the whole suite takes most of a second."""

    @functools.wraps(test)
    def in_own_process() -> None:
        program = f"from {__name__} import {test.__name__} as test; test.__wrapped__()"
        done = subprocess.run(
            [sys.executable, "-W", "error", "-c", program],
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=200,
            check=False,
        )
        assert done.returncode == 0, done.stderr

    return in_own_process


@contextmanager
def working(*works: Callable[[int], object], pause_s: float = 0.002) -> Iterator[None]:
    stop = threading.Event()

    def loop() -> None:
        for number in itertools.count():
            for work in works:
                work(number)
            if stop.wait(pause_s):
                return

    thread = threading.Thread(target=loop)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def seen(seconds: float = 3.0, **settings: Any) -> Observation:
    with Here() as here:
        return observe(here, seconds, **settings)


def seen_to_grow(
    *containers: object, types: tuple[str, ...] = (), seconds: float = 2.0, looks: int = 0, **settings: Any
) -> Observation:
    """An observation of at least so many looks in which these grow; a busy machine is given longer windows."""
    for factor in (1, 3, 6, 20):
        observation = seen(seconds * factor, **settings)
        told = {row.type for row in growing_types(observation)}
        grown = addresses(observation) >= {id(each) for each in containers} and told >= set(types)
        if grown and observation.samples >= looks:
            return observation
    raise AssertionError(f"not seen to grow, in {observation}: {addresses(observation)}, {told}")


def addresses(observation: Observation) -> set[int]:
    return {row.address for row in growing(observation)}


class Link:
    def __init__(self, before: Any) -> None:
        self.before = before


LEAST = 4  # shorter containers are not looked at: what was seen of one until then would be forgotten


def go_up_and_down(saw_tooth: list[int]) -> None:
    """In 14 calls, so that a window on a busy machine, too, has many teeth: a part of one is growth."""
    saw_tooth.extend(range(7))
    if len(saw_tooth) > 100:
        del saw_tooth[LEAST:]


@alone
def test_growing_containers_of_every_kind_beside_others() -> None:
    growing_ones: list[Any] = [[], {}, set(), deque(), OrderedDict()]
    stable = {number: str(number) for number in range(50_000)}
    saw_tooth: list[int] = []
    queue: deque[int] = deque()
    bounded: deque[int] = deque(maxlen=50)

    def work(number: int) -> None:
        growing_ones[0].append({"a": number})
        growing_ones[1][number] = None
        growing_ones[2].add(number)
        growing_ones[3].append(number)
        growing_ones[4][number] = number
        bounded.append(number)
        go_up_and_down(saw_tooth)
        queue.append(number)
        while len(queue) > LEAST + number % 30:
            queue.popleft()
        stable[number % 50_000] = "changed"

    with working(work):
        # Of six looks, which a window of two seconds has by itself, one saw tooth in fifty rises by chance.
        observation = seen_to_grow(*growing_ones, looks=20, interval_s=0.05)
    found = addresses(observation)
    assert not {id(stable), id(saw_tooth), id(queue), id(bounded)} & found
    row = next(row for row in growing(observation) if row.address == id(growing_ones[0]))
    assert row.type == "list"
    assert row.low <= row.growth_per_s <= row.high
    assert row.length == pytest.approx(len(growing_ones[0]), rel=0.5)
    assert row.bytes_per_s >= 8 * row.growth_per_s


@alone
def test_a_list_that_is_rebuilt_is_not_a_growing_container_and_this_test_is_not_either() -> None:
    kept: list[list[int]] = [[]]

    def work(number: int) -> None:
        kept[0] = [*kept[0][-500:], number]

    with working(work):
        observation = seen(2.0)
    assert id(kept[0]) not in addresses(observation)
    own = (observation.containers, observation.types, observation.usage)
    assert not {id(each) for each in own} & addresses(observation)


@alone
def test_types_that_grow_without_a_container() -> None:
    head: Any = None

    def work(number: int) -> None:
        nonlocal head
        head = Link(head)

    with working(work):
        observation = seen_to_grow(types=(f"{__name__}.Link",))
    rows = {row.type: row for row in growing_types(observation)}
    link = rows[f"{__name__}.Link"]
    assert link.growth_per_s > 20
    assert link.low <= link.growth_per_s <= link.high
    while head is not None:  # a chain that is freed at once would recurse
        head = head.before


@alone
def test_buffers_grow_too() -> None:
    text, stream, numbers = bytearray(100_000), io.BytesIO(b" " * 100_000), array("d", range(10_000))

    def work(number: int) -> None:
        text.extend(b"0123456789" * 100)
        stream.write(b"0123456789" * 100)
        numbers.extend(range(1000))

    with working(work):
        observation = seen_to_grow(text, stream, numbers)
    rows = {row.address: row for row in growing(observation)}
    assert rows[id(text)].type == "bytearray"
    assert rows[id(text)].bytes_per_s == pytest.approx(rows[id(text)].growth_per_s)


@alone
def test_many_small_containers_of_one_holder() -> None:
    holder: dict[int, list[int]] = {}

    def work(number: int) -> None:
        holder[number] = [number] * 5

    with working(work):
        seen_to_grow(holder, types=("list",))


@alone
def test_a_heap_that_is_dear_to_walk_is_walked_three_times() -> None:
    growth_module._DEAR = 0.0
    kept: list[Link] = []
    saw_tooth: list[int] = []
    stable = list(range(10_000))

    def work(number: int) -> None:
        kept.append(Link(None))
        go_up_and_down(saw_tooth)

    with working(work):
        observation = seen_to_grow(kept, types=(f"{__name__}.Link",))
    assert observation.samples == 3
    found = addresses(observation)
    assert not {id(stable), id(saw_tooth)} & found


def test_hold_keeps_only_what_lives_and_until_it_is_told() -> None:
    kept = [1, 2, 3]
    with Here() as here:
        assert here.ask("hold", addresses=[id(kept), 12345]) == [3, None]
        kept.append(4)
        assert here.ask("lengths") == [4, None]
        assert here.ask("hold", addresses=[]) == []
        assert here.ask("lengths") == []


@alone
def test_growth_of_this_process() -> None:
    kept: list[int] = []
    with working(kept.append):
        assert any(id(kept) in {row.address for row in growth(seconds)} for seconds in (2.0, 6.0, 12.0, 40.0))


def judged(counts: list[float]) -> bool:
    """Whether a container with these lengths, a second apart, is said to grow."""
    track = Track("list")
    for at, count in enumerate(counts):
        track.add(at, count, count * 8)
    times = array("d", range(len(counts)))
    return bool(growing(Observation(len(counts), len(counts), 0.0, times, {1: track}, {}, [])))


@pytest.mark.parametrize(
    ("counts", "grows"),
    [
        ([0, 1, 2, 3, 4, 5, 6, 7, 8, 9], True),
        ([1000, 1000, 1001, 1001, 1002, 1003, 1003, 1004, 1005, 1005], True),
        ([0, 0, 100, 100, 200, 200, 300, 300, 400, 400], True),  # in batches
        ([0, 500, 900, 990, 1000, 1000, 1000, 1000, 1000, 1000], False),  # it warmed up
        ([5, 5, 5, 5, 5, 5, 5, 5, 5, 5], False),
        ([0, 50, 100, 0, 50, 100, 0, 50, 100, 60], False),
        ([9, 8, 7, 6, 5, 4, 3, 2, 1, 0], False),
        ([3, 5, 2, 6, 3, 4, 6, 2, 5, 4], False),
        ([0, 0, 0, 0, 0, 0, 0, 0, 0, 1], False),  # once is no growth
        ([10, 20, 18, 30, 28, 40, 38, 50, 48, 60], True),  # a part is worked off
    ],
)
def test_judgement(counts: list[float], grows: bool) -> None:
    assert judged(counts) is grows


@alone
def test_a_look_costs_what_it_says() -> None:
    begun = time.monotonic()
    observation = seen(1.0, interval_s=0.1)
    assert time.monotonic() - begun < 20
    assert observation.samples >= 2
    assert 0 < observation.paused_s < observation.seconds
    assert len(observation.usage) == observation.samples
