"""The HTTP cache through its public interface, with a clock that the tests move."""

from __future__ import annotations

import pytest

from flatwater.bounded import Ledger
from flatwater.errors import SettingError
from flatwater.gateway.cache import Answer, HttpCache, Miss, Policy, Response, Stale, cache_key

Header = tuple[bytes, bytes]
URL = cache_key(b"http", b"example.com", b"/a?b=c")
FRESH = (b"cache-control", b"max-age=60")
TAG = (b"etag", b'"1"')


class Origin:
    """A cache, its clock, and what a proxy does around it."""

    def __init__(self, ledger: Ledger, **bounds: int) -> None:
        self.now = 1000.0
        self.cache = HttpCache(
            ledger=ledger,
            clock=lambda: self.now,
            wall=lambda: 1_800_000_000 + self.now,
            **bounds,  # type: ignore[arg-type]
        )

    def get(self, *headers: Header, key: bytes = URL, method: bytes = b"GET") -> Answer | Stale | Miss:
        return self.cache.lookup(method, key, list(headers))

    def fill(
        self,
        *headers: Header,
        body: bytes = b"hello",
        key: bytes = URL,
        status: int = 200,
        request: tuple[Header, ...] = (),
    ) -> bool:
        found = self.get(*request, key=key)
        assert isinstance(found, Miss)
        return self.finish(found, *headers, body=body, status=status)

    def finish(self, found: Miss, *headers: Header, body: bytes = b"hello", status: int = 200) -> bool:
        recorder = self.cache.record(found, status, list(headers))
        if recorder is None:
            return False
        with recorder:
            for at in range(0, len(body), 3):
                recorder.add(body[at : at + 3])
            return recorder.commit()


@pytest.fixture
def origin(ledger: Ledger) -> Origin:
    return Origin(ledger)


def answered(found: object) -> Response:
    assert isinstance(found, Answer)
    return found.response


def stale(found: object) -> Stale:
    assert isinstance(found, Stale)
    return found


def test_a_hit_carries_age_and_cache_status(origin: Origin) -> None:
    assert origin.fill(FRESH, (b"content-type", b"text/plain"), (b"age", b"5"))
    origin.now += 10
    status, headers, body = answered(origin.get())
    fields = dict(headers)
    assert (status, body) == (200, b"hello")
    assert fields[b"age"] == b"15"
    assert fields[b"cache-status"] == b"flatwater; hit; ttl=45"
    assert fields[b"content-length"] == b"5"
    assert fields[b"content-type"] == b"text/plain"
    assert b"date" in fields


def test_it_is_never_fresh_beyond_its_time(origin: Origin) -> None:
    origin.fill(FRESH, TAG)
    origin.now += 59.9
    assert isinstance(origin.get(), Answer)
    origin.now += 0.1
    assert isinstance(origin.get(), Stale)


def test_time_on_the_way_counts(origin: Origin) -> None:
    found = origin.get()
    assert isinstance(found, Miss)
    origin.now += 50
    assert origin.finish(found, FRESH)
    assert dict(answered(origin.get()).headers)[b"age"] == b"50"


def test_cache_status_says_why_the_origin_was_asked(origin: Origin) -> None:
    found = origin.get()
    assert isinstance(found, Miss)
    assert origin.cache.status(found, 200, True) == b"flatwater; fwd=uri-miss; fwd-status=200; stored"
    posted = origin.get(method=b"POST")
    assert isinstance(posted, Miss)
    assert origin.cache.status(posted, None, False) == b"flatwater; fwd=method"
    origin.fill(FRESH, TAG)
    assert stale(origin.get((b"cache-control", b"no-cache"))).reason == b"request"
    origin.now += 100
    assert stale(origin.get()).reason == b"stale"


def test_an_incomplete_body_is_not_kept(origin: Origin) -> None:
    found = origin.get()
    assert isinstance(found, Miss)
    recorder = origin.cache.record(found, 200, [FRESH, (b"content-length", b"10")])
    assert recorder is not None
    with recorder:
        recorder.add(b"hello")
        assert origin.cache.statistics().recording == 5
        assert not recorder.commit()  # the origin said 10
    other = origin.cache.record(found, 200, [FRESH])
    assert other is not None
    with other:
        other.add(b"hello")  # and then the connection broke
    assert isinstance(origin.get(), Miss)
    assert origin.cache.statistics().recording == 0


