"""Starts the agent inside a process that never heard of Flatwater (Python 3.11 to 3.13; x86-64 and aarch64 Linux).

The work is done by ``_inject.c``; its head says what happens to the other process, and why so. Here the order is put
together: the thread to stop, the functions to call, and the Python source to run (:mod:`flatwater.memory.guest`).
"""

from __future__ import annotations

import ast
import binascii
import ctypes
import functools
import hashlib
import importlib.util
import itertools
import marshal
import os
import random
import time
import zlib
from pathlib import Path

from flatwater import __version__
from flatwater.memory.interpreter import Interpreter
from flatwater.memory.syntax import parse

_HERE = _LIBRARIES = Path(__file__).parent
_MAX_RANGES = 32
_RESULTS = "ok", "not_safe", "stopped", "gone", "refused", "no_memory", "no_thread", "broken"
STARTED, ASKING, RUNNING, NOT_READY, DONE = range(1, 6)
_GO, _CANCEL = 1, 2
_WORK = (
    *((name, ctypes.c_uint64) for name in ("data", "data_size", "code", "code_size")),
    *((name, ctypes.c_uint64) for name in ("munmap", "pthread_self", "pthread_detach", "usleep")),
    *((name, ctypes.c_uint64) for name in ("Py_IsInitialized", "finalizing", "PyGILState_Ensure")),
    *((name, ctypes.c_uint64) for name in ("PyGILState_Release", "PyDict_New", "PyRun_String", "Py_DecRef")),
    *((name, ctypes.c_uint64) for name in ("PyErr_Clear", "source")),
    ("go", ctypes.c_uint32),
    ("state", ctypes.c_uint32),
)


class _Work(ctypes.Structure):
    _fields_ = _WORK


class _Order(ctypes.Structure):
    _fields_ = (
        ("pid", ctypes.c_int32),
        ("tid", ctypes.c_int32),
        ("wait_s", ctypes.c_double),
        ("syscall_at", ctypes.c_uint64),
        ("pthread_create", ctypes.c_uint64),
        ("ranges", ctypes.c_uint64 * (2 * _MAX_RANGES)),
        ("range_count", ctypes.c_uint64),
        ("source", ctypes.c_char_p),
        ("source_size", ctypes.c_uint64),
        ("work", _Work),
        ("work_at", ctypes.c_uint64),
        ("result", ctypes.c_int32),
        ("error", ctypes.c_int32),
        ("stopped_s", ctypes.c_double),
        ("tries", ctypes.c_int32),
        ("reserved", ctypes.c_int32),
    )


class InjectError(Exception):
    """The thread could not be started. ``kind`` is one of the results of _inject.c or ``missing``; ``number`` an errno.

    The process is as it was, except for ``broken``.
    """

    def __init__(self, kind: str, number: int = 0) -> None:
        super().__init__(f"{kind} ({os.strerror(number)})" if number else kind)
        self.kind = kind
        self.number = number


@functools.cache
def _library() -> ctypes.CDLL:
    for path in sorted(_LIBRARIES.glob("_inject*.so")):
        try:
            library = ctypes.CDLL(str(path))
        except OSError:  # built for another machine
            continue
        layout = (ctypes.c_uint64 * 4).in_dll(library, "flatwater_inject_layout")
        sizes = [ctypes.sizeof(_Order), ctypes.sizeof(_Work), _Work.go.offset, _Work.state.offset]
        if list(layout) == sizes:
            return library
    raise InjectError("missing")


class Started:
    """The thread that was started: how far it is, and calling it off. ``stopped_s`` is the pause of one thread."""

    def __init__(self, pid: int, order: _Order) -> None:
        self._pid = pid
        self._at: int = order.work_at
        self.stopped_s: float = order.stopped_s
        self.tries: int = order.tries

    def state(self) -> int:
        """STARTED, ASKING (for the GIL), RUNNING, NOT_READY or DONE."""
        try:
            with open(f"/proc/{self._pid}/mem", "rb", buffering=0) as memory:  # noqa: PTH123
                memory.seek(self._at + _Work.state.offset)
                return int.from_bytes(memory.read(4), "little")
        except OSError:  # unmapped by the thread, which has ended
            return DONE

    def cancel(self) -> None:
        """If it has not begun yet, it will not: it ends once it gets the GIL."""
        if self.state() not in (RUNNING, DONE):
            try:
                with open(f"/proc/{self._pid}/mem", "r+b", buffering=0) as memory:  # noqa: PTH123
                    memory.seek(self._at + _Work.go.offset)
                    memory.write(_CANCEL.to_bytes(4, "little"))
            except OSError:
                return


def start(pid: int, python: Interpreter, source: bytes, until: float) -> Started:
    """Start a thread that runs ``source``. ``until`` is a time of ``time.monotonic``. Raises InjectError.

    Cannot be interrupted: each attempt takes a fraction of a second, and Ctrl-C is heeded between them.
    """
    library = _library()
    order = _order(pid, python, source)
    began = time.monotonic()
    for tid in itertools.chain.from_iterable(_threads(pid) for _ in itertools.count()):
        late = time.monotonic() - began > (until - began) / 3
        _ranges(order, python.ranges + (python.other_ranges if late else []))
        order.tid, order.wait_s = tid, 0.05
        library.flatwater_inject(ctypes.byref(order))
        kind = _RESULTS[order.result]
        if kind == "ok":
            return Started(pid, order)
        lost_thread = kind == "gone" and tid != pid and Path(f"/proc/{pid}").exists()
        if not lost_thread and kind != "not_safe":
            raise InjectError(kind, order.error)
        if time.monotonic() > until:
            raise InjectError("not_safe")
    raise InjectError("gone")


