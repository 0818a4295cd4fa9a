"""The agent: answers the commands of :mod:`flatwater.memory.command` on a UNIX socket. Standard library only.

``start()`` gives this process one that lasts (``import flatwater.agent`` does so); an injected one
(:mod:`flatwater.memory.guest`) ends when its last client has gone. It works in threads that :mod:`threading` does not
know of, so nothing waits for them at exit, writes no logs and touches no signals.
"""

from __future__ import annotations

import _socket
import _thread
import atexit
import contextlib
import errno
import json
import os
import select
import struct
import sys
import threading
from types import ModuleType
from typing import Any

from flatwater.memory import protocol
from flatwater.memory.command import Session, call
from flatwater.memory.heap_model import HeapError
from flatwater.memory.sampler import start_if_wanted


def _unpatched(module: ModuleType, name: str) -> Any:
    """The original of what gevent replaced: its own would run us in a greenlet of the program, or make hubs for us."""
    saved: dict[str, dict[str, Any]] = getattr(sys.modules.get("gevent.monkey"), "saved", {})
    return saved.get(module.__name__, {}).get(name, getattr(module, name))


_start_new_thread = _unpatched(_thread, "start_new_thread")
_get_ident = _unpatched(_thread, "get_ident")
_allocate_lock = _unpatched(_thread, "allocate_lock")
_poll = _unpatched(select, "poll")

_SO_PEERCRED = 17
_NAME = "flatwater"
_ENDED = select.POLLHUP | select.POLLERR | select.POLLNVAL


class _Connection:
    """One client and its session; ``done`` once its thread needs the socket no more."""

    def __init__(self, socket: _socket.socket) -> None:
        self.socket = socket
        self.session = Session()
        self.done = False


class Agent:
    """Listens from construction on; ``serve`` answers until ``stop`` or, with ``first_s``, until nobody is there.

    With ``first_s`` the first client must come within so many seconds, and the agent ends with its last client.
    Raises OSError when the socket cannot be made.
    """

    def __init__(self, path: str, *, max_connections: int = 4, first_s: float | None = None) -> None:
        self.path = path
        self._max_connections = max_connections
        self._first_s = first_s
        self._connections: dict[int, _Connection] = {}
        self._stopping = False
        self._over = _allocate_lock()
        self._wake, self._waking = _socket.socketpair(_socket.AF_UNIX, _socket.SOCK_STREAM | _socket.SOCK_CLOEXEC)
        self._listener = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM | _socket.SOCK_CLOEXEC)
        try:
            self._listen()
        except BaseException:
            self._let_go()
            raise
        for socket in (self._wake, self._waking):
            socket.setblocking(False)
        self._over.acquire()
        _held().extend((self._listener, self._wake, self._waking))

    def _listen(self) -> None:
        protocol.prepare_directory(os.path.dirname(self.path))  # noqa: PTH120
        try:
            self._listener.bind(self.path)
        except OSError:
            _remove_stale(self.path)
            self._listener.bind(self.path)
        os.chmod(self.path, 0o600)  # noqa: PTH101 (until listen nobody can connect)
        self._identity = os.stat(self.path).st_ino  # noqa: PTH116
        self._listener.listen(self._max_connections)
        self._listener.setblocking(False)

    def serve(self) -> None:
        """Answer until the end. Call it once, in a thread of its own."""
        with contextlib.suppress(OSError), open("/proc/thread-self/comm", "w") as name:  # noqa: PTH123
            name.write(_NAME)
        poll = _poll()
        poll.register(self._listener.fileno(), select.POLLIN)
        poll.register(self._wake.fileno(), select.POLLIN)
        waiting_s = self._first_s
        try:
            while not self._stopping:
                events = poll.poll(None if waiting_s is None else waiting_s * 1000)
                if not events:
                    break
                for fd, event in events:
                    self._heed(poll, fd, event)
                if self._connections:
                    waiting_s = None
                elif self._first_s is not None and waiting_s is None:
                    break
        finally:
            self._end()

    def _heed(self, poll: Any, fd: int, event: int) -> None:
        if fd == self._listener.fileno():
            self._accept(poll)
        elif fd == self._wake.fileno():
            with contextlib.suppress(BlockingIOError):
                self._wake.recv(4096)
            for number in [number for number, connection in self._connections.items() if connection.done]:
                with contextlib.suppress(KeyError):
                    poll.unregister(number)
                _close(self._connections.pop(number).socket)
        elif event & (_ENDED | select.POLLRDHUP) and (connection := self._connections.get(fd)) is not None:
            poll.unregister(fd)  # not there: closed for a word of the same turn that came first
            connection.session.closed.set()

    def _accept(self, poll: Any) -> None:
        try:
            fd, _ = self._listener._accept()  # type: ignore[attr-defined]
        except OSError:  # the client has gone again
            return
        os.set_inheritable(fd, False)
        socket = _socket.socket(fileno=fd)
        socket.setblocking(True)
        _, uid, _ = struct.unpack("3i", socket.getsockopt(_socket.SOL_SOCKET, _SO_PEERCRED, 12))
        if uid not in (0, os.geteuid()):
            socket.close()
        elif len(self._connections) >= self._max_connections:
            error = RuntimeError(f"{self._max_connections} clients are connected already: let one of them leave")
            with contextlib.suppress(OSError):
                socket.sendall(protocol.refusal(error))
            socket.close()
        else:
            connection = self._connections[fd] = _Connection(socket)
            _held().append(socket)
            poll.register(fd, select.POLLRDHUP)
            _start_new_thread(self._answer, (connection,))

    def _answer(self, connection: _Connection) -> None:
        try:
            for line in _lines(connection.socket):
                _reply(connection, line)
        except Exception:  # noqa: S110 (the client has gone, or broke the protocol: either way there is nobody to tell)
            pass
        finally:
            with contextlib.suppress(Exception):
                connection.session.closed.set()
                connection.session.close()
            _forget_thread()
            connection.done = True
            with contextlib.suppress(OSError):
                self._waking.send(b"x")

    def stop(self) -> None:
        """End; returns when the socket is gone. Stopping twice is allowed."""
        self._stopping = True
        with contextlib.suppress(OSError):
            self._waking.send(b"x")
        with self._over:
            pass

    def _end(self) -> None:
        self._unlink()
        for connection in self._connections.values():
            connection.session.closed.set()
            with contextlib.suppress(OSError):
                connection.socket.shutdown(_socket.SHUT_RDWR)
        poll = _poll()
        poll.register(self._wake.fileno(), select.POLLIN)
        for _ in range(50):  # commands that watch `closed` end soon; one that does not keeps its socket until it does
            if all(connection.done for connection in self._connections.values()):
                break
            poll.poll(100)
            with contextlib.suppress(BlockingIOError):
                self._wake.recv(4096)
        for connection in self._connections.values():
            _close(connection.socket)
        self._connections.clear()
        self._let_go()
        _forget_thread()
        self._over.release()

    def _unlink(self) -> None:
        with contextlib.suppress(OSError):
            if os.stat(self.path).st_ino == self._identity:  # noqa: PTH116 (another agent's socket is not ours to remove)
                os.unlink(self.path)  # noqa: PTH108

    def _let_go(self) -> None:
        for socket in (self._listener, self._wake, self._waking):
            _close(socket)