def test_revalidation_renews_head_and_freshness(origin: Origin) -> None:
    origin.fill(FRESH, TAG, (b"x-old", b"1"), (b"x-new", b"1"))
    origin.now += 100
    found = stale(origin.get((b"accept", b"x"), (b"if-none-match", b'"0"'), (b"range", b"bytes=0-1")))
    assert found.asked
    assert found.conditional() == [(b"accept", b"x"), (b"if-none-match", b'"1"')]
    renewed = origin.cache.refreshed(
        found, [TAG, (b"x-new", b"2"), (b"content-length", b"99"), (b"connection", b"c"), (b"c", b"1")]
    )
    assert answered(renewed).status == 206  # the range that the client asked for
    fields = dict(answered(origin.get()).headers)
    assert (fields[b"x-old"], fields[b"x-new"], fields[b"content-length"]) == (b"1", b"2", b"5")
    assert b"c" not in fields
    assert fields[b"age"] == b"0"


def test_a_client_with_the_stale_version_gets_304_after_revalidation(origin: Origin) -> None:
    origin.fill(FRESH, TAG)
    origin.now += 100
    found = stale(origin.get((b"if-none-match", b'"1"')))
    assert answered(origin.cache.refreshed(found, [TAG])).status == 304


def test_without_a_validator_the_conditions_of_the_client_go_through(origin: Origin) -> None:
    """The origin's 304 is then about the client's version, not about ours."""
    origin.fill((b"cache-control", b"max-age=60, stale-if-error=600"))
    origin.now += 100
    if isinstance(found := origin.get((b"if-none-match", b'"0"')), Stale):
        assert not found.asked
        assert (b"if-none-match", b'"0"') in found.conditional()


def test_a_304_that_forbids_storing_ends_it(origin: Origin) -> None:
    origin.fill(FRESH, TAG)
    origin.now += 100
    found = stale(origin.get())
    assert answered(origin.cache.refreshed(found, [TAG, (b"cache-control", b"no-store")])).body == b"hello"
    assert isinstance(origin.get(), Miss)
    assert not isinstance(origin.get(), Stale)


def test_a_new_response_replaces_even_when_it_is_not_stored(origin: Origin) -> None:
    origin.fill(FRESH, TAG)
    origin.now += 100
    assert not origin.finish(stale(origin.get()), (b"cache-control", b"no-store"))
    assert type(origin.get()) is Miss


def test_an_error_does_not_replace(origin: Origin) -> None:
    origin.fill(FRESH, TAG)
    origin.now += 100
    assert not origin.finish(stale(origin.get()), status=503)
    assert isinstance(origin.get(), Stale)


def test_stale_while_revalidating(origin: Origin) -> None:
    origin.fill((b"cache-control", b"max-age=60, stale-while-revalidate=30"), TAG)
    origin.now += 80
    found = stale(origin.get((b"if-none-match", b'"0"')))
    assert found.while_revalidating
    assert answered(origin.cache.stale_answer(found)).body == b"hello"
    assert dict(answered(origin.cache.stale_answer(found)).headers)[b"cache-status"] == b"flatwater; hit; ttl=-20"
    assert found.background() == [(b"if-none-match", b'"1"')]
    origin.now += 20
    assert not stale(origin.get()).while_revalidating


def test_stale_if_error_and_when_the_origin_is_gone(origin: Origin) -> None:
    origin.fill((b"cache-control", b"max-age=60, stale-if-error=600"), TAG)
    other = cache_key(b"http", b"example.com", b"/plain")
    origin.fill(FRESH, TAG, key=other)
    origin.now += 100
    assert stale(origin.get()).on_error
    plain = stale(origin.get(key=other))
    assert (plain.on_error, plain.on_disconnect) == (False, True)
    assert stale(origin.get((b"cache-control", b"stale-if-error=600"), key=other)).on_error
    origin.now += 600
    assert not stale(origin.get(key=other)).on_disconnect


@pytest.mark.parametrize("word", [b"must-revalidate", b"proxy-revalidate", b"s-maxage=60", b"no-cache"])
def test_never_stale_where_the_origin_forbids_it(origin: Origin, word: bytes) -> None:
    origin.fill((b"cache-control", b"max-age=60, stale-while-revalidate=600, stale-if-error=600, " + word), TAG)
    origin.now += 100
    for asked in ((), ((b"cache-control", b"max-stale"),)):
        found = stale(origin.get(*asked))
        assert (found.while_revalidating, found.on_error, found.on_disconnect) == (False, False, False)


