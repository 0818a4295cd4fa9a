"""What goes over an agent's socket, and where the socket is. Standard library only: both ends use it.

A UNIX stream socket ``PID.sock`` (mode 0600) in a directory (mode 0700) of the process's user: ``flatwater`` in
``XDG_RUNTIME_DIR``, or ``/tmp/flatwater-UID``. A request is one line ``{"ask": name, "args": {...}}``; the answer is
one line, ``{"ok": value}`` or ``{"error": {"type": ..., "message": ...}}``. One request at a time on a connection.
"""

from __future__ import annotations

import contextlib
import json
import os
import stat
from collections.abc import Iterator, Mapping
from typing import Any

MAX_REQUEST_BYTES = 1 << 20
MAX_ANSWER_BYTES = 256 << 20
_SLICE = 500
_MAX_PATH = 100  # sun_path holds 108 bytes


class DirectoryError(OSError):
    """The directory of the sockets cannot be trusted; the message says why and what to do."""


def directories(uid: int, environment: Mapping[str, str]) -> list[str]:
    """Where the agents of a user's process may have their sockets, the likeliest first."""
    runtime = environment.get("XDG_RUNTIME_DIR", "")
    found = [f"{runtime}/flatwater"] if runtime.startswith("/") and len(runtime) < _MAX_PATH - 30 else []
    return [*found, f"/tmp/flatwater-{uid}"]  # noqa: S108 (its owner and mode are checked)


def own_directory() -> str:
    """The directory for this process's socket; not made yet."""
    *first, last = directories(os.geteuid(), os.environ)
    return next((path for path in first if os.access(os.path.dirname(path), os.W_OK)), last)  # noqa: PTH120


def prepare_directory(path: str) -> None:
    """Make it if need be, for this user alone. Raises OSError, DirectoryError when it cannot be trusted."""
    with contextlib.suppress(FileExistsError):
        os.mkdir(path, 0o700)  # noqa: PTH102 (pathlib would be loaded into the target)
    check_directory(path, os.geteuid())


def check_directory(path: str, uid: int) -> None:
    """Raises DirectoryError unless it is a directory that only this user can use."""
    found = os.lstat(path)
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != uid or found.st_mode & 0o077:
        raise DirectoryError(
            f"{path} is not a directory that only user {uid} can use: somebody else made it, or its mode is not 0700;"
            " have it removed"
        )


def request(name: str, arguments: dict[str, Any]) -> bytes:
    """The line that asks for a command. Raises ValueError for one that is too long."""
    line = json.dumps({"ask": name, "args": arguments}, separators=(",", ":")).encode()
    if len(line) >= MAX_REQUEST_BYTES:
        raise ValueError(f"the request has {len(line):,} bytes; {MAX_REQUEST_BYTES:,} are allowed")
    return line + b"\n"


def answer(value: Any) -> Iterator[bytes]:
    """The line that answers, in pieces: encoding a long list in one go would hold the interpreter for all of it."""
    yield b'{"ok":'
    for piece in _pieces(value):
        yield piece.encode()
    yield b"}\n"


def refusal(error: BaseException) -> bytes:
    """The line that says what went wrong."""
    fields = {"type": type(error).__name__, "message": str(error)}
    return json.dumps({"error": fields}, separators=(",", ":")).encode() + b"\n"


def _pieces(value: Any) -> Iterator[str]:
    if isinstance(value, (list, tuple)) and len(value) > _SLICE:
        for start in range(0, len(value), _SLICE):
            part = json.dumps(value[start : start + _SLICE], separators=(",", ":"))
            yield ("," if start else "[") + part[1:-1]
        yield "]"
    elif isinstance(value, dict) and value:
        before = "{"
        for key, item in value.items():
            yield f"{before}{json.dumps(str(key))}:"
            yield from _pieces(item)
            before = ","
        yield "}"
    else:
        yield json.dumps(value, separators=(",", ":"))