def _order(pid: int, python: Interpreter, source: bytes) -> _Order:
    order = _Order(pid=pid, syscall_at=python.syscall_at, pthread_create=python.functions["pthread_create"])
    order.source, order.source_size = source, len(source) + 1
    for name, _ in _WORK:
        if name in python.functions:
            setattr(order.work, name, python.functions[name])
    finalizing = python.functions.get("Py_IsFinalizing") or python.functions.get("_Py_IsFinalizing")
    order.work.finalizing = finalizing or 0
    return order


def _ranges(order: _Order, ranges: list[tuple[int, int]]) -> None:
    order.range_count = min(len(ranges), _MAX_RANGES)
    for number, (start, end) in enumerate(ranges[:_MAX_RANGES]):
        order.ranges[2 * number], order.ranges[2 * number + 1] = start, end


def _threads(pid: int) -> list[int]:
    """Threads to try: those that wait in a system call first, among equals the main one."""
    waiting: list[int] = []
    busy: list[int] = []
    try:
        for name in os.listdir(f"/proc/{pid}/task"):  # noqa: PTH208
            try:
                call = Path(f"/proc/{pid}/task/{name}/syscall").read_text("ascii")
            except OSError:  # just gone, or the kernel does not tell
                call = "running"
            (busy if call.startswith(("running", "-1")) else waiting).append(int(name))
    except OSError:
        raise InjectError("gone") from None
    if not waiting and not busy:
        raise InjectError("gone")
    random.shuffle(waiting)
    random.shuffle(busy)
    for threads in (waiting, busy):
        threads.sort(key=lambda tid: tid != pid)
    return [*waiting[:8], *busy[:8]]


def payload(socket: str, report: str, first_s: float, parts: str = "") -> bytes:
    """The source that the thread runs: it unpacks our modules, unless they are there already, and serves.

    ``parts`` is a further folder in which the parts in C may be found.
    """
    key, packed = _packed(parts)
    arguments = repr((socket, report, first_s)).encode()
    return _PAYLOAD % {b"key": key, b"packed": packed, b"arguments": arguments}


# No class or function is made here: it would be left to the collector of the process each time.
_PAYLOAD = b"""
import sys
guest = getattr(sys, "_flatwater_guest", None)
if guest is None or guest["key"] != b"%(key)s":
    import binascii, importlib.util, marshal, zlib
    (file, source, code), sent = marshal.loads(zlib.decompress(binascii.a2b_base64(b"%(packed)s")))
    same = sent["magic"] == importlib.util.MAGIC_NUMBER
    guest = {"__name__": "_flatwater_guest", "__file__": file, "key": b"%(key)s", "sent": sent}
    exec(marshal.loads(code) if same else compile(source, file, "exec", dont_inherit=True), guest)
    sys._flatwater_guest = guest
guest["main"](guest["sent"], *%(arguments)s)
"""


@functools.cache
def _packed(parts: str) -> tuple[bytes, bytes]:
    """A key for our sources as they are, and they themselves."""
    modules = _modules()
    sent = {
        "version": __version__,
        "folders": [str(_HERE), parts],
        "magic": importlib.util.MAGIC_NUMBER,
        "modules": modules,
    }
    guest = _source("flatwater.memory.guest")
    packed = zlib.compress(marshal.dumps((guest, sent), 4), 6)
    return hashlib.blake2s(packed).hexdigest().encode(), binascii.b2a_base64(packed, newline=False)


@functools.cache
def _modules() -> dict[str, tuple[str, str, bytes]]:
    """The agent's module and all of ours that it imports, by name: file, source, code."""
    found: dict[str, tuple[str, str, bytes]] = {}
    wanted = ["flatwater.memory.agent"]
    while wanted:
        name = wanted.pop()
        if name in found or name == "flatwater" or name.rpartition(".")[2].startswith("_"):  # or one in C
            continue
        found[name] = _source(name)
        wanted += [name.rpartition(".")[0], *_imports(found[name][1])]
    return found


def _source(name: str) -> tuple[str, str, bytes]:
    path = _HERE.parent.joinpath(*name.split(".")[1:])
    path = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
    source = path.read_text("utf-8")
    return str(path), source, marshal.dumps(compile(source, str(path), "exec", dont_inherit=True))


def _imports(source: str) -> list[str]:
    found: list[str] = []
    for node in ast.walk(parse(source)):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names if alias.name.startswith("flatwater.")]
        elif isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] == "flatwater":
            module = str(node.module)
            for alias in node.names:
                whole = f"{module}.{alias.name}"
                exists = (_HERE.parent / Path(*whole.split(".")[1:])).with_suffix(".py").exists()
                found.append(whole if exists else module)
    return found