def test_requests_have_their_say(origin: Origin) -> None:
    origin.fill(FRESH, TAG)
    origin.now += 30
    for value in (b"no-cache", b"max-age=10", b"min-fresh=40"):
        found = stale(origin.get((b"cache-control", value)))
        assert (found.while_revalidating, found.on_error, found.on_disconnect) == (False, False, False)
    for value in (b"max-age=40", b"min-fresh=20", b"only-if-cached"):
        assert isinstance(origin.get((b"cache-control", value)), Answer)
    bypassed = origin.get((b"cache-control", b"no-store"))
    assert isinstance(bypassed, Miss)
    assert not bypassed.storable
    origin.now += 60
    assert answered(origin.get((b"cache-control", b"max-stale=60"))).body == b"hello"
    refused = origin.get((b"cache-control", b"only-if-cached"))
    assert answered(refused).status == 504
    assert origin.cache.statistics().refused == 1


def test_a_policy_may_ignore_requests(origin: Origin) -> None:
    origin.fill(FRESH, TAG)
    headers = [(b"cache-control", b"no-cache, no-store"), (b"pragma", b"no-cache")]
    assert isinstance(origin.cache.lookup(b"GET", URL, headers, Policy(obey_client=False)), Answer)


def test_variants(origin: Origin) -> None:
    varied = (b"vary", b"Accept-Encoding")
    gzip, br = (b"accept-encoding", b"gzip"), (b"accept-encoding", b"br")
    origin.fill(FRESH, varied, body=b"zipped", request=(gzip,))
    found = origin.get(br)
    assert isinstance(found, Miss)
    assert found.reason == b"vary-miss"
    origin.fill(FRESH, varied, body=b"brotli", request=(br,))
    assert answered(origin.get(gzip)).body == b"zipped"
    assert answered(origin.get(br)).body == b"brotli"
    assert isinstance(origin.get(), Miss)


def test_a_change_of_vary_forgets_the_old_variants(origin: Origin) -> None:
    one, two = (b"foo", b"1"), (b"foo", b"2")
    origin.fill(FRESH, (b"vary", b"foo"), body=b"one", request=(one,))
    origin.fill(FRESH, (b"vary", b"foo, bar"), body=b"two", request=(two,))
    assert isinstance(origin.get(one), Miss)
    assert answered(origin.get(two)).body == b"two"


def test_deletion_reaches_all_variants_for_good(origin: Origin) -> None:
    one, two = (b"foo", b"1"), (b"foo", b"2")
    origin.fill(FRESH, (b"vary", b"foo"), request=(one,))
    origin.cache.delete(URL)
    origin.now += 1
    origin.fill(FRESH, (b"vary", b"foo"), request=(two,))
    assert isinstance(origin.get(one), Miss)


@pytest.mark.parametrize("method", [b"POST", b"PUT", b"DELETE", b"PATCH", b"M-SEARCH"])
def test_unsafe_methods_invalidate(origin: Origin, method: bytes) -> None:
    keys = [cache_key(b"http", b"example.com", target) for target in (b"/a?b=c", b"/loc", b"/dir/x", b"/kept")]
    for key in keys:
        origin.fill(FRESH, key=key)
    foreign = cache_key(b"http", b"other.com", b"/loc")
    origin.fill(FRESH, key=foreign)
    found = origin.get(method=method)
    assert isinstance(found, Miss)
    locations = [(b"location", b"http://EXAMPLE.com:80/loc#x"), (b"content-location", b"dir/x")]
    assert origin.cache.invalidate(found, 500, locations) == 0
    assert origin.cache.invalidate(found, 201, locations) == 3
    assert [type(origin.get(key=key)) for key in keys] == [Miss, Miss, Miss, Answer]
    assert origin.cache.invalidate(found, 201, [(b"location", b"http://other.com/loc")]) == 0
    assert isinstance(origin.get(key=foreign), Answer)


def test_what_was_asked_before_an_invalidation_is_not_stored(origin: Origin) -> None:
    """Else the response from before the change would be served after it."""
    early = origin.get()
    assert isinstance(early, Miss)
    recorder = origin.cache.record(early, 200, [FRESH])
    assert recorder is not None
    recorder.add(b"old")
    origin.now += 1
    posted = origin.get(method=b"POST")
    assert isinstance(posted, Miss)
    origin.cache.invalidate(posted, 200, [])
    with recorder:
        assert not recorder.commit()
    assert origin.cache.record(early, 200, [FRESH]) is None
    origin.now += 1
    assert origin.fill(FRESH)


def test_many_invalidations_forget_nothing(origin: Origin) -> None:
    early = origin.get()
    assert isinstance(early, Miss)
    origin.now += 1
    origin.cache.delete(URL)
    for number in range(3000):
        origin.cache.delete(b"%d" % number)
    assert origin.cache.record(early, 200, [FRESH]) is None


