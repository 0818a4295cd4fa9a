"""Where a process listens: the socket of a host and a port, or an error that says what to do."""

from __future__ import annotations

import errno
import ipaddress
import os
import socket

from flatwater.errors import FlatwaterError


class ListenError(FlatwaterError, code="listen", status=503):
    """The process cannot listen."""


def bound(
    host: str, port: int, *, section: str, flag: str = "", backlog: int = 128, write_s: float | None = None
) -> socket.socket:
    """A listening socket; port 0 takes a free one. Errors name the ``section`` of the settings and the ``flag`` that
    may set the port.

    A client that acknowledges nothing, or takes nothing, for ``write_s`` seconds is cut off by the kernel: accepted
    connections inherit TCP_USER_TIMEOUT (tcp(7)). Raises ListenError.
    """
    try:
        family, kind, proto, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        sock = socket.socket(family, kind, proto)
    except OSError as error:
        hint = "give an address of this machine"
        raise ListenError(str(error), where=f"{section}.host = {host!r}", hint=hint) from None
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if write_s is not None:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, int(write_s * 1000))
        sock.bind(address)
        sock.listen(backlog)
        sock.setblocking(False)
    except OSError as error:
        sock.close()
        raise _refused(error, host, port, section, flag) from None
    return sock


def is_loopback(host: str) -> bool:
    """Whether an address to listen on can be reached from this machine alone."""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def url(sock: socket.socket, *, tls: bool) -> str:
    """The address of a socket as a URL: ``http://127.0.0.1:8350``, ``https://[::1]:8350``."""
    host, port = sock.getsockname()[:2]
    return f"http{'s' if tls else ''}://{f'[{host}]' if ':' in host else host}:{port}"


def _refused(error: OSError, host: str, port: int, section: str, flag: str) -> ListenError:
    where = f"{host}:{port}"
    setting = f"{flag} or {section}.port" if flag else f"{section}.port"
    if error.errno == errno.EADDRINUSE:
        hint = f"stop what listens there, or choose another with {setting}"
        return ListenError(f"port {port} is taken", where=where, hint=hint)
    if error.errno in (errno.EACCES, errno.EPERM):
        hint = f"choose one above 1023 with {setting}"
        return ListenError(f"port {port} is not allowed for this user", where=where, hint=hint)
    return ListenError(os.strerror(error.errno or 0), where=where, hint=f"check {section}.host and {section}.port")
