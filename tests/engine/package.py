"""A small package, installed as pip leaves it: found by the real mechanism of entry points."""

from __future__ import annotations

from pathlib import Path

import pytest


def install(folder: Path, name: str, source: str, points: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A distribution ``name`` in ``folder``, with one module ``name`` and its ``entry_points.txt``."""
    (folder / f"{name}.py").write_text(source)
    info = folder / f"{name}-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(points)
    monkeypatch.syspath_prepend(folder)
