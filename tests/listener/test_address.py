"""Sockets to listen on, and what is said when there is none to have."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest

from flatwater.listener.address import ListenError, bound, url


@pytest.fixture
def taken() -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as holder:
        yield holder.getsockname()[1]


@pytest.mark.parametrize(("host", "shown"), [("127.0.0.1", "127.0.0.1"), ("::1", "[::1]"), ("localhost", None)])
def test_listens(host: str, shown: str | None) -> None:
    if host == "::1" and not socket.has_ipv6:
        pytest.skip("this Python has no IPv6")
    with bound(host, 0, section="listen", write_s=7.5) as found:
        port = found.getsockname()[1]
        assert found.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == 7500
        socket.create_connection((host, port), 10).close()
        if shown is not None:
            assert url(found, tls=False) == f"http://{shown}:{port}"
            assert url(found, tls=True) == f"https://{shown}:{port}"


def test_a_taken_port(taken: int) -> None:
    with pytest.raises(ListenError, match=f"port {taken} is taken") as caught:
        bound("127.0.0.1", taken, section="server", flag="--port")
    assert caught.value.where == f"127.0.0.1:{taken}"
    assert "--port or server.port" in caught.value.hint


@pytest.mark.parametrize(
    ("host", "where", "hint"),
    [
        ("192.0.2.1", "192.0.2.1:0", "check admin.host and admin.port"),  # of no machine (RFC 5737)
        ("no host", "admin.host = 'no host'", "give an address of this machine"),
    ],
)
def test_no_such_address(host: str, where: str, hint: str) -> None:
    with pytest.raises(ListenError) as caught:
        bound(host, 0, section="admin")
    assert (caught.value.where, caught.value.hint) == (where, hint)
