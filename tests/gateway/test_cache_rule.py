"""The pure parts of the HTTP cache: directives, dates, freshness, Vary, conditions and ranges."""

from __future__ import annotations

import time
from email.utils import formatdate

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flatwater.gateway import directive, freshness, moment, validation, vary
from flatwater.gateway.demand import demand
from flatwater.gateway.freshness import Policy, Terms
from flatwater.gateway.validation import Response

NOW = 1_800_000_000.0
DATE = (b"date", moment.write(NOW))


def terms(
    *headers: tuple[bytes, bytes], status: int = 200, request: list[tuple[bytes, bytes]] | None = None
) -> Terms | None:
    return freshness.terms(status, list(headers), request or [], now=NOW)


def control(value: str, *more: tuple[bytes, bytes], **options: object) -> Terms | None:
    return terms((b"cache-control", value.encode()), DATE, *more, **options)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("max-age=60", 60),
        ("MaX-aGe=60", 60),
        ('max-age="60"', 60),
        ("max-age=0060", 60),
        ("max-age=99999999999", 2**31),
        ("foo, max-age=60, bar=baz", 60),
        ("max-age=60, max-age=60", 60),
        ("max-age=60, max-age=61", 0),
        ('extension="max-age=60", max-age=1', 1),
        ('max-age=1, extension="max-age=60"', 1),
        ('extension="a\\", max-age=60"', None),
        ('extension="a\\", max-age=60', 0),  # the quote stays open: nothing is fresh
        ("max-age='60'", 0),
        ("max-age=60.0", 0),
        ("max-age=-60", 0),
        ("max-age =60", 0),
        ("max-age= 60", 0),
        ("max-age", 0),
        ("no-store", None),
        ("", None),
    ],
)
def test_max_age_is_read_strictly(value: str, seconds: int | None) -> None:
    assert directive.seconds(directive.parse(value.encode()), b"max-age") == seconds


def test_an_open_quote_hides_no_prohibition() -> None:
    assert b"no-store" in directive.parse(b'extension="x, no-store')
    assert b"private" in directive.parse(b'max-age=60, extension="x\\", private')


def test_field_lists_of_two_directives_are_joined_and_no_list_means_all() -> None:
    assert directive.names(directive.parse(b'no-cache="A, b", no-cache=c')[b"no-cache"]) == {b"a", b"b", b"c"}
    assert directive.parse(b'private="a", private')[b"private"] is None


@given(st.binary(max_size=400))
def test_any_bytes_are_parsed(value: bytes) -> None:
    found = directive.parse(value)
    assert all(name == name.lower() and b"," not in name for name in found)
    directive.parse_targeted(value)


def test_parsing_takes_time_in_proportion() -> None:
    """A client chooses its Cache-Control: nothing in it may take quadratic time."""
    began = time.process_time()
    signs = (b'"\\', b'"', b'a="', b"a=(", b'a;b="', b',"', b" \t", b";q=1 ", b"a; ")
    for value in (b"a" + sign * 20_000 + b"b" for sign in signs):
        directive.parse(value)
        directive.parse_targeted(value)
        vary.variant((b"accept", b"foo"), [(b"accept", value), (b"foo", value)])
        validation.not_modified([(b"etag", b'"x"')], [(b"if-none-match", value)])
    assert time.process_time() - began < 5


@pytest.mark.parametrize(
    ("value", "found"),
    [
        ("max-age=60, foobar", {b"max-age": b"60", b"foobar": None}),
        ('private=("a" "b");x, no-store=?1', {b"private": b'("a" "b")', b"no-store": None}),
        ("no-store=?0, max-age=1", {b"max-age": b"1"}),
        ('max-age="60"', {}),
        ("max-age=60, &&&", None),
        ("max-age =60", None),
        ("Max-Age=60", None),
        ("max-age=60,", None),
        ("", None),
    ],
)
def test_targeted_fields_are_structured(value: str, found: dict[bytes, bytes | None] | None) -> None:
    assert directive.parse_targeted(value.encode()) == found


