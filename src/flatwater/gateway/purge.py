"""Which stored responses an operator wants gone."""

from __future__ import annotations

from collections.abc import Callable
from urllib.parse import urlsplit

import msgspec

from flatwater.errors import InputError
from flatwater.gateway.cache import cache_key

_HINT = (
    'give one of {"all": true}, {"url": "http://host/path?query"}, {"prefix": "http://host/path"}; a "service" beside'
)


class Purge(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One of ``all``, ``url`` and ``prefix``, of all services or of one.

    ``url`` and ``prefix`` are what clients ask the gateway for. ``//host/path`` is of any scheme, ``/path`` of any
    host too. Paths and queries count byte by byte.
    """

    all: bool = False
    url: str = ""
    prefix: str = ""
    service: str = ""


def matcher(wanted: Purge) -> Callable[[bytes], bool]:
    """Whether a key of :func:`flatwater.gateway.cache.cache_key` is meant. Raises InputError for what says nothing, or
    too much."""
    if wanted.all + bool(wanted.url) + bool(wanted.prefix) != 1:
        raise InputError("it is not clear what is to be purged", hint=_HINT)
    namespace = wanted.service.encode()
    given = wanted.url or wanted.prefix
    place, cut = _place(given) if given else (b"", _whole)

    def matches(key: bytes) -> bool:
        owner, _, address = key.partition(b" ")
        if namespace and owner != namespace:
            return False
        found = cut(address)
        return wanted.all or (found == place if wanted.url else found.startswith(place))

    return matches


def _place(given: str) -> tuple[bytes, Callable[[bytes], bytes]]:
    """What to compare, and which part of an address with it."""
    try:
        parts = urlsplit(given)
    except ValueError as error:
        raise InputError(f"{given!r}: {error}", hint=_HINT) from None
    target = (parts.path or "/") + (f"?{parts.query}" if parts.query or given.endswith("?") else "")
    if not parts.netloc:
        if parts.scheme or not given.startswith("/"):
            raise InputError(f"{given!r} is no address", hint=_HINT)
        return target.encode(), _target
    if parts.scheme not in ("", "http", "https"):
        raise InputError(f"{given!r} has another scheme than http and https", hint=_HINT)
    bare = cache_key(parts.scheme.encode() or b"http", parts.netloc.encode(), target.encode())[1:]
    return (bare, _whole) if parts.scheme else (_schemeless(bare), _schemeless)


def _whole(address: bytes) -> bytes:
    return address


def _schemeless(address: bytes) -> bytes:
    return address.partition(b"://")[2]


def _target(address: bytes) -> bytes:
    _, slash, path = _schemeless(address).partition(b"/")
    return slash + path
