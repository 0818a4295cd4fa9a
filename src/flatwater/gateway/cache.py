"""The HTTP cache of the gateway: a shared cache by RFC 9111, with RFC 5861, RFC 9211 and RFC 9213.

How a proxy uses it, with ``headers`` a list of (lower-case name, value) pairs of bytes, ``method`` bytes, and ``key``
made by :func:`cache_key`::

    found = cache.lookup(method, key, headers)
    if type(found) is Answer:                       # hit, 304, 206, 416, stale as the client allows, 504 as it asks
        send(found.response)
    elif type(found) is Stale and found.while_revalidating:
        send(cache.stale_answer(found).response)    # and ask with GET and found.background() in the background:
                                                    # on 304 cache.refreshed(…), else record as below
    else:                                           # Miss or Stale: ask the origin
        Stale: with found.conditional() as headers
            on 304 and found.asked: send(cache.refreshed(found, response_headers).response)
            on 500, 502, 503, 504 and found.on_error: send(cache.stale_answer(found, b"error").response)
            on no answer and found.on_disconnect: send(cache.stale_answer(found, b"disconnected").response)
            on anything else as for a Miss:
        cache.invalidate(found, status, response_headers)          # what an unsafe method has changed
        recorder = cache.record(found, status, response_headers)   # None: not to be kept
        response_headers.append((b"cache-status", cache.status(found, status, recorder is not None)))
        with recorder: recorder.add(chunk) …; recorder.commit()    # commit only when the body is complete

To be used from one thread (the event loop's). No method waits.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from urllib.parse import urljoin, urlsplit

import msgspec

from flatwater.bounded import Ledger, check_bound
from flatwater.gateway import demand as demands
from flatwater.gateway import directive, entry, freshness, validation, vary
from flatwater.gateway.demand import Demand
from flatwater.gateway.directive import field
from flatwater.gateway.entry import STRICT, VALIDATE, Stored
from flatwater.gateway.found import SAFE, Answer, Found, Miss, Stale
from flatwater.gateway.freshness import DEFAULT, Policy, Terms
from flatwater.gateway.recorder import Recorder, Room
from flatwater.gateway.shelf import OVERHEAD_BYTES, Packed, Shelf, ShelfStatistics
from flatwater.gateway.validation import Headers, Response

__all__ = [
    "DEFAULT",
    "Answer",
    "Found",
    "HttpCache",
    "HttpCacheStatistics",
    "Miss",
    "Policy",
    "Recorder",
    "Response",
    "Stale",
    "cache_key",
]

ERRORS = frozenset({500, 502, 503, 504})
"""Answers of an origin in whose place a stale response may be served (RFC 5861 §4)."""

_NOT_UPDATED = freshness.HOP_BY_HOP | {b"content-length", b"content-encoding", b"content-range", b"age"}
_REPLACING = frozenset({*range(200, 206), *range(300, 304), 307, 308, 404, 410})
_MAX_INVALIDATED = 1024


def cache_key(scheme: bytes, authority: bytes, target: bytes, namespace: bytes = b"") -> bytes:
    """The key of a URL; ``namespace`` (say, a service; no spaces) keeps equal URLs of different upstreams apart.

    The target is path and query as the client sent them: nothing is decoded or reordered.
    """
    scheme, authority = scheme.lower(), authority.lower()
    port = b":443" if scheme == b"https" else b":80"
    return b"%b %b://%b%b" % (namespace, scheme, authority.removesuffix(port), target.partition(b"#")[0])


class HttpCacheStatistics(ShelfStatistics, frozen=True, kw_only=True):
    """Look-ups by outcome: ``hits`` (of them ``not_modified`` with 304, ``partial`` with 206), ``validations`` (found,
    but to be validated), ``misses``, ``bypassed`` (the method or the request forbade it), ``refused`` (504).

    ``stale_hits``: answers with a stale response. ``revalidated``: a 304 renewed an entry. ``invalidated``: entries
    dropped after unsafe methods. ``recording``: bytes on their way in; ``unrecorded``: responses too large to be kept.
    """

    hits: int
    not_modified: int
    partial: int
    stale_hits: int
    refused: int
    validations: int
    misses: int
    bypassed: int
    revalidated: int
    invalidated: int
    recording: int
    max_recording_bytes: int
    unrecorded: int


class HttpCache:
    """See the module.

    Bounds: ``max_entries``, ``max_bytes`` (keys, heads, bodies and what they cost beside), ``max_entry_bytes``,
    ``max_age_s`` (nothing is kept longer without renewal), ``max_recording_bytes`` (bodies on their way in, beside
    ``max_bytes``). ``keep_stale_s``: how long an entry with a validator stays after its freshness, to be validated.
    ``label`` names this cache in Cache-Status. Raises SettingError when a bound is not above zero and finite.
    """

    kind = "HTTP cache"

    def __init__(
        self,
        name: str = "gateway cache",
        *,
        ledger: Ledger,
        max_entries: int = 50_000,
        max_bytes: int = 64 * 2**20,
        max_entry_bytes: int = 2**20,
        max_recording_bytes: int = 16 * 2**20,
        max_age_s: float = 86_400.0,
        keep_stale_s: float = 3600.0,
        label: bytes = b"flatwater",
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
    ) -> None:
        check_bound("max_recording_bytes", max_recording_bytes, where=name)
        self.name = name
        self._shelf = Shelf(
            max_entries=max_entries,
            max_bytes=max_bytes,
            max_entry_bytes=max_entry_bytes,
            max_age_s=max_age_s,
            where=name,
        )
        self._get = self._shelf.get
        self._room = Room(max_recording_bytes)
        self._keep_stale_s = keep_stale_s
        self._label = label
        self._hit = label.replace(b"%", b"%%") + b"; hit; ttl=%d"
        self._hit_lines = b"age: %d\r\ncache-status: " + self._hit + b"\r\n"
        self._clock = clock
        self._wall = wall
        self._generation = 0
        self._invalidated_at: dict[bytes, float] = {}
        self._invalidated_before = -1.0  # what was asked for before this may be out of date
        self._hits = self._not_modified = self._partial = self._stale_hits = self._refused = 0
        self._validations = self._misses = self._bypassed = 0
        self._revalidated = self._invalidated = self._unrecorded = 0
        ledger.register(self)

    def lookup(self, method: bytes, key: bytes, headers: Headers, policy: Policy = DEFAULT) -> Found:
        """What is here for a request."""
        now = self._clock()
        if method == b"GET" and demands.none(headers) and (plain := self.fresh(key, headers)) is not None:
            return Answer.plain(*plain)
        demand = demands.demand(headers, obey=policy.obey_client)
        packed = self._get(key)
        if (method != b"GET" and method != b"HEAD") or demand.elsewhere or demand.no_store:
            return self._bypass(method, key, headers, policy, now, demand)
        stored = None if packed is None else self._open(key, packed, headers, now)
        if stored is None:
            reason = b"uri-miss" if packed is None else b"vary-miss"
            return self._absent(method, key, headers, policy, now, reason, demand)
        age = now - stored.base
        if not stored.flags & VALIDATE and age < stored.lifetime and demand.accepts(age, stored.lifetime):
            self._hits += 1
            return self._answer(stored, headers, method, age, self._hit % (stored.lifetime - age), "hit")
        return self._stale(stored, method, key, headers, policy, now, demand)

    def fresh(self, key: bytes, headers: Headers) -> tuple[int, bytes, bytes] | None:
        """Status, header lines and body of what answers a GET that demands nothing of caches: the shortest way to a
        hit. None when there is more to think about: see ``lookup``."""
        packed = self._get(key)
        if packed is None:
            return None
        now = self._clock()
        plain = entry.fresh(packed, now, self._hit_lines)
        if plain is None:
            if (selecting := entry.marker(packed)) is None:
                return None
            packed = self._get(_variant_key(key, selecting[0], selecting[1], headers))
            if packed is None or (plain := entry.fresh(packed, now, self._hit_lines)) is None:
                return None
        self._hits += 1
        return plain

    def stale_answer(self, found: Stale, why: bytes = b"") -> Answer:
        """The stored response of ``found`` for its request, stale as it is; ``why`` goes into Cache-Status."""
        self._stale_hits += 1
        age = self._clock() - found.stored.base
        told = self._hit % (found.stored.lifetime - age)
        if why:
            told = self._label + b"; fwd=stale; detail=" + why
        return self._answer(_copy(found.stored), found.request, found.method, age, told, "stale")

    def refreshed(self, found: Stale, headers: Headers) -> Answer:
        """The origin has said 304 to our conditions: renew the stored response by ``headers`` (RFC 9111 §4.3.4), and
        answer the request with it."""
        now = self._clock()
        self._revalidated += 1
        stored = found.stored
        merged = _updated(stored.headers, headers)
        terms = _terms(found, stored.status, merged, self._wall(), now)
        tag = field(headers, b"etag")
        known = field(stored.headers, b"etag")
        if terms is None or (tag and known and not known.startswith(b"W/") and tag != known):
            self._shelf.delete(stored.key)  # not to be kept any more; or the 304 is about something else
        elif not self._outdated(found.key, found.asked_at):
            self._store(found.key, found.request, stored.status, merged, stored.body, terms, now)
        age = freshness.initial_age(headers, self._wall(), now - found.asked_at)
        renewed = stored._replace(headers=[item for item in merged if item[0] != b"age"])
        told = self._label + b"; fwd=%b; fwd-status=304" % found.reason
        return self._answer(renewed, found.request, found.method, age, told, "revalidated")

    def record(self, found: Miss, status: int, headers: Headers) -> Recorder | None:
        """Whether the origin's final response is to be kept; if so, what collects its body."""
        now = self._clock()
        if found.method == b"HEAD":
            self._update_by_head(found, status, headers, now)
            return None
        terms = _terms(found, status, headers, self._wall(), now) if self._may_record(found, headers) else None
        declared = field(headers, b"content-length")
        expected = directive.number(declared) if declared is not None else None
        limit = self._shelf.max_entry_bytes - OVERHEAD_BYTES - len(found.key)
        fits = expected is None or expected <= limit
        if terms is None or not fits:
            self._unrecorded += terms is not None
            if status in _REPLACING and found.method == b"GET":  # what is here is out of date
                self._forget(found)
            return None
        asked_at = now if found.method == b"POST" else found.asked_at
        return Recorder(
            self, self._room, found, status, list(headers), terms, asked_at=asked_at, expected=expected, max_bytes=limit
        )

    def invalidate(self, found: Miss, status: int, headers: Headers) -> int:
        """After a successful response to an unsafe method: drop what it may have changed (RFC 9111 §4.4).

        That is its own URL, and those in Location and Content-Location of the same origin. Returns how many were here.
        """
        if found.method in SAFE or not 200 <= status < 400:
            return 0
        keys = {found.key}
        for name in (b"location", b"content-location"):
            if (value := field(headers, name)) is not None and (other := _resolved(found.key, value)) is not None:
                keys.add(other)
        return sum(self.delete(key) for key in keys)

    def delete(self, key: bytes) -> bool:
        """Drop a URL with all its variants; what is on its way in from before is not kept either."""
        if len(self._invalidated_at) >= _MAX_INVALIDATED:
            self._invalidated_at.clear()
            self._invalidated_before = self._clock()
        self._invalidated_at[key] = self._clock()
        gone = self._shelf.delete(key)
        self._invalidated += gone
        return gone

    def status(self, found: Miss, status: int | None, stored: bool) -> bytes:
        """Our member of Cache-Status (RFC 9211) for a response that came from the origin with ``status``."""
        told = self._label + b"; fwd=" + found.reason
        if status is not None:
            told += b"; fwd-status=%d" % status
        return told + b"; stored" if stored else told

    @property
    def held_bytes(self) -> int:
        """What it holds, by the same measure as ``max_bytes``."""
        return self._shelf.room.bytes

    def shrink(self, max_bytes: int, max_entries: int = sys.maxsize) -> int:
        """Evict the least recently used, at most ``max_entries`` of them, until ``max_bytes`` are left; return the
        bytes freed. The bound stays."""
        return self._shelf.shrink(max_bytes, max_entries)

    def expire(self, max_keys: int = 1000) -> int:
        """Drop entries whose time has passed, looking at no more than ``max_keys``; return how many left."""
        return self._shelf.expire_due(self._clock(), max_keys)

    def clear(self) -> None:
        """Drop everything; what is on its way in from before is not kept either."""
        self._invalidated_before = self._clock()
        self._shelf.clear()

    def purge(self, matches: Callable[[bytes], bool]) -> int:
        """Drop the URLs whose key ``matches``, with all variants; return how many entries left. It looks at all of them
        (50,000 take 10 ms). What is on its way in from before is not kept, whatever its key."""
        self._invalidated_before = self._clock()
        return self._shelf.purge(lambda key: matches(key.partition(b"\n")[0]))

    def statistics(self) -> HttpCacheStatistics:
        return HttpCacheStatistics(
            **msgspec.structs.asdict(self._shelf.statistics()),
            hits=self._hits,
            not_modified=self._not_modified,
            partial=self._partial,
            stale_hits=self._stale_hits,
            refused=self._refused,
            validations=self._validations,
            misses=self._misses,
            bypassed=self._bypassed,
            revalidated=self._revalidated,
            invalidated=self._invalidated,
            recording=self._room.held,
            max_recording_bytes=self._room.max_bytes,
            unrecorded=self._unrecorded,
        )

    def __len__(self) -> int:
        return len(self._shelf.slots)

    # For Recorder.

    def outgrown(self, recorder: Recorder) -> None:
        """A response on its way in is too large: what it replaces goes all the same."""
        self._unrecorded += 1
        self._forget(recorder.found)

    def keep(self, recorder: Recorder, body: bytes) -> bool:
        """Store what a recorder has collected."""
        found = recorder.found
        if self._outdated(found.key, recorder.asked_at):
            return False
        return self._store(
            found.key, found.request, recorder.status, recorder.headers, body, recorder.terms, self._clock()
        )

    # Look-up.

    def _open(self, key: bytes, packed: Packed, headers: Headers, now: float) -> Stored | None:
        """The response that stands under ``key``, or the variant for these headers; None when there is none in time."""
        selecting = entry.marker(packed)
        if selecting is not None:
            names, generation, _ = selecting
            key = _variant_key(key, names, generation, headers)
            found = self._get(key)
            if found is None:
                return None
            packed = found
        stored = entry.unpack(key, packed)
        if stored.until <= now:
            self._shelf.expire(key)
            return None
        return stored

    def _answer(self, stored: Stored, headers: Headers, method: bytes, age: float, told: bytes, kind: str) -> Answer:
        stored.headers.append((b"age", b"%d" % age))
        stored.headers.append((b"cache-status", told))
        response = validation.answer(stored.response, headers, method)
        if response.status != stored.status:
            self._not_modified += response.status == 304
            self._partial += response.status == 206
        return Answer(response, kind)

    def _stale(
        self, stored: Stored, method: bytes, key: bytes, headers: Headers, policy: Policy, now: float, demand: Demand
    ) -> Found:
        age = now - stored.base
        over_s = age - stored.lifetime
        if not stored.flags & (STRICT | VALIDATE) and demand.accepts_stale(over_s):
            self._stale_hits += 1
            return self._answer(stored, headers, method, age, self._hit % -over_s, "stale")
        reason = b"stale" if over_s >= 0 or stored.flags & VALIDATE else b"request"
        found = Stale(key, method, headers, policy, now, reason, stored, demand)
        if demand.only_if_cached and not found.while_revalidating:
            return self._refuse()
        self._validations += 1
        return found

    def _absent(
        self, method: bytes, key: bytes, headers: Headers, policy: Policy, now: float, reason: bytes, demand: Demand
    ) -> Found:
        if demand.only_if_cached:
            return self._refuse()
        self._misses += 1
        return Miss(key, method, headers, policy, now, reason, True)

    def _bypass(self, method: bytes, key: bytes, headers: Headers, policy: Policy, now: float, demand: Demand) -> Found:
        self._bypassed += 1
        known = method == b"GET" or method == b"HEAD"
        reason = b"request" if known else b"method"
        storable = not demand.no_store and (method == b"POST" or (known and not demand.elsewhere))
        return Miss(key, method, headers, policy, now, reason, storable)

    def _refuse(self) -> Answer:
        """RFC 9111 §5.2.1.7: the request wants no answer from the origin."""
        self._refused += 1
        headers = [(b"content-length", b"0"), (b"cache-status", self._label + b"; detail=only-if-cached")]
        return Answer(Response(504, headers, b""), "refused")

    # Storing.

    def _may_record(self, found: Miss, headers: Headers) -> bool:
        if found.method == b"POST":  # RFC 9110 §9.3.3: for a later GET, when it says that it is what a GET would get
            location = field(headers, b"content-location")
            return found.storable and location is not None and _resolved(found.key, location) == found.key
        return found.storable and found.method == b"GET" and not self._outdated(found.key, found.asked_at)

    def _outdated(self, key: bytes, asked_at: float) -> bool:
        """Whether the URL was invalidated after the request for it: its response may be from before."""
        return asked_at <= max(self._invalidated_before, self._invalidated_at.get(key, -1.0))

    def _store(
        self, key: bytes, request: Headers, status: int, headers: Headers, body: bytes, terms: Terms, now: float
    ) -> bool:
        kept = entry.kept(status, headers, len(body), terms.omitted, self._wall())
        packed = entry.pack(status, kept, terms, now)
        if packed is None:
            return False
        stay_s = max(terms.useful_s, (terms.lifetime - terms.age) + self._keep_stale_s * terms.has_validator)
        until = now + max(0.0, stay_s)
        if terms.vary:
            key = self._marked(key, terms.vary, request, until, now)
        return self._shelf.put(key, until, packed, body, now)

    def _marked(self, key: bytes, names: tuple[bytes, ...], request: Headers, until: float, now: float) -> bytes:
        """Make sure that the URL's entry lists the selecting fields; return the key of the request's variant."""
        packed = self._get(key)
        known = None if packed is None else entry.marker(packed)
        if known is None or known[0] != names or known[2] <= now:
            self._generation += 1
            generation = b"%d" % self._generation
        else:
            generation, until = known[1], max(until, known[2])
        head, body = entry.pack_marker(names, generation)
        self._shelf.put(key, until, head, body, now)
        return _variant_key(key, names, generation, request)

    def _forget(self, found: Miss) -> None:
        """Drop what answered requests like this one."""
        if isinstance(found, Stale):
            self._shelf.delete(found.stored.key)

    def _update_by_head(self, found: Miss, status: int, headers: Headers, now: float) -> None:
        """A response to HEAD tells what GET would get (RFC 9111 §4.3.5): renew what is here, or drop it."""
        if not isinstance(found, Stale) or status != 200 or found.stored.status != 200:
            return
        stored = found.stored
        for name in (b"etag", b"last-modified", b"content-length"):
            told = field(headers, name)
            if told is not None and told != field(stored.headers, name):
                self._shelf.delete(stored.key)
                return
        merged = _updated(stored.headers, headers)
        terms = _terms(found, 200, merged, self._wall(), now)
        if terms is not None and not self._outdated(found.key, found.asked_at):
            self._store(found.key, found.request, 200, merged, stored.body, terms, now)


