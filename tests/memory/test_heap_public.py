"""The heap walker with the public interface of Python alone, as later Pythons than we know get it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from tests.live.target import pythons

ROOT = Path(__file__).parents[2]
SOURCES = ROOT / "src/flatwater/memory"
LOOK = Path(__file__).with_name("heap_public.py")


@pytest.fixture(scope="module")
def compiler() -> str:
    found = shutil.which(os.environ.get("CC", "cc"))
    if found is None and os.environ.get("CI"):
        pytest.fail("CI must have a C compiler: nothing else builds the walker without private headers")
    if found is None:
        pytest.skip("no C compiler (cc)")
    return found


def built(compiler: str, python: str, folder: Path) -> None:
    """``_heap`` for this Python, without its private headers."""
    words = [python, "-c", "import sysconfig; print(sysconfig.get_path('include'))"]
    headers = subprocess.run(words, check=True, capture_output=True, text=True).stdout.strip()
    if not (Path(headers) / "Python.h").exists():
        pytest.skip(f"no headers of {python}")
    flags = ["-O1", "-std=gnu11", "-shared", "-fPIC", "-DFLATWATER_PUBLIC_ONLY"]
    target = ["-I", headers, "-o", str(folder / "_heap.so"), str(SOURCES / "_heap.c")]
    made = subprocess.run([compiler, *flags, *target], capture_output=True, text=True, check=False)
    assert made.returncode == 0, made.stderr


def test_it_is_built_for_the_python_of_the_tests(compiler: str, tmp_path: Path):
    built(compiler, sys.executable, tmp_path)


@pytest.mark.parametrize("python", sorted({*pythons(), *([sys.executable] if sys.version_info >= (3, 12) else [])}))
def test_census_graph_and_paths(compiler: str, tmp_path: Path, python: str):
    built(compiler, python, tmp_path)
    done = subprocess.run(
        [python, str(LOOK), str(tmp_path)],
        env={**os.environ, "PYTHONPATH": str(ROOT / "src")},
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    seen = json.loads(done.stdout)
    assert (seen["file"], seen["internals"]) == (str(tmp_path / "_heap.so"), False)
    assert (seen["orders"], seen["pending"]) == (1050, 1000)
    assert seen["path"] == "__main__.desk → Desk.pending (dict, 1,000 entries)"
    assert 100_000 < seen["retained"] < 1_000_000
    # Before 3.13 reading a frame's locals writes into it, so they are left out.
    named = "walk() local mine" in seen["local"]
    assert named or seen["local"] == "C code (list, 50 entries)", seen["local"]