@given(st.integers(0, 4_000_000_000))
def test_dates_are_read_as_they_are_written(seconds: int) -> None:
    assert moment.parse(moment.write(seconds)) == seconds
    assert moment.write(seconds).decode() == formatdate(seconds, usegmt=True)


@pytest.mark.parametrize(
    "text", ["Sun, 06 Nov 1994 08:49:37 GMT", "Sunday, 06-Nov-94 08:49:37 GMT", "Sun Nov  6 08:49:37 1994"]
)
def test_the_three_forms_of_a_date(text: str) -> None:
    assert moment.parse(text.encode()) == 784_111_777


@pytest.mark.parametrize(
    "text",
    [
        *("0", "-1", "", "Thu, 18 Aug 2050 02:01:18 UTC", "Thu 18 Aug 2050 02:01:18 GMT"),
        *("Thu, 18  Aug  2050 02:01:18 GMT", "Thu, 18-Aug-2050 02:01:18 GMT", "Thu, 18 Aug 2050 2:01:18 GMT"),
        "Thu, 32 Aug 2050 02:01:18 GMT",
    ],
)
def test_what_is_no_date(text: str) -> None:
    assert moment.parse(text.encode()) is None


def test_a_shared_cache_prefers_s_maxage_and_then_max_age() -> None:
    late = (b"expires", moment.write(NOW + 5000))
    assert control("max-age=1, s-maxage=60", late).lifetime == 60  # type: ignore[union-attr]
    assert control("max-age=7", late).lifetime == 7  # type: ignore[union-attr]
    assert terms(DATE, late).lifetime == 5000  # type: ignore[union-attr]


def test_expires_counts_from_date_and_is_past_when_invalid() -> None:
    tag = (b"etag", b'"x"')
    slow = (b"date", moment.write(NOW - 10))
    assert terms(slow, (b"expires", moment.write(NOW + 10))).lifetime == 20  # type: ignore[union-attr]
    assert terms(DATE, tag, (b"expires", b"0")).lifetime == 0  # type: ignore[union-attr]
    two = [(b"expires", moment.write(NOW + 60)), (b"expires", moment.write(NOW + 61))]
    assert terms(DATE, tag, *two).lifetime == 0  # type: ignore[union-attr]
    assert terms((b"date", b"foo"), (b"expires", moment.write(NOW + 10))).lifetime == 10  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("age", "seconds"),
    [("30", 30), ("30, 0", 30), ("0, 30", 0), ("abc", 0), ("-30", 0), ("30.0", 0), ("9999999999", 2**31)],
)
def test_age_on_arrival(age: str, seconds: int) -> None:
    assert freshness.initial_age([(b"age", age.encode()), DATE], NOW, 0.0) == seconds


def test_age_includes_the_time_on_the_way_or_by_the_date() -> None:
    """RFC 9111 §4.2.3: the larger of apparent age and corrected age."""
    assert freshness.initial_age([(b"age", b"10"), DATE], NOW, 2.5) == 12.5
    assert freshness.initial_age([(b"date", moment.write(NOW - 100)), (b"age", b"10")], NOW, 2.5) == 100
    assert freshness.initial_age([(b"date", moment.write(NOW + 100))], NOW, 0.0) == 0


def test_heuristic_freshness_is_a_tenth_of_the_age_of_the_change() -> None:
    changed = (b"last-modified", moment.write(NOW - 1000))
    assert terms(DATE, changed).lifetime == 100  # type: ignore[union-attr]
    assert terms(DATE, changed, status=404).lifetime == 100  # type: ignore[union-attr]
    assert terms(DATE, changed, status=403) is None
    assert control("public", changed, status=403).lifetime == 100  # type: ignore[union-attr]
    never = freshness.terms(200, [DATE, changed], [], now=NOW, policy=Policy(max_heuristic_s=0))
    assert never is not None
    assert never.lifetime == 0  # it has a validator, so it may be asked about


@pytest.mark.parametrize(
    "value",
    [
        *("no-store", "private, max-age=60", "max-age=60, no-store", "max-age=0", "max-age=60, no-cache"),
        "max-age=60, no-store, must-understand, x=1",
    ],
)
def test_not_stored(value: str) -> None:
    status = 599 if "must-understand" in value else 200
    assert control(value, status=status) is None


