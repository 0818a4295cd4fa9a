"""The always-on sampler: what it estimates, that it is bounded and off by default, and that it goes without a trace."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
import threading
import tracemalloc
import weakref
from collections.abc import Iterator
from types import CodeType
from typing import Any

import pytest

from flatwater.memory import heap, sampler
from flatwater.memory.heap_model import HeapError
from flatwater.memory.sampler import Sampled
from flatwater.memory.target import Here

pytestmark = pytest.mark.skipif(
    not hasattr(heap._heap, "sampler_start"), reason="the C extension with the sampler is not built for this Python"
)
BLOCK = 1000


@pytest.fixture(autouse=True)
def _off() -> Iterator[None]:
    yield
    sampler.stop()


def make(kept: list[bytes], count: int) -> None:
    for _ in range(count):
        kept.append(bytes(BLOCK))  # noqa: PERF401 (the line is the point)


def found() -> Sampled:
    seen = sampler.read()
    assert seen is not None
    return seen


def of_make(seen: Sampled) -> Any:
    return next((line for line in seen.lines if line.place is not None and line.place[1] == "make"), None)


def test_it_is_off_until_it_is_started() -> None:
    assert sampler.read() is None
    sampler.start()
    assert found().complete
    with pytest.raises(HeapError, match="on already"):
        sampler.start()
    sampler.stop()
    sampler.stop()
    assert sampler.read() is None


def test_it_estimates_what_a_line_holds_and_forgets_what_is_freed() -> None:
    kept: list[bytes] = []
    sampler.start(10_000)
    make(kept, 20_000)
    line = of_make(found())
    assert line.place[0] == __file__
    assert line.place[2] == make.__code__.co_firstlineno + 2
    assert 0.8 < line.bytes / (20_000 * (BLOCK + 33)) < 1.25  # some 2,000 samples: five deviations are a tenth
    assert 0.8 < line.count / 20_000 < 1.25
    assert [place[1] for place in line.stack][:2] == [
        "make",
        test_it_estimates_what_a_line_holds_and_forgets_what_is_freed.__name__,
    ]
    del kept[10_000:]
    assert 0.8 < of_make(found()).count / 10_000 < 1.25
    kept.clear()
    assert of_make(found()) is None


def test_large_blocks_are_seen_as_surely_as_many_small_ones() -> None:
    sampler.start(100_000)
    kept = [bytearray(50_000_000)]
    line = next(line for line in found().lines if line.bytes > 40_000_000)
    assert line.count == pytest.approx(1, abs=0.01)
    assert line.bytes == pytest.approx(50_000_000, rel=0.01)
    kept.clear()
    assert all(line.bytes < 40_000_000 for line in found().lines)


def test_who_makes_a_list_longer_is_its_maker() -> None:
    sampler.start(100_000)
    kept: list[None] = []

    def lengthen() -> None:
        for _ in range(2_000_000):
            kept.append(None)  # noqa: PERF401 (as above)

    lengthen()
    heaviest = found().lines[0]
    assert heaviest.place is not None
    assert heaviest.place[1].endswith("lengthen")
    assert heaviest.bytes == pytest.approx(sys.getsizeof(kept), rel=0.05)


def test_a_full_table_samples_half_as_densely_and_stays_true() -> None:
    kept: list[bytes] = []
    sampler.start(1_000, max_samples=256)
    make(kept, 50_000)
    seen = found()
    assert seen.alive <= seen.max_samples == 256
    assert seen.interval_bytes > 50_000
    assert 0.5 < of_make(seen).count / 50_000 < 1.7  # 128 samples or more: a deviation is 9 %
    kept.clear()
    assert of_make(found()) is None


def generated(number: int) -> CodeType:
    scope: dict[str, Any] = {}
    exec(f"def f():\n    return [bytes(500) for _ in range(20)]", scope)  # noqa: F541
    code: CodeType = scope["f"].__code__.replace(co_name=f"f{number}", co_qualname=f"f{number}")
    return code


def test_more_stacks_than_sites_are_told_together_and_code_is_let_go() -> None:
    sampler.start(200, max_sites=64)
    kept, codes = [], []
    for number in range(200):
        code = generated(number)
        codes.append(weakref.ref(code))
        kept.append(eval(code))
        del code
    seen = found()
    assert seen.dropped > 0
    assert any(line.place is None for line in seen.lines)
    kept.clear()
    gc.collect()
    found()
    gc.collect()
    assert sum(code() is not None for code in codes) < 10  # Python keeps a few blocks of freed lists and frames


def test_tracemalloc_and_the_sampler_stand_each_other() -> None:
    sampler.start(10_000)
    kept: list[bytes] = []
    tracemalloc.start()
    try:
        make(kept, 5_000)
        assert 0.6 < of_make(found()).count / 5_000 < 1.5
        sampler.stop()  # the hooks stay, for tracemalloc stands on them
        make(kept, 100)
        sampler.start(10_000)
        make(kept, 5_000)
        assert 0.6 < of_make(found()).count / 5_000 < 1.5
    finally:
        tracemalloc.stop()
    assert found().complete


def test_hooks_that_somebody_has_taken_away_are_missed() -> None:
    tracemalloc.start()
    sampler.start(10_000)
    tracemalloc.stop()  # puts back what was there before it, and that was before us
    assert not found().complete
    sampler.stop()
    sampler.start(10_000)
    assert found().complete


def test_a_clients_sampler_ends_with_the_client() -> None:
    with Here() as here:
        assert here.ask("allocations") is None
        here.ask("sample_allocations", interval_bytes=1_000)
        here.ask("graph_close")
        kept = [bytes(BLOCK) for _ in range(1_000)]
        told = here.ask("allocations", max_lines=5)
        assert told["lines"][0]["place"]["file"] == __file__
        assert len(told["lines"]) <= 5
        kept.clear()
    assert sampler.read() is None


def test_a_lasting_sampler_outlives_its_clients() -> None:
    sampler.start()
    with Here() as here:
        assert here.ask("allocations")["complete"]
    assert found().complete


@pytest.mark.parametrize(("value", "on"), [("65536", True), ("0", False), ("", False), ("much", False)])
def test_the_environment_switches_it(value: str, on: bool) -> None:
    code = "import flatwater.agent; from flatwater.memory import sampler; print(sampler.read() is not None)"
    environment = {**os.environ, sampler.VARIABLE: value}
    said = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert said.stdout.strip() == str(on)


STORM = """
import os, random, threading, tracemalloc
from flatwater.memory import sampler
kept = {}
def work(seed):
    chance = random.Random(seed)
    for number in range(4000):
        kept[chance.randrange(500)] = [{"a": str(number)} for _ in range(chance.randrange(20))]
        if number % 50 == 0:
            exec(compile(f"def f{number}(): return [1] * 1000\\nkept[-1] = f{number}()", f"<{number}>", "exec"))
threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
for thread in threads:
    thread.start()
turn = 0
while any(thread.is_alive() for thread in threads):
    turn += 1
    if sampler.read() is None:
        sampler.start(2048, max_samples=128, max_sites=32)
    if turn % 7 == 0:
        sampler.stop()
    if turn % 11 == 0:
        tracemalloc.stop() if tracemalloc.is_tracing() else tracemalloc.start()
    if turn % 13 == 0 and turn < 200:
        pid = os.fork()
        if pid == 0:
            kept.clear()
            sampler.read()
            os._exit(0)
        assert os.waitpid(pid, 0)[1] == 0
print("done")
"""


def test_threads_forks_and_switching_do_it_no_harm() -> None:
    said = subprocess.run([sys.executable, "-W", "ignore", "-c", STORM], capture_output=True, text=True, timeout=200)
    assert (said.stdout, said.stderr, said.returncode) == ("done\n", "", 0)


def test_it_has_no_thread() -> None:
    before = threading.active_count()
    sampler.start()
    assert threading.active_count() == before


@pytest.mark.parametrize("bounds", [{"interval_bytes": 0}, {"max_samples": 1}, {"max_sites": 1}, {"frames": 17}])
def test_bounds_that_make_no_sense(bounds: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="interval from 1"):
        sampler.start(**bounds)
    assert sampler.read() is None
