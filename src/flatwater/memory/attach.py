"""``attach(pid)``: another process as a :class:`flatwater.memory.target.Target`.

An agent that is already there is used; else one is started inside (:mod:`flatwater.memory.inject`), which ends when
the last client has left. Every refusal says what to do and leaves the process as it was.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import select
import socket
import struct
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from types import TracebackType
from typing import Any, ClassVar, Self

from flatwater.errors import FlatwaterError
from flatwater.memory import build, heap_model, protocol, refusal
from flatwater.memory import inject as injection
from flatwater.memory.interpreter import Interpreter, NoPython, find
from flatwater.memory.refusal import AttachError, BusyError, GoneError, UnsupportedError

__all__ = ["AttachError", "Attached", "attach"]

_FIRST_S = 10.0  # an injected agent that nobody comes to ends after this
_DETACH_S = 2.0


class CommandError(FlatwaterError):
    """The agent could not do what was asked."""

    code: ClassVar[str] = "agent"


_ERRORS: dict[str, type[Exception]] = {
    kind.__name__: kind
    for kind in (heap_model.HeapError, heap_model.HeapFull, heap_model.HeapMissing, heap_model.ObjectUnknown)
}


class Attached:
    """A process that answers through its agent. Made by :func:`attach`; leave it when done: it is a ``with``.

    ``injected`` says whether the agent was started for this; ``pause_s`` is how long one thread of the process stood
    still for it, in seconds. Methods may be called from any thread, one question at a time.
    """

    def __init__(self, pid: int, connection: socket.socket, path: str, started: injection.Started | None) -> None:
        self.pid = pid
        self.injected = started is not None
        self.pause_s = started.stopped_s if started else 0.0
        self._connection: socket.socket | None = connection
        self._path = path
        self._started = started
        self._lock = threading.Lock()
        self._pidfd = _pidfd(pid)

    def ask(self, name: str, /, **arguments: Any) -> Any:
        """Run a command there and give its JSON value, however long it takes.

        Raises HeapError and its kind as the command did, CommandError for anything else that went wrong there, and
        GoneError when the process ends meanwhile. After an interruption (Ctrl-C) the connection is closed.
        """
        return self._ask(name, arguments, None)

    def _ask(self, name: str, arguments: dict[str, Any], until: float | None) -> Any:
        line = protocol.request(name, arguments)
        with self._lock:
            if self._connection is None:
                raise AttachError(f"the connection to process {self.pid} is closed", hint="attach again")
            try:
                self._connection.sendall(line)
                answer = json.loads(self._line(self._connection, until))
            except BaseException as error:  # the stream is out of step now: it cannot be used again
                self._hang_up()
                if isinstance(error, OSError):
                    raise GoneError(f"process {self.pid} closed the connection", hint=_ENDED) from error
                raise
        if "error" in answer:
            raise self._error(name, answer["error"])
        return answer["ok"]

    def _line(self, connection: socket.socket, until: float | None) -> bytes:
        poll = select.poll()
        poll.register(connection, select.POLLIN)
        if self._pidfd >= 0:
            poll.register(self._pidfd, select.POLLIN)
        parts, size = [], 0
        while True:
            events = dict(poll.poll(None if until is None else max(0.0, until - time.monotonic()) * 1000))
            if not events:
                raise refusal.silent(self.pid)
            part = connection.recv(1 << 20) if connection.fileno() in events else b""
            if not part:
                raise GoneError(f"process {self.pid} closed the connection", hint=_ENDED)
            parts.append(part)
            size += len(part)
            if part.endswith(b"\n"):
                return b"".join(parts)
            if size > protocol.MAX_ANSWER_BYTES:
                raise CommandError(f"the answer has more than {protocol.MAX_ANSWER_BYTES:,} bytes")

    def _error(self, name: str, error: dict[str, str]) -> Exception:
        kind = _ERRORS.get(error["type"])
        return kind(error["message"]) if kind else CommandError(f"{error['type']}: {error['message']}", where=name)

    def _hang_up(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()

    def close(self) -> None:
        """Leave; an agent that was started for this has ended when it returns. Closing twice is allowed."""
        with self._lock:
            self._hang_up()
            until = time.monotonic() + _DETACH_S
            if self._started is not None:  # another client may keep it there
                _until(until, lambda: self._started is None or self._started.state() == injection.DONE)
                self._started = None
            if self._pidfd >= 0:
                os.close(self._pidfd)
                self._pidfd = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()


_ENDED = "it has ended, or its agent was stopped; if it still runs, attach again"


def attach(pid: int, *, inject: bool = True, timeout_s: float = 10.0) -> Attached:
    """The process as a target: through the agent it has or, with ``inject``, one that is started inside it.

    Takes ``timeout_s`` at most, give or take a second. Raises AttachError (of :mod:`flatwater.memory.refusal`), whose
    hint says what to do; the process is then as it was.
    """
    until = time.monotonic() + timeout_s
    uid = _uid(pid, until)
    for _ in range(5):  # an agent may be on its way out, because its last client just left
        if (found := _existing(pid, uid)) is not None:
            with contextlib.suppress(GoneError):
                return _greeted(found, until)
        if not inject:
            continue
        with contextlib.suppress(_Again), _alone(pid, until):
            refusal.check_injection(pid, uid)
            return _inject(pid, uid, until)
    refusal.check_process(pid)
    if inject:
        raise BusyError(f"the agent of process {pid} came and went", hint="try again")
    raise AttachError(f"process {pid} has no agent", hint="let one be injected, or start it with `flatwater exec`")


class _Again(Exception):
    pass


def _uid(pid: int, until: float) -> int:
    """Whose the process is; one that is held by a client of ours, which is just attaching, is waited for."""
    try:
        return refusal.check_process(pid)
    except BusyError:
        with contextlib.suppress(_Again), _alone(pid, until):
            pass
        return refusal.check_process(pid)


@contextlib.contextmanager
def _alone(pid: int, until: float) -> Iterator[None]:
    """One client at a time injects into a process; raises _Again where another one just did.

    The name of an abstract socket is the lock: the kernel gives it back however its owner ends.
    """
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as lock:
        waited = False
        while True:
            try:
                lock.bind(f"\0flatwater-attach-{os.geteuid()}-{pid}")
                break
            except OSError as error:
                if time.monotonic() > until:
                    raise BusyError(f"another client is attaching to process {pid}", hint="try again") from error
            waited = True
            time.sleep(0.01)
        if waited:
            raise _Again
        yield


def _existing(pid: int, uid: int) -> Attached | None:
    for folder in protocol.directories(uid, refusal.environment(pid)):
        path = f"{folder}/{pid}.sock"
        if (connection := _connect(pid, path)) is not None:
            return Attached(pid, connection, path, None)
    return None


def _sweep(folder: str) -> None:
    """Remove the sockets that killed processes left."""
    with contextlib.suppress(OSError):
        for name in os.listdir(folder):  # noqa: PTH208
            number, _, rest = name.partition(".")
            if rest == "sock" and number.isdigit() and not os.path.exists(f"/proc/{number}"):  # noqa: PTH110
                os.unlink(f"{folder}/{name}")  # noqa: PTH108


def _connect(pid: int, path: str) -> socket.socket | None:
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    try:
        connection.settimeout(2)
        connection.connect(path)
        listener, _, _ = struct.unpack("3i", connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
        if listener == pid:
            connection.settimeout(None)
            return connection
    except OSError:  # nobody there, or what an earlier process of this number left
        pass
    except BaseException:
        connection.close()
        raise
    connection.close()
    return None


def _greeted(target: Attached, until: float) -> Attached:
    try:
        target._ask("hello", {}, until)
    except BaseException:
        target.close()
        raise
    return target


def _inject(pid: int, uid: int, until: float) -> Attached:
    python = _interpreter(pid)
    folder = _folder(uid, pid)
    _sweep(folder)
    path, report = f"{folder}/{pid}.sock", f"{folder}/{pid}.{secrets.token_hex(4)}.err"
    started: injection.Started | None = None
    began = time.monotonic()
    source = injection.payload(path, report, _FIRST_S, build.folder(python))
    until += time.monotonic() - began  # building takes seconds, once for each version of Python
    try:
        if (connection := _by_interpreter(pid, python, path, source, until)) is not None:
            return _greeted(Attached(pid, connection, path, None), until)
        started = injection.start(pid, python, source, until)
        connection = _awaited(pid, path, report, started, until)
        return _greeted(Attached(pid, connection, path, started), until)
    except injection.InjectError as error:
        raise refusal.explain(pid, error) from error
    except BaseException:
        if started is not None:
            started.cancel()
        raise
    finally:
        with contextlib.suppress(OSError):
            os.unlink(report)  # noqa: PTH108


def _by_interpreter(pid: int, python: Interpreter, path: str, source: bytes, until: float) -> socket.socket | None:
    """Python 3.14 and later run a script on request (PEP 768), if this one is of the same version.

    The main thread does it at its next bytecode, so one that sleeps does not: then None, as for earlier Pythons.
    """
    ask = getattr(sys, "remote_exec", None)
    if ask is None or python.version is None or python.version[:2] != sys.version_info[:2]:
        return None
    until = min(until, time.monotonic() + 2.0)
    with tempfile.NamedTemporaryFile("wb", suffix=".py") as script:
        os.fchmod(script.fileno(), 0o644)  # it holds our own sources; root may examine another user's process
        script.write(b"import _thread\n_thread.start_new_thread(exec, (%r, {}))\n" % source)
        script.flush()
        with contextlib.suppress(OSError, RuntimeError):
            ask(pid, script.name)
            while time.monotonic() < until:
                if (connection := _connect(pid, path)) is not None:
                    return connection
                time.sleep(0.01)
        script.truncate(0)  # a late reader finds nothing to do
    return None


def _interpreter(pid: int) -> Interpreter:
    try:
        python = find(pid)
    except NoPython as error:
        raise UnsupportedError(f"process {pid}: {error}") from error
    except OSError as error:
        raise refusal.unreadable(pid, error) from error
    refusal.check_version(pid, python)
    return python


def _folder(uid: int, pid: int) -> str:
    *first, last = protocol.directories(uid, refusal.environment(pid))
    found = next((path for path in first if os.path.isdir(os.path.dirname(path))), last)  # noqa: PTH112, PTH120
    if os.path.lexists(found):
        try:
            protocol.check_directory(found, uid)
        except protocol.DirectoryError as error:
            raise AttachError(str(error)) from error
    return found


def _awaited(pid: int, path: str, report: str, started: injection.Started, until: float) -> socket.socket:
    """A connection to the agent that was just started."""
    wait_s = 0.001
    while True:
        if (connection := _connect(pid, path)) is not None:
            return connection
        state = started.state()
        if state == injection.NOT_READY:
            raise BusyError(f"the Python of process {pid} is starting or ending", hint="try again in a moment")
        if state == injection.DONE:
            _explain_end(pid, report)
        if time.monotonic() > until:
            raise refusal.silent(pid)
        time.sleep(wait_s)
        wait_s = min(wait_s * 1.5, 0.05)


def _explain_end(pid: int, report: str) -> None:
    refusal.check_process(pid)
    try:
        with open(report, encoding="utf-8", errors="replace") as file:  # noqa: PTH123
            text = file.read(10_000)
    except OSError:
        raise _Again from None
    if text.startswith("FileExistsError"):  # another client was faster
        raise _Again
    raise AttachError(f"the agent could not start in process {pid}: {text}", hint="the process goes on unharmed")


def _pidfd(pid: int) -> int:
    try:
        return os.pidfd_open(pid)
    except OSError:  # a kernel before 5.3, or gone: the socket tells
        return -1


def _until(until: float, holds: Any) -> bool:
    while not holds():
        if time.monotonic() > until:
            return False
        time.sleep(0.002)
    return True
