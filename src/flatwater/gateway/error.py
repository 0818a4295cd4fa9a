"""What the gateway refuses and what upstreams do wrong: one class per reason, so that nothing is told by text alone.

``code`` is the reason that the client reads in ``x-flatwater-reason``; ``status`` the answer that goes with it
(RFC 9110, section 15.6). ``upstream`` says whether the endpoint is to blame (passive health counts those), ``unsent``
whether the upstream cannot have acted on the request, so that sending it elsewhere is safe whatever the method.
"""

from __future__ import annotations

from typing import Any, ClassVar

from flatwater.errors import FlatwaterError


class GatewayError(FlatwaterError, code="gateway", status=502):
    """The gateway could not answer."""

    upstream: ClassVar[bool] = False
    unsent: ClassVar[bool] = False

    def __init_subclass__(cls, *, upstream: bool | None = None, unsent: bool = False, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        cls.upstream = cls.upstream if upstream is None else upstream
        cls.unsent = cls.unsent or unsent


class UpstreamError(GatewayError, code="upstream", upstream=True):
    """The upstream failed."""


class ConnectError(UpstreamError, code="connect_failed", unsent=True):
    """The upstream cannot be reached."""


class ConnectTimeoutError(UpstreamError, code="connect_timeout", status=504, unsent=True):
    """The upstream did not accept the connection in time."""


class TlsError(UpstreamError, code="tls_failed", unsent=True):
    """The upstream's identity could not be verified."""


class FirstByteTimeoutError(UpstreamError, code="first_byte_timeout", status=504):
    """The upstream did not begin its answer in time."""


class IdleTimeoutError(UpstreamError, code="idle_timeout", status=504):
    """Nothing moved between client and upstream for too long."""


class TotalTimeoutError(UpstreamError, code="total_timeout", status=504):
    """The exchange took longer than allowed."""


class ResponseError(UpstreamError, code="bad_response"):
    """The upstream's answer is not HTTP."""


class ResponseSizeError(ResponseError, code="response_head_too_large"):
    """The head of the upstream's answer is too large."""


class TruncatedError(UpstreamError, code="truncated"):
    """The upstream's answer ended too early."""


class ResetError(UpstreamError, code="reset"):
    """The upstream closed the connection without an answer."""


class StaleError(ResetError, code="stale_connection", upstream=False):
    """The upstream closed an idle connection just when it was used again."""


class PendingFullError(GatewayError, code="pending_full", status=503, unsent=True):
    """All connections to the upstream are busy, and too many requests wait for one."""


class PendingTimeoutError(GatewayError, code="pending_timeout", status=503, unsent=True):
    """No connection to the upstream came free in time."""


class EndpointError(GatewayError, code="no_endpoint", status=503, unsent=True):
    """No endpoint of the service is available."""


class BreakerError(GatewayError, code="breaker_open", status=503, unsent=True):
    """The circuit breaker of the service is open."""


class RateError(GatewayError, code="rate_limited", status=429):
    """Too many requests in this time."""


class OverloadError(GatewayError, code="overloaded", status=503):
    """The gateway is short of memory or time."""


class DrainError(GatewayError, code="draining", status=503):
    """The gateway is leaving."""


class RefusedError(GatewayError, code="bad_request", status=400):
    """The request is malformed."""


class TargetError(RefusedError, code="bad_target"):
    """The request target is not acceptable."""


class TargetSizeError(RefusedError, code="target_too_long", status=414):
    """The request target is too long."""


class HeadSizeError(RefusedError, code="head_too_large", status=431):
    """The head of the request is too large."""


class BodySizeError(RefusedError, code="body_too_large", status=413):
    """The body of the request is too large."""


class HostError(RefusedError, code="bad_host"):
    """The request names no host, or more than one."""


class FramingError(RefusedError, code="bad_framing"):
    """The length of the request's body cannot be told for sure."""


class CodingError(RefusedError, code="unknown_coding", status=501):
    """The request has a transfer coding other than chunked."""


class VersionError(RefusedError, code="bad_version", status=505):
    """The request has an HTTP version other than 1.0 and 1.1."""


class ExpectationError(RefusedError, code="bad_expectation", status=417):
    """The request expects something that is not known."""


class MethodError(RefusedError, code="bad_method", status=501):
    """The method cannot be forwarded."""


class RouteError(RefusedError, code="no_service", status=404):
    """No service has this host and path."""


class LoopError(RefusedError, code="loop", status=508):
    """The request has been through this gateway too often."""


class UpgradeError(RefusedError, code="no_upgrade", status=501):
    """The connection cannot be upgraded here."""
