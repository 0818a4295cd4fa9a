"""Heads of requests that were checked and routed, and a memo of those that come again byte for byte."""

from __future__ import annotations

from array import array
from itertools import chain

from flatwater.bounded import Ledger, Usage
from flatwater.errors import SettingError
from flatwater.gateway.message import Headers
from flatwater.gateway.request import Request
from flatwater.gateway.upstream import Upstream

OVERHEAD_BYTES = 2000
FIELD_BYTES = 180
"""What a head costs in memory beyond thrice its bytes, and what each field does (tests/gateway/test_head.py)."""


class Head:
    """What follows from the head of a request, without a body, and nothing else: not from the client, not from the
    time, not from what came before. So it may serve again for a head of the same bytes.

    ``request`` has no client yet, and no id unless the head gave one: see :meth:`Request.arrived`. ``path`` is what
    the upstream gets, ``fields`` are all of them. ``key`` is the cache's, empty when the cache has no say; ``plain``
    requests are GETs that demand nothing of it. ``express`` requests may be forwarded without a task; ``sent`` is how
    one was: for which client and host, and its bytes up to the id. ``method`` and ``target`` are for the history.
    """

    __slots__ = (
        *("express", "fields", "keep_alive", "key", "method", "path", "plain", "request", "sent", "target", "upstream"),
    )

    def __init__(
        self,
        method: str,
        request: Request,
        upstream: Upstream,
        path: bytes,
        fields: Headers,
        key: bytes,
        keep_alive: bool,
    ) -> None:
        self.request = request
        self.upstream = upstream
        self.path = path
        self.fields = fields
        self.key = key
        self.keep_alive = keep_alive
        self.method = method
        self.target = request.path.decode("latin-1")
        self.express = upstream.express and not (request.length != 0 or request.upgrade or request.expects)
        self.sent: tuple[str, bytes, bytes] | None = None
        self.plain = method == "GET" and not request.demands

    def forwarded(self, client: str, id: bytes) -> Request:
        """The request as it goes to the service, from ``client``."""
        request = self.request.arrived(client)
        request.id = id
        request.target = self.path + request.query
        return request


Key = bytes | tuple[bytes, bytes]
"""All bytes of a head; or host and target, which no bytes that a client may send are equal to."""


class HeadsStatistics(Usage, frozen=True, kw_only=True):
    """``hits`` requests were known by their bytes, or by host and target; ``entered`` heads since the start,
    ``evictions`` of them have left for newer ones."""

    hits: int
    entered: int


class Heads:
    """Heads by their bytes; and by host and target, for plain GETs that ask for the same with other fields. A key
    enters when it comes for the second time, so that heads of which each is another do not push out those that repeat;
    those that have not come for long leave.

    Entries stand in two generations: what is asked for moves to the young one, and when that has grown to half of
    ``max_entries`` or ``max_bytes`` the old one is dropped and the young one becomes old. ``max_head_bytes``: longer
    heads do not enter. With ``max_entries`` 0 nothing does. Raises SettingError when a bound is negative.
    """

    kind = "memo of request heads"

    def __init__(
        self, name: str = "gateway heads", *, max_entries: int, max_bytes: int, max_head_bytes: int, ledger: Ledger
    ) -> None:
        if min(max_entries, max_bytes, max_head_bytes) < 0:
            raise SettingError("a bound is negative", where=name, hint="0 entries switch the memo off")
        self.name = name
        self.max_head_bytes = max_head_bytes
        self._max_entries = max_entries
        self._max_bytes = max_bytes
        self._half_entries = max_entries // 2
        self._half_bytes = max_bytes // 2
        self._young: dict[Key, Head] = {}
        self._old: dict[Key, Head] = {}
        self._young_bytes = self._old_bytes = 0
        slots = 1 << max(4 * max_entries - 1, 1).bit_length()
        self._seen = array("q", bytes(8 * slots))  # hashes of heads that came once, each in the one place it may take
        self._mask = slots - 1
        self._hits = self._entered = self._evictions = 0
        ledger.register(self)

    def get(self, raw: Key) -> Head | None:
        """What is known of the head with these bytes."""
        head = self._young.get(raw)
        if head is None:
            if (head := self._old.pop(raw, None)) is None:
                return None
            self._old_bytes -= (size := _size(raw, head))
            self._put(raw, head, size)
        self._hits += 1
        return head

    def again(self, raw: Key) -> bool:
        """Whether something that is not here has come before, and may enter."""
        if _length(raw) > self.max_head_bytes or not self._half_entries:
            return False
        number = hash(raw)
        slot = number & self._mask
        if self._seen[slot] == number:
            return True
        self._seen[slot] = number
        return False

    def enter(self, raw: Key, head: Head) -> None:
        """What came again. Connections must stay after it as they are, or it does not enter."""
        size = _size(raw, head)
        stays = head.keep_alive and b"upgrade" not in head.request.special
        if stays and size <= self._half_bytes and raw not in self:
            self._entered += 1
            self._put(raw, head, size)

    def clear(self) -> None:
        """Forget all: what they follow from has changed."""
        self._young, self._old = {}, {}
        self._young_bytes = self._old_bytes = 0

    def statistics(self) -> HeadsStatistics:
        return HeadsStatistics(
            size=len(self),
            bound=self._max_entries,
            bytes=self._young_bytes + self._old_bytes,
            max_bytes=self._max_bytes,
            evictions=self._evictions,
            hits=self._hits,
            entered=self._entered,
        )

    def __contains__(self, raw: Key) -> bool:
        return raw in self._young or raw in self._old

    def __len__(self) -> int:
        return len(self._young) + len(self._old)

    def _put(self, raw: Key, head: Head, size: int) -> None:
        if len(self._young) >= self._half_entries or self._young_bytes + size > self._half_bytes:
            self._evictions += len(self._old)
            self._old, self._young = self._young, {}
            self._old_bytes, self._young_bytes = self._young_bytes, 0
        self._young[raw] = head
        self._young_bytes += size


def _size(raw: Key, head: Head) -> int:
    told = sum(map(len, chain.from_iterable(head.fields))) + len(head.target) + len(head.request.query)
    return OVERHEAD_BYTES + 3 * max(_length(raw), told) + FIELD_BYTES * len(head.fields)


def _length(raw: Key) -> int:
    return len(raw) if isinstance(raw, bytes) else len(raw[0]) + len(raw[1])
