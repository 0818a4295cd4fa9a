"""Which service a request is for: by its host and the prefix of its path."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Generic, TypeVar

from flatwater.gateway.error import RouteError

S = TypeVar("S")


class Routes(Generic[S]):
    """The longest prefix of the host's own services wins, then of ``*.domain``'s, then of those for any host.

    Prefixes end at a slash: ``/shop`` is for ``/shop`` and ``/shop/cart``, not for ``/shopping``.
    """

    def __init__(self) -> None:
        self._hosts: dict[bytes, dict[bytes, tuple[S, bool]]] = {}
        self._depths: dict[bytes, int] = {}
        self._by_host = False  # a service is for some hosts only

    def add(self, service: S, *, path: str, hosts: Iterable[str], strip: bool) -> None:
        prefix = path.rstrip("/").encode()
        for host in tuple(hosts) or ("",):
            name = host.encode().removeprefix(b"*")
            self._by_host = self._by_host or name != b""
            self._hosts.setdefault(name, {})[prefix] = (service, strip)
            self._depths[name] = max(self._depths.get(name, 0), prefix.count(b"/"))

    def find(self, host: bytes, path: bytes) -> tuple[S, bytes]:
        """The service and the path that it gets. Raises RouteError."""
        for name in self._names(host) if self._by_host else _ANY:
            if (prefixes := self._hosts.get(name)) is not None and (
                found := _longest(prefixes, path, self._depths[name])
            ) is not None:
                prefix, (service, strip) = found
                return service, (path[len(prefix) :] or b"/") if strip else path
        raise RouteError(hint="see the services of the gateway's configuration")

    def _names(self, host: bytes) -> list[bytes]:
        name = host.lower()
        if not name.endswith(b"]"):
            name = name.rpartition(b":")[0] or name
        names = [name]
        while (dot := name.find(b".", 1)) > 0:
            name = name[dot:]
            names.append(name)
        names.append(b"")
        return names


_ANY = [b""]


def _longest(prefixes: dict[bytes, tuple[S, bool]], path: bytes, depth: int) -> tuple[bytes, tuple[S, bool]] | None:
    if depth == 1:  # as most are
        end = path.find(b"/", 1)
        prefix = path if end < 0 else path[:end]
        if (found := prefixes.get(prefix)) is not None:
            return prefix, found
        found = prefixes.get(b"")
        return None if found is None else (b"", found)
    end = 0
    ends: list[int] = []
    while len(ends) < depth:
        end = path.find(b"/", end + 1)
        if end < 0:
            ends.append(len(path))
            break
        ends.append(end)
    for end in reversed(ends):
        if (found := prefixes.get(path[:end])) is not None:
            return path[:end], found
    found = prefixes.get(b"")
    return None if found is None else (b"", found)