def _terms(found: Miss, status: int, headers: Headers, wall: float, now: float) -> Terms | None:
    return freshness.terms(
        status,
        headers,
        found.request,
        now=wall,
        delay_s=now - found.asked_at,
        policy=found.policy,
        explicit=found.method == b"POST",
    )


def _variant_key(key: bytes, names: tuple[bytes, ...], generation: bytes, request: Headers) -> bytes:
    return b"%b\n%b\n%b" % (key, generation, vary.variant(names, request))


def _copy(stored: Stored) -> Stored:
    return stored._replace(headers=list(stored.headers))


def _updated(stored: Headers, fresh: Headers) -> Headers:
    """Stored fields, those that a 304 carries replaced (RFC 9111 §3.2)."""
    omitted = _NOT_UPDATED | directive.names(field(fresh, b"connection"))
    news = [item for item in fresh if item[0] not in omitted]
    names = {name for name, _ in news} | {b"date"}  # without a date it is from now (RFC 9110 §6.6.1)
    age = [item for item in fresh if item[0] == b"age"]
    return [*(item for item in stored if item[0] not in names), *news, *age]


def _resolved(key: bytes, location: bytes) -> bytes | None:
    """The key of a URL reference seen from ``key``; None when it is another origin's, or no URL."""
    namespace, _, url = key.partition(b" ")
    try:
        target = urlsplit(urljoin(url.decode("latin-1"), location.decode("latin-1")))
    except ValueError:
        return None
    scheme, authority, path, query, _ = (part.encode("latin-1", "replace") for part in target)
    if not key.startswith(cache_key(scheme, authority, b"/", namespace)):
        return None
    return cache_key(scheme, authority, (path or b"/") + (b"?" + query if query else b""), namespace)
