"""Which Python another process runs, and where the functions are that a thread needs there. Linux."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, field
from pathlib import Path

from flatwater.memory.elf import Image, Mapping, mappings

_NEEDED = "Py_IsInitialized", "PyGILState_Ensure", "PyGILState_Release", "PyDict_New", "PyRun_String", "Py_DecRef"
_LIBC = "pthread_create", "pthread_detach", "pthread_self", "munmap", "usleep"
_LIBPYTHON = re.compile(r"/libpython(\d)\.(\d+)(\w*)\.so")
_SYSCALL = {"x86_64": b"\x0f\x05", "aarch64": b"\x01\x00\x00\xd4"}
# Code in which a busy thread may be stopped: it holds no lock of malloc or of the loader while it is there.
_UNSAFE = re.compile(
    r"/(ld-|ld\.|libc[.-]|libpthread|libdl|libgcc_s|libstdc\+\+|librt|.*malloc|.*asan|.*tsan|libunwind|.*\.memfd)"
)


class NoPython(Exception):
    """The process runs no Python that can be reached; the message says why and what to do."""


@dataclass(frozen=True)
class Interpreter:
    """A process's Python: version, addresses of functions, and ranges of code by how surely they hold no lock."""

    path: str
    version: tuple[int, int, int] | None
    free_threaded: bool
    functions: dict[str, int]
    syscall_at: int
    ranges: list[tuple[int, int]] = field(repr=False)
    other_ranges: list[tuple[int, int]] = field(repr=False)


def find(pid: int) -> Interpreter:
    """The Python of a process. Raises NoPython, OSError when the process cannot be looked at."""
    files: dict[str, list[Mapping]] = {}
    for mapping in mappings(pid):
        files.setdefault(mapping.path, []).append(mapping)
    path, image = _python(pid, files)
    bias = image.bias(files[path])
    functions = {name: image.symbols[name] + bias for name in _NEEDED}
    for one in ("PyErr_Clear", "Py_IsFinalizing", "_Py_IsFinalizing"):
        if one in image.symbols:
            functions[one] = image.symbols[one] + bias
    functions |= _libc(files)
    ranges = [(row.start, row.end) for row in files[path] if row.executable]
    others = [
        (row.start, row.end)
        for name, rows in files.items()
        if name != path and not _UNSAFE.search("/" + name.rpartition("/")[2])
        for row in rows
        if row.executable
    ]
    free_threaded = "_Py_DecRefShared" in image.symbols
    return Interpreter(path, _version(pid, path, image), free_threaded, functions, _syscall(pid, files), ranges, others)


def _python(pid: int, files: dict[str, list[Mapping]]) -> tuple[str, Image]:
    executable = str(Path(f"/proc/{pid}/exe").readlink()).removesuffix(" (deleted)")
    likely = [path for path in files if _LIBPYTHON.search(path)]
    for path in [*likely, executable]:
        if path not in files:
            continue
        if files[path][0].deleted and path != executable:
            raise NoPython(
                f"{path} was replaced on disk while the process runs (an upgrade?), so its functions cannot be found:"
                " restart the process"
            )
        try:
            image = Image(f"/proc/{pid}/exe" if path == executable else path)
        except ValueError as error:
            raise NoPython(f"{path}: {error}") from error
        if all(name in image.symbols for name in _NEEDED):
            return path, image
    raise NoPython(f"{executable} has no Python in it that exports its C API: is it another process you mean?")


def _version(pid: int, path: str, image: Image) -> tuple[int, int, int] | None:
    """From Py_Version, which Python has since 3.11; else from the name of the file."""
    if "Py_Version" in image.symbols:
        executable = str(Path(f"/proc/{pid}/exe").readlink()).removesuffix(" (deleted)")
        with open(f"/proc/{pid}/exe" if path == executable else path, "rb") as file:  # noqa: PTH123
            file.seek(image.offset(image.symbols["Py_Version"]))
            number = int.from_bytes(file.read(4), "little")
        return number >> 24, number >> 16 & 255, number >> 8 & 255
    found = _LIBPYTHON.search(path) or re.search(r"/python(\d)\.(\d+)()", path)
    return (int(found[1]), int(found[2]), 0) if found else None


def _libc(files: dict[str, list[Mapping]]) -> dict[str, int]:
    found: dict[str, int] = {}
    for path in files:
        name = path.rpartition("/")[2]
        if name.startswith(("ld-musl", "libc.musl")):
            raise NoPython(
                "it uses musl, in which starting a thread from outside has not been proved safe: start it with"
                " `flatwater exec -- …` or FLATWATER_AGENT=1"
            )
        if re.match(r"(libc|libpthread)[.-]", name) and not files[path][0].deleted:
            image = Image(path)
            bias = image.bias(files[path])
            for wanted in _LIBC:
                if wanted in image.symbols:
                    found.setdefault(wanted, image.symbols[wanted] + bias)
    if missing := [name for name in _LIBC if name not in found]:
        raise NoPython(f"its C library has no {', '.join(missing)}, or was replaced on disk: restart the process")
    return found


def _syscall(pid: int, files: dict[str, list[Mapping]]) -> int:
    """A system call instruction in its C library."""
    code = _SYSCALL.get(os.uname().machine)
    if code is None:
        raise NoPython(f"threads cannot be started in processes on {os.uname().machine}, only on {', '.join(_SYSCALL)}")
    for path, rows in files.items():
        if not re.match(r"libc[.-]", path.rpartition("/")[2]):
            continue
        for row in rows:
            if row.executable:
                with open(path, "rb") as file:  # noqa: PTH123
                    file.seek(row.offset)
                    text = file.read(row.end - row.start)
                at = text.find(code)
                while at >= 0 and len(code) == 4 and at % 4:
                    at = text.find(code, at + 1)
                if at >= 0:
                    return row.start + at
    raise NoPython("no system call instruction was found in its C library")
