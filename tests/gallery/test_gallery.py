"""``flatwater diagnose`` names the leak of every program in examples/leaks, and says plateau of every repaired one.

By default some of them, with short windows; ``GALLERY=all`` takes all with 10 s, ``GALLERY=name,name`` these.
``GALLERY_JOBS`` says how many run at a time (2), ``GALLERY_BALLAST`` how many other objects live in each (0),
``GALLERY_PYTHON`` what runs the programs (this Python).
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import pytest
import redis
from tests.gallery.program import EXPECTED, LEAKS, diagnosed, faults, marked

CHOICE = os.environ.get("GALLERY", "")
JOBS = int(os.environ.get("GALLERY_JOBS", "2"))
BALLAST = os.environ.get("GALLERY_BALLAST", "0")
SOME = ["contexts_kept", "fire_and_forget", "native_malloc", "gc_disabled", "lru_cache_method", "frame_local"]
SOME_REPAIRED = ["fire_and_forget", "response_cache", "native_malloc"]
SHARED = ("stage",)
"""Files of the folder that are no programs."""


def chosen(some: list[str]) -> list[str]:
    if not CHOICE:
        return some
    return list(EXPECTED) if CHOICE == "all" else CHOICE.split(",")


SECONDS = 10.0 if CHOICE else 5.0
BROKEN, REPAIRED = chosen(SOME), chosen(SOME_REPAIRED)
Answers = dict[tuple[str, bool], "Future[dict[str, Any]]"]

# The pool begins with the next programs while a test looks at the answer about one.
pytestmark = pytest.mark.may_leave("child", "thread", "fd")


@pytest.fixture(scope="module")
def answers() -> Iterator[Answers]:
    """Every chosen program in the order of the tests, a few at a time."""
    with ThreadPoolExecutor(JOBS, "gallery") as pool:
        futures = {
            (name, repaired): pool.submit(
                diagnosed, name, "--ballast", BALLAST, *(["--repaired"] if repaired else []), seconds=SECONDS
            )
            for names, repaired in ((BROKEN, False), (REPAIRED, True))
            for name in names
        }
        yield futures
        pool.shutdown(cancel_futures=True)


def answer_about(name: str, repaired: bool, answers: Answers) -> dict[str, Any]:
    if name == "celery_trail" and not redis_answers():
        pytest.skip("needs the Redis of REDIS_URL or on 127.0.0.1:6379")
    return answers[name, repaired].result()


def redis_answers() -> bool:
    try:
        with redis.Redis.from_url(os.environ.get("REDIS_URL", "redis://127.0.0.1:6379/0")) as client:
            return bool(client.ping())
    except redis.ConnectionError:
        return False


@pytest.mark.parametrize("name", BROKEN)
def test_names_the_leak(name: str, answers: Answers) -> None:
    assert faults(name, answer_about(name, False, answers)) == []


@pytest.mark.parametrize("name", REPAIRED)
def test_says_plateau_of_the_repaired(name: str, answers: Answers) -> None:
    answer = answer_about(name, True, answers)
    assert (answer["verdict"]["kind"], answer["suspects"]) == ("plateau", []), answer["verdict"]["reason"]


def test_the_table_has_every_program() -> None:
    programs = {file.stem for file in LEAKS.glob("*.py")} - set(SHARED)
    assert programs == set(EXPECTED)
    for name, row in EXPECTED.items():
        if "owner" in row:
            assert marked(name, "allocated") | marked(name, "inserted"), f"no line is marked in {name}"
