"""What the gateway refuses and what upstreams do wrong: one class per reason, so that nothing is told by text alone.

``code`` is the reason that the client reads in ``x-flatwater-reason``; ``status`` the answer that goes with it
(RFC 9110, section 15.6). ``upstream`` says whether the endpoint is to blame (passive health counts those), ``unsent``
whether the upstream cannot have acted on the request, so that sending it elsewhere is safe whatever the method.
"""

from __future__ import annotations

from typing import ClassVar

from flatwater.errors import FlatwaterError


class GatewayError(FlatwaterError):
    """The gateway could not answer."""

    code = "gateway"
    status = 502
    upstream: ClassVar[bool] = False
    unsent: ClassVar[bool] = False


class UpstreamError(GatewayError):
    """The upstream failed."""

    code = "upstream"
    upstream = True


class ConnectError(UpstreamError):
    """The upstream cannot be reached."""

    code = "connect_failed"
    unsent = True


class ConnectTimeoutError(UpstreamError):
    """The upstream did not accept the connection in time."""

    code = "connect_timeout"
    status = 504
    unsent = True


class TlsError(UpstreamError):
    """The upstream's identity could not be verified."""

    code = "tls_failed"
    unsent = True


class FirstByteTimeoutError(UpstreamError):
    """The upstream did not begin its answer in time."""

    code = "first_byte_timeout"
    status = 504


class IdleTimeoutError(UpstreamError):
    """Nothing moved between client and upstream for too long."""

    code = "idle_timeout"
    status = 504


class TotalTimeoutError(UpstreamError):
    """The exchange took longer than allowed."""

    code = "total_timeout"
    status = 504


class ResponseError(UpstreamError):
    """The upstream's answer is not HTTP."""

    code = "bad_response"


class ResponseSizeError(ResponseError):
    """The head of the upstream's answer is too large."""

    code = "response_head_too_large"


class TruncatedError(UpstreamError):
    """The upstream's answer ended too early."""

    code = "truncated"


class ResetError(UpstreamError):
    """The upstream closed the connection without an answer."""

    code = "reset"


class StaleError(ResetError):
    """The upstream closed an idle connection just when it was used again."""

    code = "stale_connection"
    upstream = False


class PendingFullError(GatewayError):
    """All connections to the upstream are busy, and too many requests wait for one."""

    code = "pending_full"
    status = 503
    unsent = True


class PendingTimeoutError(GatewayError):
    """No connection to the upstream came free in time."""

    code = "pending_timeout"
    status = 503
    unsent = True


class EndpointError(GatewayError):
    """No endpoint of the service is available."""

    code = "no_endpoint"
    status = 503
    unsent = True


class BreakerError(GatewayError):
    """The circuit breaker of the service is open."""

    code = "breaker_open"
    status = 503
    unsent = True


class RateError(GatewayError):
    """Too many requests in this time."""

    code = "rate_limited"
    status = 429


class OverloadError(GatewayError):
    """The gateway is short of memory or time."""

    code = "overloaded"
    status = 503


class DrainError(GatewayError):
    """The gateway is leaving."""

    code = "draining"
    status = 503


class RefusedError(GatewayError):
    """The request is malformed."""

    code = "bad_request"
    status = 400


class TargetError(RefusedError):
    """The request target is not acceptable."""

    code = "bad_target"


class TargetSizeError(RefusedError):
    """The request target is too long."""

    code = "target_too_long"
    status = 414


class HeadSizeError(RefusedError):
    """The head of the request is too large."""

    code = "head_too_large"
    status = 431


class BodySizeError(RefusedError):
    """The body of the request is too large."""

    code = "body_too_large"
    status = 413


class HostError(RefusedError):
    """The request names no host, or more than one."""

    code = "bad_host"


class FramingError(RefusedError):
    """The length of the request's body cannot be told for sure."""

    code = "bad_framing"


class CodingError(RefusedError):
    """The request has a transfer coding other than chunked."""

    code = "unknown_coding"
    status = 501


class VersionError(RefusedError):
    """The request has an HTTP version other than 1.0 and 1.1."""

    code = "bad_version"
    status = 505


class ExpectationError(RefusedError):
    """The request expects something that is not known."""

    code = "bad_expectation"
    status = 417


class MethodError(RefusedError):
    """The method cannot be forwarded."""

    code = "bad_method"
    status = 501


class RouteError(RefusedError):
    """No service has this host and path."""

    code = "no_service"
    status = 404


class LoopError(RefusedError):
    """The request has been through this gateway too often."""

    code = "loop"
    status = 508


class UpgradeError(RefusedError):
    """The connection cannot be upgraded here."""

    code = "no_upgrade"
    status = 501
