"""What a request asks of a cache: Cache-Control and Pragma of requests (RFC 9111 §5.2.1, §5.4)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from flatwater.gateway import directive
from flatwater.gateway.directive import field

DEMANDING = frozenset(
    (
        b"cache-control pragma range if-none-match if-modified-since if-match if-unmodified-since if-range"
        b" content-length transfer-encoding authorization"
    ).split()
)
"""Fields that make a request more than a plain look-up."""

_ELSEWHERE = frozenset((b"if-match", b"if-unmodified-since", b"transfer-encoding"))


class Demand(NamedTuple):
    """Seconds; None where the request says nothing. ``elsewhere``: only the origin can answer this request."""

    elsewhere: bool = False
    no_store: bool = False
    no_cache: bool = False
    only_if_cached: bool = False
    max_age: int | None = None
    min_fresh: int | None = None
    max_stale: int | None = None
    stale_if_error: int | None = None

    def accepts(self, age: float, lifetime: int) -> bool:
        """Whether a fresh response of this age is good enough."""
        return (
            not self.no_cache
            and (self.max_age is None or age <= self.max_age)
            and (self.min_fresh is None or lifetime - age >= self.min_fresh)
        )

    def accepts_stale(self, over_s: float) -> bool:
        """Whether a response will do that has not been fresh for ``over_s``."""
        return self.max_stale is not None and not self.insists and over_s <= self.max_stale

    @property
    def insists(self) -> bool:
        """Whether it wants to be sure that the response is new."""
        return self.no_cache or self.max_age is not None or self.min_fresh is not None


NOTHING = Demand()


def none(headers: Sequence[tuple[bytes, bytes]]) -> bool:
    """Whether a request with these fields is a plain look-up."""
    return DEMANDING.isdisjoint([name for name, _ in headers])


def demand(headers: Sequence[tuple[bytes, bytes]], *, obey: bool = True) -> Demand:
    """What the fields of a request demand. Without ``obey`` its Cache-Control and Pragma count for nothing."""
    names = {name for name, _ in headers}
    if names.isdisjoint(DEMANDING):
        return NOTHING
    elsewhere = not names.isdisjoint(_ELSEWHERE) or field(headers, b"content-length") not in (None, b"0")
    if not obey or names.isdisjoint((b"cache-control", b"pragma")):
        return Demand(elsewhere=True) if elsewhere else NOTHING
    if b"cache-control" not in names:
        pragma = directive.parse(field(headers, b"pragma"))
        return Demand(elsewhere=elsewhere, no_cache=b"no-cache" in pragma)
    control = directive.parse(field(headers, b"cache-control"))
    if not control:
        return Demand(elsewhere=True) if elsewhere else NOTHING
    return Demand(
        elsewhere=elsewhere,
        no_store=b"no-store" in control,
        no_cache=b"no-cache" in control,
        only_if_cached=b"only-if-cached" in control,
        max_age=directive.seconds(control, b"max-age"),
        min_fresh=directive.seconds(control, b"min-fresh"),
        max_stale=_max_stale(control),
        stale_if_error=directive.seconds(control, b"stale-if-error"),
    )


def _max_stale(control: directive.Directives) -> int | None:
    """Without an argument any staleness will do (RFC 9111 §5.2.1.2)."""
    if b"max-stale" in control and control[b"max-stale"] is None:
        return directive.MAX_SECONDS
    return directive.seconds(control, b"max-stale")
