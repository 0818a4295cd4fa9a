"""Selections: pids, names, command lines and procpath's JSONPath, on made trees and on real processes."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flatwater.errors import FlatwaterError
from flatwater.memory import jsonpath
from flatwater.memory.scan import FIELDS, Process, Scanner, Table, content, read
from flatwater.memory.selector import parse

OWN = 99


def process(pid: int, ppid: int, name: str, command: str, rss: int = 100) -> Process:
    raw = dict.fromkeys(FIELDS, "0") | {"state": "S", "ppid": str(ppid), "starttime": "5", "rss": str(rss)}
    return Process(pid, 5, ppid, name, "S", rss * 4096, 0, 0, 0, 1, 0, 0, None, tuple(raw.values()), command)


TABLE = Table(
    {
        one.pid: one
        for one in (
            process(1, 0, "init", "/sbin/init"),
            process(10, 1, "celery", "python -m celery -A demo worker", 5000),
            process(11, 10, "celery", "python -m celery -A demo worker"),
            process(12, 11, "convert", "convert a.png b.jpg"),
            process(20, 1, "redis-server", "redis-server *:6379"),
            process(30, 1, "bash", "bash -c flatwater record celery"),
            process(OWN, 30, "flatwater", "flatwater record celery"),
            process(100, OWN, "notify", "notify celery"),
        )
    }
)


@pytest.mark.parametrize(
    ("text", "roots", "everyone"),
    [
        ("10", {10}, {10, 11, 12}),
        ("12, 20", {12, 20}, {12, 20}),
        ("pid:20", {20}, {20}),
        ("4711", set(), set()),
        ("celery", {10, 11, 100}, {10, 11, 12, 100}),
        ("name:redis-server", {20}, {20}),
        ("command:worker", {10, 11}, {10, 11, 12}),
        (r"regex:\*:\d+$", {20}, {20}),
        ("$..children[?('celery' in @.cmdline)]", {10, 11, 100}, {10, 11, 12, 100}),
        ('$..children[?("celery" in @.cmdline and @.stat.ppid == 1)]', {10}, {10, 11, 12}),
        ("$..children[?(@.stat.pid == 10)]", {10}, {10, 11, 12}),
        ("..children[?(@.stat.pid in [10, 20])]", {10, 20}, {10, 11, 12, 20}),
        ("$..children[?(@.stat.pid == 10)]..pid", {10, 11, 12}, {10, 11, 12}),
        (r'$..children[?(@.stat.pid == 10 and @.pop\("children", 1\))]', {10}, {10}),
        ("$..children[?(@['stat']['comm'] == 'redis-server')]", {20}, {20}),
        ("$..children[?(@.stat.rss >= 5000)]", {10}, {10, 11, 12}),
        ("$..children[?(@.cmdline.startswith('redis') || @.stat.comm =~ /^conv/)]", {12, 20}, {12, 20}),
        ("$..children[?(!('celery' in @.cmdline) && @.stat.ppid == 1)]", {20}, {20}),
        ("$..children[?('worker' not in @.cmdline and 'celery' in @.cmdline)]", {100}, {100}),
        ("$.children[0].children[?(@.stat.pid == 20)]", {20}, {20}),
        ("$..children[?(@.stat.nothing > 3)]", set(), set()),
    ],
)
def test_what_is_meant(text: str, roots: set[int], everyone: set[int]) -> None:
    """The recorder itself is never meant, nor, by a text, whoever typed it (30)."""
    assert parse(text).choose(TABLE, OWN) == (roots, everyone)
    assert parse(text, children=False).choose(TABLE, OWN)[1] == roots


def test_several_mean_any_of_them() -> None:
    assert parse(("name:redis-server", "12")).choose(TABLE, OWN)[0] == {12, 20}
    assert parse(("12", "20")).pids == {12, 20}
    assert not parse(("12", "redis")).pids


@pytest.mark.parametrize(
    ("text", "where", "what"),
    [
        ("$..children[?('x' in )]", "position 22", "value is missing"),
        ("$..children[?('x' ~ @.cmdline)]", "position 19", "cannot stand here"),
        ("$.children[", "position 12", "brackets hold"),
        ("$..children[?(@.stat.pid == 3]", "position 30", ") is missing"),
        ("$..children[?(@.cmdlin)]", "position 17", "no cmdlin"),
        ("$..children[?(@.cmdline.split())]", "position 25", "no split()"),
        ("$..children[?(@.stat.comm =~ /(/)]", "position 30", "regular expression"),
        ("regex:a(", "position 2", "regular expression"),
        ("pid:x", "pid:x", "needs pids"),
        ("  ", "", "empty"),
        ("$" + "." * 20_000, "", "longer than"),
        ("$..children[?(" + "(" * 200 + "1" + ")" * 200 + ")]", "position", "deeper than"),
    ],
)
def test_what_is_not_understood_is_shown_where(text: str, where: str, what: str) -> None:
    with pytest.raises(FlatwaterError) as caught:
        parse(text)
    assert what in str(caught.value)
    assert where in caught.value.where


@given(st.text(alphabet="$.[]()?@*'\"=!<>&|andortinpidstachlren0123456789 /~\\", max_size=60))
def test_any_text_is_a_path_or_a_clear_error(text: str) -> None:
    try:
        path = jsonpath.parse(text)
    except jsonpath.PathError:
        return
    list(path.find(TABLE.document()))


@given(st.lists(st.integers(0, 40), max_size=6), st.integers(0, 40))
def test_a_filter_is_the_condition_it_says(pids: list[int], least: int) -> None:
    found = parse(f"$..children[?(@.stat.pid in {pids} or @.stat.pid > {least} and not @.stat.pid == 30)]").roots(TABLE)
    assert found == {pid for pid in TABLE if pid in pids or (pid > least and pid != 30)}


@pytest.fixture
def named_strangely() -> Iterator[int]:
    program = (
        "import ctypes, time; ctypes.CDLL(None).prctl(15, b'a) (b c', 0, 0, 0); print(1, flush=True); time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        child.stdout.readline()
        yield child.pid
        child.kill()


def test_a_name_with_parentheses_and_spaces_is_read(named_strangely: int) -> None:
    found = read(named_strangely)
    assert found is not None
    assert (found.name, found.ppid) == ("a) (b c", os.getpid())


def test_a_look_is_cheap_and_sees_this_process() -> None:
    scanner = Scanner()
    now = time.clock_gettime(time.CLOCK_BOOTTIME)
    scanner.look(now)
    begin = time.process_time()
    table = scanner.look(now)
    took = time.process_time() - begin
    assert table[os.getpid()].start == read(os.getpid()).start  # type: ignore[union-attr]
    assert table[os.getpid()].command.split()[0] == content(f"/proc/{os.getpid()}/cmdline").split(b"\0")[0].decode()  # type: ignore[union-attr]
    assert took / len(table) < 5 * 0.1e-3  # 10 ms for 100 processes are the target; 2 ms is usual


def test_a_zombie_and_a_missing_process_break_nothing() -> None:
    child = subprocess.Popen([sys.executable, "-c", "raise SystemExit(3)"])
    deadline = time.monotonic() + 90
    while (found := read(child.pid)) is not None and found.alive and time.monotonic() < deadline:
        time.sleep(0.01)
    assert found is not None
    assert (found.alive, found.status, found.rss) == (False, 3 << 8, 0)
    assert child.pid in Scanner().look(0.0)
    child.wait()
    assert read(child.pid) is None