def test_must_understand_overrides_no_store_where_the_status_is_known() -> None:
    assert control("max-age=60, no-store, must-understand") is not None


@pytest.mark.parametrize("status", [100, 103, 206, 304])
def test_statuses_that_are_never_stored(status: int) -> None:
    assert control("max-age=60", status=status) is None


def test_responses_to_authorized_requests_need_permission() -> None:
    request = [(b"authorization", b"Basic x")]
    assert control("max-age=60", request=request) is None
    for value in ("max-age=60, public", "s-maxage=60", "max-age=60, must-revalidate"):
        assert control(value, request=request) is not None


def test_listed_fields_are_left_out() -> None:
    found = control('max-age=60, no-cache="A", private="b"', (b"connection", b"c, close"))
    assert found is not None
    assert {b"a", b"b", b"c", b"connection", b"proxy-authenticate"} <= found.omitted


def test_cookies_by_policy() -> None:
    cookie = (b"set-cookie", b"a=b")
    changed = (b"last-modified", moment.write(NOW - 1000))
    fresh = (b"cache-control", b"max-age=60")

    def stored(policy: str, *headers: tuple[bytes, bytes]) -> bool:
        return freshness.terms(200, [DATE, *headers], [], now=NOW, policy=Policy(set_cookie=policy)) is not None

    assert stored("explicit", cookie, fresh)
    assert not stored("explicit", cookie, changed)
    assert not stored("never", cookie, fresh)
    assert stored("always", cookie, changed)


def test_a_targeted_field_counts_in_place_of_the_others() -> None:
    cdn = (b"cdn-cache-control", b"max-age=60")
    assert control("no-store", cdn, (b"expires", b"0")).lifetime == 60  # type: ignore[union-attr]
    assert control("max-age=60", (b"cdn-cache-control", b"no-store")) is None
    assert control("no-store", (b"cdn-cache-control", b"max-age=60, &&&")) is None  # invalid: as if it were absent


def test_vary() -> None:
    assert vary.fields(None) == ()
    assert vary.fields(b"Foo, , bar,Foo") == (b"bar", b"foo")
    for value in (b"*", b", *", b"Foo, *", b"*, *"):
        assert vary.fields(value) is None


def variant(name: str, *lines: str) -> bytes:
    return vary.variant([name.encode()], [(name.encode(), line.encode()) for line in lines])


def test_variants_are_normalised_but_not_confused() -> None:
    assert variant("foo", "1, 2") == variant("foo", "1", "2") == variant("foo", " 1,2 ")
    assert variant("foo") != variant("foo", "")
    assert variant("foo", "A") != variant("foo", "a")
    assert variant("accept-language", "en, de") == variant("accept-language", "De ,  eN")
    assert variant("accept-language", "de, en;q=0.5") == variant("accept-language", "en;q=0.50,de")
    assert variant("accept-language", "de, en;q=0.5") != variant("accept-language", "en, de;q=0.5")
    assert vary.variant([b"a", b"b"], [(b"a", b"1")]) != vary.variant([b"a", b"b"], [(b"b", b"1")])
    assert len(variant("cookie", "x" * 5000)) == 32


def test_what_a_request_demands() -> None:
    def asked(value: bytes, name: bytes = b"cache-control") -> object:
        return demand([(b"host", b"a"), (name, value)])

    assert not demand([(b"host", b"a")]).insists
    assert asked(b"no-cache").no_cache  # type: ignore[attr-defined]
    assert asked(b"no-cache", b"pragma").no_cache  # type: ignore[attr-defined]
    assert not demand([(b"pragma", b"no-cache"), (b"cache-control", b"x")]).no_cache
    assert asked(b"max-stale").accepts_stale(1e6)  # type: ignore[attr-defined]
    assert not asked(b"max-stale=5").accepts_stale(6)  # type: ignore[attr-defined]
    assert asked(b"5", b"content-length").elsewhere  # type: ignore[attr-defined]
    assert asked(b'"x"', b"if-match").elsewhere  # type: ignore[attr-defined]
    assert not demand([(b"cache-control", b"no-cache, no-store")], obey=False).no_cache


