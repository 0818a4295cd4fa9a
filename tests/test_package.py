"""What is installed from a wheel: built here as `pip wheel` builds it, without a compiler and without npm."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SOURCE = ROOT / "src"
BUILD = "from setuptools import build_meta; build_meta.build_wheel('dist')"
PAGE = ("flatwater/server/static/index.html", "flatwater/server/static/assets/app.js")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> set[str]:
    """The names of the files in the wheel, of a copy whose page is two files."""
    pytest.importorskip("setuptools", reason="the wheel is built with setuptools, which is not installed")
    copy = tmp_path_factory.mktemp("wheel")
    for name in ("pyproject.toml", "setup.py", "README.md", "LICENSE"):
        if (ROOT / name).exists():
            shutil.copy(ROOT / name, copy)
    unwanted = shutil.ignore_patterns("__pycache__", "*.so", "*.egg-info", "static")
    shutil.copytree(SOURCE, copy / "src", ignore=unwanted)
    for name in PAGE:
        (copy / "src" / name).parent.mkdir(parents=True, exist_ok=True)
        (copy / "src" / name).write_text("page")
    environment = {**os.environ, "CC": "/nonexistent/compiler"}
    done = subprocess.run(
        [sys.executable, "-c", BUILD],
        cwd=copy,
        env=environment,
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    [file] = (copy / "dist").glob("flatwater-*.whl")
    with zipfile.ZipFile(file) as archive:
        return set(archive.namelist())


def test_every_module_is_in_the_wheel(wheel: set[str]) -> None:
    modules = {path.relative_to(SOURCE).as_posix() for path in SOURCE.rglob("*.py")}
    assert modules <= wheel, sorted(modules - wheel)


def test_what_is_no_module_is_in_the_wheel(wheel: set[str]) -> None:
    demo = {path.relative_to(SOURCE).as_posix() for path in SOURCE.glob("flatwater/demo/definitions/*.json")}
    assert len(demo) == 8
    wanted = {"flatwater/py.typed", *demo, *PAGE}
    assert wanted <= wheel, sorted(wanted - wheel)


def test_nothing_else_is_in_the_wheel(wheel: set[str]) -> None:
    assert [name for name in wheel if not name.startswith(("flatwater/", "flatwater-"))] == []
