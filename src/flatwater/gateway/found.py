"""What a look-up in the HTTP cache finds: an answer, something to validate, or nothing."""

from __future__ import annotations

from flatwater.gateway.demand import Demand
from flatwater.gateway.entry import STRICT, VALIDATE, Stored, fields
from flatwater.gateway.freshness import Policy
from flatwater.gateway.validation import Headers, Response, validators

SAFE = frozenset(b"GET HEAD OPTIONS TRACE PROPFIND REPORT SEARCH QUERY".split())
"""Methods after which nothing is invalidated (RFC 9110 §9.2.1, and safe ones of the IANA registry)."""

_OF_CLIENT = frozenset((b"if-none-match", b"if-modified-since", b"if-range", b"range"))


class Answer:
    """A complete response to send at once; ``kind`` is ``hit``, ``stale``, ``revalidated`` or ``refused`` (504).

    A plain hit has ``head``: its header section as it is sent, each line with its end; it is None otherwise.
    """

    __slots__ = ("_response", "body", "head", "kind", "status")

    def __init__(self, response: Response, kind: str) -> None:
        self._response: Response | None = response
        self.status, _, self.body = response
        self.head: bytes | None = None
        self.kind = kind

    @classmethod
    def plain(cls, status: int, head: bytes, body: bytes) -> Answer:
        found = cls.__new__(cls)
        found._response = None
        found.status = status
        found.head = head
        found.body = body
        found.kind = "hit"
        return found

    @property
    def lines(self) -> bytes:
        """The header section as it is sent, without the empty line."""
        if self.head is not None:
            return self.head
        return b"".join([b"%b: %b\r\n" % item for item in self.response.headers])

    @property
    def response(self) -> Response:
        """The response with its header list, which is made when it is asked for."""
        if self._response is None:
            self._response = Response(self.status, fields(self.head or b""), self.body)
        return self._response


class Miss:
    """Nothing that could answer: ask the origin. ``reason`` as Cache-Status names it (RFC 9211 §2.2).

    ``storable``: the request does not forbid to keep its response.
    """

    __slots__ = ("asked_at", "key", "method", "policy", "reason", "request", "storable")

    def __init__(
        self,
        key: bytes,
        method: bytes,
        request: Headers,
        policy: Policy,
        asked_at: float,
        reason: bytes,
        storable: bool,
    ) -> None:
        self.key = key
        self.method = method
        self.request = request
        self.policy = policy
        self.asked_at = asked_at
        self.reason = reason
        self.storable = storable


class Stale(Miss):
    """A stored response that must be validated first, unless one of the flags is set and its condition is met.

    ``while_revalidating``: answer with it now and revalidate in the background (RFC 5861 §3). ``on_error``: answer
    with it when the origin says 500, 502, 503 or 504 (§4). ``on_disconnect``: when the origin gives no answer.
    ``asked``: the origin is asked by conditions of ours, so that its 304 is about the stored response.
    """

    __slots__ = ("asked", "on_disconnect", "on_error", "stored", "validators", "while_revalidating")

    def __init__(
        self,
        key: bytes,
        method: bytes,
        request: Headers,
        policy: Policy,
        now: float,
        reason: bytes,
        stored: Stored,
        demand: Demand,
    ) -> None:
        super().__init__(key, method, request, policy, now, reason, True)
        self.stored = stored
        self.validators = validators(stored.headers)
        self.asked = bool(self.validators)
        over_s = now - stored.base - stored.lifetime  # for how long it has not been fresh
        may = not stored.flags & (STRICT | VALIDATE) and not demand.insists
        error_s = max(stored.stale_if_error, demand.stale_if_error or 0)
        self.while_revalidating = may and over_s < stored.stale_while_revalidate
        self.on_error = may and over_s < error_s
        self.on_disconnect = may and over_s < max(error_s, policy.max_stale_disconnected_s)

    def conditional(self) -> Headers:
        """The request's headers for the origin: our conditions in place of the client's, if we have any."""
        return self.background() if self.asked else self.request

    def background(self) -> Headers:
        """As :meth:`conditional`, and never with what is the client's own: its conditions and ranges."""
        return [*(item for item in self.request if item[0] not in _OF_CLIENT), *self.validators]


Found = Answer | Stale | Miss