BODY = b"0123456789"
STORED = Response(200, [(b"etag", b'"x"'), (b"last-modified", moment.write(NOW)), (b"content-length", b"10")], BODY)


def ranged(value: str, *more: tuple[bytes, bytes]) -> Response:
    return validation.answer(STORED, [(b"range", value.encode()), *more], b"GET")


@pytest.mark.parametrize(
    ("value", "body", "span"),
    [
        ("bytes=0-1", b"01", b"bytes 0-1/10"),
        ("bytes=8-", b"89", b"bytes 8-9/10"),
        ("bytes=-3", b"789", b"bytes 7-9/10"),
        ("bytes=-30", BODY, b"bytes 0-9/10"),
        ("bytes=5-500", b"56789", b"bytes 5-9/10"),
        ("Bytes=9-9", b"9", b"bytes 9-9/10"),
    ],
)
def test_ranges(value: str, body: bytes, span: bytes) -> None:
    found = ranged(value)
    assert (found.status, found.body) == (206, body)
    headers = dict(found.headers)
    assert headers[b"content-range"] == span
    assert headers[b"content-length"] == b"%d" % len(body)


@pytest.mark.parametrize("value", ["bytes=10-", "bytes=10-20", "bytes=-0"])
def test_ranges_outside(value: str) -> None:
    found = ranged(value)
    assert (found.status, found.body) == (416, b"")
    assert dict(found.headers)[b"content-range"] == b"bytes */10"


@pytest.mark.parametrize("value", ["bytes=-", "bytes=5-3", "bytes=a-b", "bytes=0-1,3-4", "lines=0-1", "bytes 0-1"])
def test_ranges_that_are_ignored(value: str) -> None:
    assert ranged(value) == STORED


def test_a_range_under_a_condition() -> None:
    assert ranged("bytes=0-1", (b"if-range", b'"x"')).status == 206
    assert ranged("bytes=0-1", (b"if-range", moment.write(NOW))).status == 206
    for other in (b'"y"', b'W/"x"', moment.write(NOW + 1)):
        assert ranged("bytes=0-1", (b"if-range", other)).status == 200


@pytest.mark.parametrize(
    ("name", "value", "status"),
    [
        ("if-none-match", '"x"', 304),
        ("if-none-match", 'W/"x"', 304),
        ("if-none-match", '"a", "x", "b"', 304),
        ("if-none-match", "*", 304),
        ("if-none-match", '"X"', 200),
        ("if-none-match", '"a,x"', 200),
        ("if-modified-since", moment.write(NOW).decode(), 304),
        ("if-modified-since", moment.write(NOW + 1).decode(), 304),
        ("if-modified-since", moment.write(NOW - 1).decode(), 200),
        ("if-modified-since", "yesterday", 200),
    ],
)
def test_conditions(name: str, value: str, status: int) -> None:
    found = validation.answer(STORED, [(name.encode(), value.encode())], b"GET")
    assert found.status == status
    assert dict(found.headers)[b"etag"] == b'"x"'
    assert found.body == (BODY if status == 200 else b"")


def test_an_entity_tag_goes_before_a_date() -> None:
    old = (b"if-modified-since", moment.write(NOW - 1))
    assert validation.not_modified(STORED.headers, [(b"if-none-match", b'"x"'), old])
    new = (b"if-modified-since", moment.write(NOW))
    assert not validation.not_modified(STORED.headers, [(b"if-none-match", b'"y"'), new])


def test_only_200_is_conditional_and_head_has_no_body() -> None:
    missing = STORED._replace(status=404)
    assert validation.answer(missing, [(b"if-none-match", b'"x"'), (b"range", b"bytes=0-1")], b"GET") == missing
    head = validation.answer(STORED, [(b"range", b"bytes=0-1")], b"HEAD")
    assert (head.status, head.body, dict(head.headers)[b"content-length"]) == (200, b"", b"10")
