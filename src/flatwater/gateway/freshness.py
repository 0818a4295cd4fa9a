"""What a cache may do with a response: store it, for how long it is fresh, when it may be served stale.

Pure calculations of RFC 9111 §3, §4.2 and §5.2.2 for a shared cache, RFC 5861 (stale-while-revalidate, stale-if-error)
and RFC 9213 (targeted fields).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from flatwater.gateway import directive, moment, vary
from flatwater.gateway.directive import Directives, Fields, Headers

HEURISTIC = frozenset({200, 203, 204, 300, 301, 308, 404, 405, 410, 414, 501})
"""Statuses that may be stored without explicit freshness (RFC 9110 §15.1). 206 is not stored at all."""

UNDERSTOOD = frozenset(range(200, 209)) | set(range(300, 309)) | set(range(400, 432)) | {451} | set(range(500, 512))
"""Statuses whose meaning for caches is known here (for ``must-understand``)."""

NEVER_STORED = frozenset({206, 304})

HOP_BY_HOP = frozenset(
    (
        b"connection keep-alive proxy-connection proxy-authenticate proxy-authentication-info proxy-authorization"
        b" te trailer transfer-encoding upgrade"
    ).split()
)
"""Fields that are about one connection or one proxy; never stored (RFC 9111 §3.1)."""


_NEVER_KEPT = HOP_BY_HOP | {b"age"}


@dataclass(frozen=True, slots=True)
class Policy:
    """Rules of a route. Times in seconds.

    ``set_cookie``: a response with Set-Cookie is stored ``"always"``, only with ``"explicit"`` freshness, or
    ``"never"``. ``max_heuristic_s`` bounds freshness guessed from Last-Modified (0: never guess).
    ``max_stale_disconnected_s``: how long after its freshness a response may answer while the origin cannot be reached
    (RFC 9111 §4.2.4), unless it forbids that. ``default_fresh_s``: freshness of responses that say nothing about it
    and have a status of :data:`HEURISTIC`. ``obey_client``: whether Cache-Control and Pragma of requests count.
    ``targets``: targeted fields obeyed in place of Cache-Control and Expires, the first valid one counts.
    """

    set_cookie: str = "explicit"
    heuristic_share: float = 0.1
    max_heuristic_s: float = 86_400.0
    default_fresh_s: float = 0.0
    max_fresh_s: float = 31_536_000.0
    max_stale_disconnected_s: float = 300.0
    obey_client: bool = True
    targets: tuple[bytes, ...] = (b"cdn-cache-control",)


DEFAULT = Policy()


class Terms(NamedTuple):
    """The terms on which a response is stored. Seconds, from the moment it was received.

    ``age`` it had on arrival, ``lifetime`` of its freshness (counted from age zero). ``validate``: never used without
    validation. ``strict``: never used stale. ``stale_*``: how long past ``lifetime`` it may serve meanwhile.
    ``vary``: names of selecting fields. ``omitted``: fields that are not stored.
    """

    age: float
    lifetime: int
    validate: bool
    strict: bool
    stale_while_revalidate: int
    stale_if_error: int
    stale_disconnected: int
    vary: tuple[bytes, ...]
    omitted: frozenset[bytes]
    has_validator: bool

    @property
    def useful_s(self) -> float:
        """How long from now it can serve without asking the origin."""
        stale = 0 if self.strict else max(self.stale_while_revalidate, self.stale_if_error, self.stale_disconnected)
        return max(0.0, self.lifetime + stale - self.age)


def terms(
    status: int,
    headers: Headers,
    request: Headers,
    *,
    now: float,
    delay_s: float = 0.0,
    policy: Policy = DEFAULT,
    explicit: bool = False,
) -> Terms | None:
    """The terms for the response to a GET; None when a shared cache must not store it, or had no use for it.

    ``now`` is the wall clock when it was received, ``delay_s`` how long after the request. ``explicit``: demand
    explicit freshness, as for responses to POST.
    """
    fields = directive.joined(headers)
    control, targeted = controls(fields, policy)
    if not _storable(status, control, request):
        return None
    selecting = vary.fields(fields.get(b"vary"))
    if selecting is None:
        return None
    stated = _stated(control, fields, targeted, now)
    if stated is None and (explicit or not _guessable(status, control)):
        return None
    if b"set-cookie" in fields and not _cookie_allowed(policy, stated):
        return None
    lifetime = stated if stated is not None else _guessed(fields, policy, now)
    validate = control.get(b"no-cache", b"") is None
    found = Terms(
        _age(fields, now, delay_s),
        int(min(lifetime, policy.max_fresh_s)),
        validate,
        validate or b"must-revalidate" in control or b"proxy-revalidate" in control or b"s-maxage" in control,
        directive.seconds(control, b"stale-while-revalidate") or 0,
        directive.seconds(control, b"stale-if-error") or 0,
        int(policy.max_stale_disconnected_s),
        selecting,
        _omitted(fields, control),
        b"etag" in fields or b"last-modified" in fields,
    )
    return found if found.has_validator or _useful(found) else None


def _useful(found: Terms) -> bool:
    """Whether it can ever answer without validation, other than in an emergency."""
    stale = 0 if found.strict else max(found.stale_while_revalidate, found.stale_if_error)
    return not found.validate and found.lifetime + stale > found.age


def controls(fields: Fields, policy: Policy) -> tuple[Directives, bool]:
    """The directives that count, and whether they come from a targeted field (then Expires counts for nothing)."""
    for name in policy.targets:
        if name in fields and (found := directive.parse_targeted(fields[name])) is not None:
            return found, True
    return directive.parse(fields.get(b"cache-control")), False


def initial_age(headers: Headers, now: float, delay_s: float) -> float:
    """The age of a response on arrival (RFC 9111 §4.2.3: corrected_initial_age)."""
    return _age(directive.joined(headers), now, delay_s)


def _age(fields: Fields, now: float, delay_s: float) -> float:
    told = fields.get(b"age")  # of several values the first counts, and rubbish is zero
    age = 0 if told is None else directive.number(told.split(b",", 1)[0].strip(b" \t")) or 0
    at = moment.parse(fields[b"date"]) if b"date" in fields else None
    return max(now - at if at is not None else 0.0, age + delay_s)


def _storable(status: int, control: Directives, request: Headers) -> bool:
    if status < 200 or status in NEVER_STORED or control.get(b"private", b"") is None:
        return False
    if b"must-understand" in control:
        if status not in UNDERSTOOD:
            return False
    elif b"no-store" in control:
        return False
    for name, _ in request:
        if name == b"authorization":  # RFC 9111 §3.5
            return b"public" in control or b"s-maxage" in control or b"must-revalidate" in control
    return True


def _stated(control: Directives, fields: Fields, targeted: bool, now: float) -> int | None:
    """Explicit freshness (RFC 9111 §4.2.1), None without."""
    for name in (b"s-maxage", b"max-age"):
        if name in control:
            return directive.seconds(control, name)
    if targeted or b"expires" not in fields:
        return None
    at = moment.parse(fields[b"expires"])
    if at is None:  # not a date, or several: in the past
        return 0
    date = moment.parse(fields[b"date"]) if b"date" in fields else None
    return max(0, int(at - (now if date is None else date)))


def _guessable(status: int, control: Directives) -> bool:
    return status in HEURISTIC or b"public" in control


def _guessed(fields: Fields, policy: Policy, now: float) -> float:
    """Heuristic freshness (RFC 9111 §4.2.2): a share of the time for which it has not changed."""
    changed = moment.parse(fields.get(b"last-modified", b""))
    if changed is None:
        return policy.default_fresh_s
    date = moment.parse(fields.get(b"date", b""))
    return min(max(0.0, ((now if date is None else date) - changed) * policy.heuristic_share), policy.max_heuristic_s)


def _cookie_allowed(policy: Policy, stated: int | None) -> bool:
    return policy.set_cookie == "always" or (policy.set_cookie == "explicit" and stated is not None)


def _omitted(fields: Fields, control: Directives) -> frozenset[bytes]:
    omitted = _NEVER_KEPT
    if b"connection" in fields:
        omitted |= directive.names(fields[b"connection"])
    for name in (b"no-cache", b"private"):
        if (listed := control.get(name)) is not None:
            omitted |= directive.names(listed.strip(b'()"').replace(b'" "', b","))
    return omitted