def _lines(socket: _socket.socket) -> Any:
    buffer = bytearray()
    while part := socket.recv(65536):
        buffer += part
        while (end := buffer.find(b"\n")) >= 0:
            line = bytes(buffer[:end])
            del buffer[: end + 1]
            yield line
        if len(buffer) > protocol.MAX_REQUEST_BYTES:
            return


def _reply(connection: _Connection, line: bytes) -> None:
    try:
        asked = json.loads(line)
        value = call(connection.session, asked["ask"], asked.get("args", {}))
    except Exception as error:
        connection.socket.sendall(protocol.refusal(error))
        return
    for piece in protocol.answer(value):
        connection.socket.sendall(piece)


def _forget_thread() -> None:
    """Take back what others made for this thread: a dummy of :mod:`threading` (for its name), a hub of gevent."""
    local = sys.modules.get("gevent._hub_local")
    if local is not None and (hub := local.get_hub_if_exists()) is not None:
        hub.destroy(destroy_loop=True)
    ident = _get_ident()
    active = getattr(threading, "_active", {})
    if isinstance(active.get(ident), getattr(threading, "_DummyThread", ())):
        active.pop(ident, None)


# A fork of the process has copies of the sockets but not the threads: it closes them. What is registered with
# os.register_at_fork stays for ever, so there is one for each process, found again under a name in sys.
_FORKED = """
def forked():
    while sockets:
        sockets.pop().close()
"""


def _held() -> list[_socket.socket]:
    held: list[_socket.socket] | None = getattr(sys, "_flatwater_sockets", None)
    if held is None:
        held = []
        namespace: dict[str, Any] = {"sockets": held}
        exec(_FORKED, namespace)  # noqa: S102 (its globals must not keep this module alive)
        os.register_at_fork(after_in_child=namespace["forked"])
        sys._flatwater_sockets = held  # type: ignore[attr-defined]
    return held


def _close(socket: _socket.socket) -> None:
    socket.close()
    with contextlib.suppress(ValueError):
        _held().remove(socket)


_lasting: Agent | None = None
_registered = False


def start(*, max_connections: int = 4) -> Agent:
    """Give this process an agent that lasts; the one it has, if it has one. Raises OSError when that is impossible.

    Where the environment asks for it the sampler of allocations begins with it.
    """
    global _lasting, _registered
    if _lasting is None:
        _lasting = Agent(f"{protocol.own_directory()}/{os.getpid()}.sock", max_connections=max_connections)
        _start_new_thread(_serve_quietly, (_lasting,))
        if not _registered:
            _registered = True
            os.register_at_fork(after_in_child=_after_fork)
            atexit.register(_unlink)
        with contextlib.suppress(HeapError, ValueError):  # the program shall not fail for it
            start_if_wanted()
    return _lasting


def stop() -> None:
    """End the lasting agent. Stopping twice is allowed."""
    global _lasting
    agent, _lasting = _lasting, None
    if agent is not None:
        agent.stop()


def _remove_stale(path: str) -> None:
    """Remove the socket of a process that had this number before. Raises FileExistsError when somebody listens."""
    socket = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM | _socket.SOCK_CLOEXEC)
    code = socket.connect_ex(path)
    socket.close()
    if code != errno.ECONNREFUSED:
        raise FileExistsError(f"{path} belongs to an agent that runs")
    os.unlink(path)  # noqa: PTH108


def _unlink() -> None:
    if _lasting is not None:
        _lasting._unlink()


def _serve_quietly(agent: Agent) -> None:
    with contextlib.suppress(Exception):
        agent.serve()


def _after_fork() -> None:
    """The child has no agent; it gets its own where the environment asks for one."""
    global _lasting
    had, _lasting = _lasting, None
    if had is not None and os.environ.get("FLATWATER_AGENT") == "1":
        with contextlib.suppress(Exception):
            start()
