"""The limit that counts is the tightest one on the way up."""

from __future__ import annotations

from pathlib import Path

import pytest

from flatwater.memory import procfs


def memory_limit(root: Path) -> int | None:
    found = procfs.cgroup(root=root)
    return found.limit if found else None


def tree(root: Path, membership: str, files: dict[str, str]) -> Path:
    (root / "proc/self").mkdir(parents=True)
    (root / "proc/self/cgroup").write_text(membership)
    for name, text in files.items():
        path = root / "sys/fs/cgroup" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


@pytest.mark.parametrize(
    ("files", "limit"),
    [
        ({"a/b/memory.max": "max\n", "a/memory.max": "max\n"}, None),
        ({"a/b/memory.max": "max\n", "a/memory.max": "1000\n"}, 1000),
        ({"a/b/memory.max": "500\n", "a/memory.max": "1000\n"}, 500),
        ({"a/b/memory.max": "5000\n", "a/memory.max": "1000\n", "memory.max": "900\n"}, 900),
        ({}, None),
    ],
)
def test_version_2(tmp_path: Path, files: dict[str, str], limit: int | None) -> None:
    assert memory_limit(root=tree(tmp_path, "0::/a/b\n", files)) == limit


def test_version_1(tmp_path: Path) -> None:
    membership = "5:cpu,cpuacct:/x\n3:memory:/docker/abc\n1:name=systemd:/y\n"
    files = {
        "memory/docker/abc/memory.limit_in_bytes": "9223372036854771712\n",
        "memory/docker/memory.limit_in_bytes": "734003200\n",
        "memory/memory.limit_in_bytes": "9223372036854771712\n",
    }
    assert memory_limit(root=tree(tmp_path, membership, files)) == 734003200


def test_no_cgroups(tmp_path: Path) -> None:
    assert memory_limit(root=tmp_path) is None


def test_a_path_outside_of_the_namespace_stops_at_the_mount(tmp_path: Path) -> None:
    assert memory_limit(root=tree(tmp_path, "0::/../../x\n", {"memory.max": "77\n"})) in (77, None)
