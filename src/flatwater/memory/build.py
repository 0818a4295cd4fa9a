"""The parts in C for a Python other than ours: built when a process under it is attached to, and kept.

They lie in ``~/.cache/flatwater`` (or ``XDG_CACHE_HOME``), one folder for each version of Flatwater's sources and of
Python. It takes a C compiler and that Python's headers; without them the process is examined without these parts, and
``hello()["missing"]`` says what to do.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import os
import re
import shlex
import shutil
import subprocess
import tempfile
from pathlib import Path

from flatwater import __version__
from flatwater.memory.interpreter import Interpreter

_HERE = Path(__file__).parent
_SECONDS = 60.0


@functools.cache
def cache() -> Path:
    """The folder for our present sources; not made yet."""
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    digest = hashlib.blake2s(
        b"".join(path.read_bytes() for path in sorted(_HERE.glob("*.c"))), digest_size=6
    ).hexdigest()
    return Path(home) / "flatwater" / f"{__version__}-{digest}"


def folder(python: Interpreter) -> str:
    """Where the parts for this Python are, built now if need be; "" if they cannot be, or lie beside ours already."""
    if python.version is None or python.free_threaded or not _sources():
        return ""
    tag = f"cpython-{python.version[0]}{python.version[1]}-*.so"
    if all(list(_HERE.glob(f"{source.stem}.{tag}")) for source in _sources()):
        return ""
    found = cache() / ".".join(map(str, python.version))
    if not found.exists():
        with contextlib.suppress(OSError, subprocess.SubprocessError):
            _build(found, python)
    return str(found) if found.exists() else ""


def _sources() -> list[Path]:
    return sorted(path for path in _HERE.glob("_*.c") if path.stem != "_inject")


def _build(found: Path, python: Interpreter) -> None:
    headers, compiler = _headers(python), shlex.split(os.environ.get("CC", "cc"))
    if headers is None or shutil.which(compiler[0]) is None:
        return
    found.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=found.parent) as made:
        for source in _sources():
            target = f"{made}/parts/{source.stem}.abi3.so"  # a name that every Python looks for
            Path(target).parent.mkdir(exist_ok=True)
            words = [*compiler, "-O2", "-std=gnu11", "-shared", "-fPIC", f"-I{headers}", "-o", target, str(source)]
            subprocess.run(words, check=True, capture_output=True, timeout=_SECONDS)  # noqa: S603 (the user's compiler)
        with contextlib.suppress(OSError):  # another client was faster
            Path(f"{made}/parts").rename(found)


def _headers(python: Interpreter) -> Path | None:
    """The headers of exactly this Python."""
    assert python.version is not None
    name, wanted = f"python{python.version[0]}.{python.version[1]}", ".".join(map(str, python.version))
    for prefix in (*Path(python.path).parents, Path("/usr"), Path("/usr/local")):
        headers = prefix / "include" / name
        with contextlib.suppress(OSError):
            text = (headers / "patchlevel.h").read_text("utf-8", "replace")
            found = re.search(r'#define PY_VERSION\s+"([^"+]+)', text)
            if found and found[1] == wanted:
                return headers
    return None
