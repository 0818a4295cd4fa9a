"""How a process that serves HTTP leaves without dropping a request; uvicorn's server is asked, others by SIGTERM."""

from __future__ import annotations

import asyncio
import ctypes
import logging
import multiprocessing
import os
import signal
import socket
import struct
import sys
import time
from typing import Any

from flatwater.bounded import check_bound
from flatwater.guard.flight import started
from flatwater.guard.turn import alive

log = logging.getLogger("flatwater.guard")

_LOOK_S = 0.02
_SETTLE_S = 0.1
_FRESH_S = 2.0  # how long a connection that has not asked yet may take to ask
_PATIENCE_S = 60.0
_ASK_S = 0.1  # a look at all siblings costs a tenth of a millisecond: not at each request
_SO_ATTACH_FILTER = 26


class Departure:
    """Asked once, it ends this process's server in three steps.

    1. Responses ask to close their connection (the middleware looks at ``asked``) until all connections that were
       open have ended, at most ``drain_s``: an idle one ends by the server's own keep-alive timeout. So no client
       sends a request into a connection that is being closed.
    2. No more connections are taken. Workers that share a socket leave the rest to each other and to their successor;
       of a socket of its own the process first drops what arrives (the client's kernel tries again), so that nothing
       is left in the queue that would be reset.
    3. The server exits, and finishes the requests that it has.
    """

    def __init__(self, *, drain_s: float = 6.0) -> None:
        check_bound("drain_s", drain_s, where="guard")
        self._drain_s = drain_s
        self._loop: asyncio.AbstractEventLoop | None = None
        self._old: set[Any] = set()
        self.asked = False

    def ask(self, loop: asyncio.AbstractEventLoop | None) -> None:
        """Begin to leave; from any thread."""
        if self.asked:
            return
        self.asked = True
        self._loop = loop
        if loop is None:
            os.kill(os.getpid(), signal.SIGTERM)
        else:
            loop.call_soon_threadsafe(self._begin)

    def _begin(self) -> None:
        server = uvicorn_server()
        if server is None:
            self._later(self._drain_s, self._exit, None)
            return
        self._old = set(server.server_state.connections)
        self._drain(server, time.monotonic() + min(self._drain_s, server.config.timeout_keep_alive + 1.0))

    def _drain(self, server: Any, until: float) -> None:
        self._old &= server.server_state.connections
        if self._old and time.monotonic() < until and not server.should_exit:
            self._later(_LOOK_S, self._drain, server, until)
            return
        self._old.clear()
        if pooled() or server.config.fd is not None:
            self._close(server)
        else:
            for sock in _sockets(server):
                drop_arrivals(sock)
            self._later(_SETTLE_S, self._close, server)

    def _close(self, server: Any) -> None:
        for listener in server.servers:
            listener.close()  # uvicorn will once more, which is allowed
        self._later(_SETTLE_S, self._finish, server, time.monotonic() + _FRESH_S)

    def _finish(self, server: Any, until: float) -> None:
        """uvicorn closes connections that have not asked yet, even when their request is under way: wait for it."""
        fresh = any(getattr(one, "cycle", one) is None for one in server.server_state.connections)
        if fresh and time.monotonic() < until and not server.should_exit:
            self._later(_LOOK_S, self._finish, server, until)
        else:
            self._exit(server)

    def _exit(self, server: Any) -> None:
        if server is not None:
            server.should_exit = True
        else:
            os.kill(os.getpid(), signal.SIGTERM)

    def _later(self, seconds: float, step: Any, *arguments: Any) -> None:
        assert self._loop is not None  # ask has set it
        self._loop.call_later(seconds, step, *arguments)


class Siblings:
    """Of the workers of one master one leaves at a time: a name that ends with its process, and a count.

    The name is an abstract socket's, so that nothing is left behind. A worker that is alone needs no turn.
    """

    def __init__(self) -> None:
        self._name: socket.socket | None = None
        self._most = 0
        self._since: float | None = None
        self._next = -float("inf")

    def look(self) -> None:
        """Note how many there are: the most that were seen are expected."""
        if self._name is not None:  # a fork's copy of the master's
            self.release()
        if pooled():
            self._most = max(self._most, alive(os.getppid()))

    def take(self) -> bool:
        """Whether this process may leave now; if so nobody else may until it has ended and been replaced."""
        if not pooled() or self._name is not None:
            return True
        now = time.monotonic()
        if now < self._next:
            return False
        self._next = now + _ASK_S
        return self._complete(now) and self._claim()

    def release(self) -> None:
        """Let another one leave. Twice is allowed."""
        if self._name is not None:
            self._name.close()
            self._name = None

    def _complete(self, now: float) -> bool:
        """All live; or one has been missing for so long that it is not coming."""
        living = alive(os.getppid())
        if living < self._most:
            self._since = now if self._since is None else self._since
            if now - self._since < _PATIENCE_S:
                return False
        self._most, self._since = living, None
        return True

    def _claim(self) -> bool:
        master = os.getppid()
        name = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
        try:
            name.bind(f"\0flatwater-turn-{os.getuid()}-{master}-{started(master)}")
        except OSError:
            name.close()
            return False
        self._name = name
        return True


def uvicorn_server() -> Any:
    """The server that runs in this process, found by its signal handler; None without one."""
    owner = getattr(signal.getsignal(signal.SIGTERM), "__self__", None)
    return owner if hasattr(owner, "should_exit") and hasattr(owner, "server_state") else None


def pooled() -> bool:
    """Whether this is one of several workers on one socket, under gunicorn or ``uvicorn --workers``."""
    return "gunicorn.arbiter" in sys.modules or multiprocessing.parent_process() is not None


def drop_arrivals(sock: Any) -> None:
    """Let the kernel drop what arrives at a listening TCP socket: a client's SYN is sent again a second later.

    A classic BPF program of one instruction that keeps 0 bytes (Linux, socket(7), SO_ATTACH_FILTER).
    """
    if sock.family not in (socket.AF_INET, socket.AF_INET6):
        return
    program = ctypes.create_string_buffer(struct.pack("HBBI", 0x06, 0, 0, 0))
    try:
        sock.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, struct.pack("HP", 1, ctypes.addressof(program)))
    except OSError as error:  # a jail that forbids it: what is in the queue may be reset
        log.debug("arrivals are not dropped: %s", error)


def _sockets(server: Any) -> list[Any]:
    return [sock for listener in server.servers for sock in listener.sockets or ()]