def test_head_is_answered_from_get_and_tells_about_it(origin: Origin) -> None:
    origin.fill(FRESH, TAG)
    status, headers, body = answered(origin.get(method=b"HEAD"))
    assert (status, body, dict(headers)[b"content-length"]) == (200, b"", b"5")
    origin.now += 100
    assert origin.cache.record(stale(origin.get(method=b"HEAD")), 200, [FRESH, TAG]) is None
    assert isinstance(origin.get(), Answer)  # renewed
    origin.now += 100
    origin.cache.record(stale(origin.get(method=b"HEAD")), 200, [FRESH, (b"etag", b'"2"')])
    assert type(origin.get()) is Miss  # changed


def test_post_for_a_later_get(origin: Origin) -> None:
    posted = origin.get(method=b"POST")
    assert isinstance(posted, Miss)
    own = (b"content-location", b"/a?b=c")
    assert not origin.finish(posted, FRESH)
    assert not origin.finish(posted, FRESH, (b"content-location", b"/other"))
    assert not origin.finish(posted, own, (b"last-modified", b"Sun, 06 Nov 1994 08:49:37 GMT"))
    origin.cache.invalidate(posted, 200, [own])
    origin.now += 1
    assert origin.finish(posted, FRESH, own)
    assert isinstance(origin.get(), Answer)


def test_oversize_is_not_kept_and_evicts_the_old(ledger: Ledger) -> None:
    origin = Origin(ledger, max_bytes=4000, max_entry_bytes=2000)
    origin.fill(FRESH, TAG)
    origin.now += 100
    assert not origin.finish(stale(origin.get()), FRESH, TAG, body=b"x" * 5000)
    assert type(origin.get()) is Miss
    assert not origin.fill(FRESH, (b"content-length", b"5000"))
    assert len(origin.cache) == 0
    assert origin.cache.statistics().unrecorded == 2


def test_room_for_bodies_on_their_way_in_is_bounded(ledger: Ledger) -> None:
    origin = Origin(ledger, max_recording_bytes=1000)
    recorders = []
    for number in range(3):
        found = origin.get(key=b"%d" % number)
        assert isinstance(found, Miss)
        recorder = origin.cache.record(found, 200, [FRESH])
        assert recorder is not None
        recorder.add(b"x" * 400)
        recorders.append(recorder)
    assert origin.cache.statistics().recording == 800
    assert [recorder.commit() for recorder in recorders] == [True, True, False]
    assert origin.cache.statistics().recording == 0


def test_a_large_body_is_not_copied(origin: Origin) -> None:
    body = bytes(100_000)
    found = origin.get()
    assert isinstance(found, Miss)
    recorder = origin.cache.record(found, 200, [FRESH])
    assert recorder is not None
    recorder.add(body)
    assert recorder.commit()
    assert answered(origin.get()).body is body


def test_answers_do_not_share_their_headers(origin: Origin) -> None:
    origin.fill(FRESH)
    answered(origin.get()).headers.append((b"x", b"y"))
    assert b"x" not in dict(answered(origin.get()).headers)


def test_keys() -> None:
    assert (
        cache_key(b"HTTP", b"Example.COM:80", b"/A")
        == cache_key(b"http", b"example.com", b"/A#f")
        == b" http://example.com/A"
    )
    assert cache_key(b"https", b"a:443", b"/", b"s") == b"s https://a/"
    assert cache_key(b"http", b"a:443", b"/") == b" http://a:443/"


def test_headers_that_are_not_http_are_not_stored(origin: Origin) -> None:
    assert not origin.fill(FRESH, (b"x", b"a\nset-cookie: b"))


def test_it_is_in_the_ledger_with_its_bounds(ledger: Ledger) -> None:
    origin = Origin(ledger, max_entries=10, max_bytes=100_000)
    origin.fill(FRESH)
    [line] = ledger.entries()
    assert (line.kind, line.size, line.bound, line.max_bytes) == ("HTTP cache", 1, 10, 100_000)
    assert line.bytes == origin.cache.held_bytes


@pytest.mark.parametrize("bound", ["max_entries", "max_bytes", "max_entry_bytes", "max_age_s", "max_recording_bytes"])
def test_bounds_must_bound(ledger: Ledger, bound: str) -> None:
    with pytest.raises(SettingError, match=bound):
        Origin(ledger, **{bound: 0})


def test_clear(origin: Origin) -> None:
    found = origin.get()
    assert isinstance(found, Miss)
    origin.fill(FRESH)
    origin.now += 1
    origin.cache.clear()
    assert len(origin.cache) == origin.cache.held_bytes == 0
    assert not origin.finish(found, FRESH)  # asked for before
