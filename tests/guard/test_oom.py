"""Kills for memory by the kernel, in real control groups and in recorded trees of both versions."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest
from tests.guard.consumer import Consumer, consuming
from tests.guard.guarding import GUARD, MIB, SLEEP, Group, guarding, python

from flatwater.guard.oom import OomKills
from flatwater.guard.record import Record
from flatwater.guard.report import summary
from flatwater.memory import procfs

# deaf to the warm stop: on a busy machine that comes before the kernel's kill
EAT = "import signal; signal.signal(15, signal.SIG_IGN); kept = [b'x' * (1 << 20) for _ in range(400)]"


def test_a_worker_killed_by_the_kernel_is_told_from_a_crash(group: Group, tmp_path: Path) -> None:
    group.limit(100 * MIB)
    with guarding(tmp_path, "--hard", "900MiB", *python(EAT), prefix=group.entering()) as guard:
        guard.wait(lambda: guard.events("end"))
    assert guard.events("end")[0].body["reason"] == "oom", guard.log.read_text()


def test_the_limit_of_an_outer_group_counts_and_its_kill_is_seen_from_the_inner_one(
    group: Group, tmp_path: Path
) -> None:
    group.limit(100 * MIB)
    inner = group.inner()
    with guarding(tmp_path, "-n", "2", *python(SLEEP), prefix=inner.entering()) as guard:
        guard.wait(lambda: len(guard.events("start")) == 2)
        limits = guard.events("guard")[0].body["limits"]
        assert (limits["soft"], limits["hard"]) == (40 * MIB, 46 * MIB)
    (tmp_path / "guard.db").unlink()
    with guarding(tmp_path, "--hard", "900MiB", *python(EAT), prefix=inner.entering()) as guard:
        guard.wait(lambda: guard.events("end"))
    assert guard.events("end")[0].body["reason"] == "oom", guard.log.read_text()


def test_a_worker_in_a_group_of_its_own(group: Group, tmp_path: Path) -> None:
    """The command enters the group after it was started, as a container's does."""
    group.limit(80 * MIB)
    enter = f"import time; open('{group.path}/cgroup.procs', 'w').write('0'); time.sleep(1)\n"
    with guarding(tmp_path, "--hard", "900MiB", *python(enter + EAT)) as guard:
        guard.wait(lambda: guard.events("end"))
    assert guard.events("end")[0].body["reason"] == "oom", guard.log.read_text()


def test_the_task_of_a_pool_process_that_the_kernel_killed_is_named(
    group: Group, redis_url: str, tmp_path: Path
) -> None:
    file = tmp_path / "guard.db"
    words = [*group.entering(), *GUARD, "--record", str(file), "--hard", "900MiB", "--"]
    consumer = Consumer(tmp_path, redis_url, "process", 1, *words)
    with consuming(consumer):
        consumer.call("tasks.nothing(0)")
        consumer.wait(lambda: consumer.rows())
        group.limit(200 * MIB)
        consumer.call("tasks.eat(400)")
        consumer.wait(lambda: "killed by the kernel for memory" in consumer.log.read_text())
    with Record(file) as record:
        (killed,) = summary(record).killed
    assert killed["name"].endswith("eat")


def test_an_old_kill_explains_no_later_death(tmp_path: Path) -> None:
    counter = recorded(tmp_path, "0::/a\n", {"a/memory.events": "oom 0\noom_kill 3\n"})
    kills = OomKills(keep_s=10, root=tmp_path)
    kills.look([1], 0)
    assert not kills.take(), "those before were other processes"
    counter.write_text("oom 0\noom_kill 5\n")
    kills.look([1], 1)
    kills.look([1], 2)
    assert [kills.take() for _ in range(3)] == [True, True, False]
    counter.write_text("oom 0\noom_kill 6\n")
    kills.look([1], 3)
    kills.look([1], 14)
    assert not kills.take()


def test_a_kill_in_the_group_that_a_process_has_just_left_still_counts(tmp_path: Path) -> None:
    counter = recorded(tmp_path, "0::/a\n", {"a/memory.events": "oom_kill 0\n", "b/memory.events": "oom_kill 7\n"})
    kills = OomKills(root=tmp_path)
    kills.look([1], 0)
    (tmp_path / "proc/1/cgroup").write_text("0::/b\n")
    counter.write_text("oom_kill 1\n")
    kills.look([1], 1)
    assert [kills.take(), kills.take()] == [True, False]


@pytest.mark.parametrize(
    ("membership", "files", "expected"),
    [
        (
            "0::/a/b\n",
            {"a/b/memory.events": "oom_kill 1\n", "a/memory.events": "oom_kill 2\n"},
            {"a/b/memory.events": 1},
        ),
        ("0::/\n", {"memory.events": "max 3\noom_kill 4\n"}, {"memory.events": 4}),
        (
            "4:memory:/docker/x\n0::/\n",
            {
                "memory/docker/x/memory.oom_control": "oom_kill_disable 0\nunder_oom 0\noom_kill 2\n",
                "memory/docker/memory.oom_control": "oom_kill_disable 0\nunder_oom 0\noom_kill 0\n",
            },
            {"memory/docker/x/memory.oom_control": 2},
        ),
        # A container that has no namespace of its own for groups sees its group as the root of the mount.
        ("4:memory:/docker/x\n", {"memory/memory.oom_control": "oom_kill 6\n"}, {"memory/memory.oom_control": 6}),
        ("5:cpu:/\n", {}, {"../../../proc/vmstat": 9}),
    ],
)
def test_where_the_kernel_counts(
    membership: str, files: dict[str, str], expected: dict[str, int], tmp_path: Path
) -> None:
    recorded(tmp_path, membership, files)
    (tmp_path / "proc/vmstat").write_text("nr_free_pages 5\noom_kill 9\n")
    found = {counter.resolve(): procfs.kills(counter) for counter in procfs.kill_counters(1, root=tmp_path)}
    assert found == {(tmp_path / "sys/fs/cgroup" / name).resolve(): count for name, count in expected.items()}


def test_a_process_that_is_gone_has_no_counters() -> None:
    child = os.fork()
    if child == 0:
        os._exit(0)
    os.kill(child, signal.SIGCONT)
    os.waitpid(child, 0)
    assert procfs.kill_counters(child) == ()


def recorded(root: Path, membership: str, files: dict[str, str]) -> Path:
    """A tree as the kernel shows it; the first of the files."""
    (root / "proc/1").mkdir(parents=True)
    (root / "proc/1/cgroup").write_text(membership)
    paths = [root / "sys/fs/cgroup" / name for name in files]
    (root / "sys/fs/cgroup").mkdir(parents=True)
    for path, text in zip(paths, files.values(), strict=True):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return paths[0] if paths else root
