"""Calls of HTTP servers for blocks: one client session, made at its first use, bounded in connections and bytes.

The client library costs 16 MB of memory: it is imported when the first block calls out, not before.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Self
from urllib.parse import urlsplit, urlunsplit

import msgspec

from flatwater.bounded.ledger import Ledger, Usage, check_bound
from flatwater.errors import ClosedError, RunError

if TYPE_CHECKING:
    import aiohttp

_JSON_MARKS: Final = (b"{", b"[")
_REASON_CHARS: Final = 500


class WebError(RunError, code="web"):
    """The HTTP call failed.

    ``transient`` tells that the same call may succeed later: no connection, a time-out, an answer cut off, or a status
    of 408, 429 or 5xx.
    """

    def __init__(self, detail: str, *, where: str, hint: str = "", transient: bool = True) -> None:
        super().__init__(detail, where=where, hint=hint)
        self.transient = transient


class Request(msgspec.Struct, frozen=True, kw_only=True):
    """What to send. ``timeout_s`` is for the request and its whole answer."""

    method: str
    url: str
    timeout_s: float
    headers: Mapping[str, str] = {}
    query: Mapping[str, str] = {}
    body: bytes | None = None


class Reply(msgspec.Struct, frozen=True):
    """An answer: ``body`` is a JSON value when the answer is JSON, else text."""

    status: int
    body: Any
    reason: str = ""


class WebStatistics(Usage, frozen=True, kw_only=True):
    """``size`` connections are open, of ``bound`` allowed; the rest counts since the start."""

    calls: int
    failed: int
    received_bytes: int


class Web:
    """What http blocks call through. Used as ``async with``; nothing is opened before the first call."""

    kind = "http client"

    def __init__(
        self,
        *,
        max_connections: int = 100,
        max_response_bytes: int = 16 * 1024 * 1024,
        max_redirects: int = 5,
        idle_s: float = 15.0,
        ledger: Ledger | None = None,
        name: str = "http client of blocks",
    ) -> None:
        for setting, value in {
            "max_connections": max_connections,
            "max_response_bytes": max_response_bytes,
            "idle_s": idle_s,
        }.items():
            check_bound(setting, value, where=name)
        self.name = name
        self._max_connections = max_connections
        self._max_response_bytes = max_response_bytes
        self._max_redirects = max_redirects
        self._idle_s = idle_s
        self._session: aiohttp.ClientSession | None = None
        self._open = False
        self._calls = self._failed = self._received = 0
        if ledger is not None:
            ledger.register(self)

    async def __aenter__(self) -> Self:
        self._open = True
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Close every connection. Twice is once."""
        self._open = False
        session, self._session = self._session, None
        if session is not None:
            await session.close()

    def statistics(self) -> WebStatistics:
        return WebStatistics(
            size=0 if self._session is None else _connections(self._session),
            bound=self._max_connections,
            calls=self._calls,
            failed=self._failed,
            received_bytes=self._received,
        )

    async def call(self, request: Request) -> Reply:
        """Send a request and read the whole answer, of at most ``max_response_bytes``.

        Redirects are followed, ``max_redirects`` of them. Any status is an answer. Raises `WebError` when there is
        none, with the URL (without its credentials and query) and the cause.
        """
        shown = shown_url(request.url)
        check_url(request.url, shown)
        session = self._ready()
        self._calls += 1
        try:
            return await self._send(session, request, shown)
        except WebError:
            self._failed += 1
            raise
        except Exception as error:
            self._failed += 1
            raise _failure(error, shown, request.timeout_s) from None

    async def _send(self, session: aiohttp.ClientSession, request: Request, shown: str) -> Reply:
        import aiohttp

        async with session.request(
            request.method,
            request.url,
            headers=request.headers,
            params=request.query or None,
            data=request.body,
            timeout=aiohttp.ClientTimeout(total=request.timeout_s),
            max_redirects=self._max_redirects,
        ) as response:
            raw = await self._read(response, shown)
            return Reply(response.status, decoded(raw, response.content_type, response.charset), response.reason or "")

    async def _read(self, response: aiohttp.ClientResponse, shown: str) -> bytes:
        limit = self._max_response_bytes
        body = bytearray()
        async for chunk in response.content.iter_any():
            self._received += len(chunk)
            if len(body) + len(chunk) > limit:
                response.close()  # the rest is not wanted, so the connection cannot be used again
                raise WebError(
                    f"the answer is larger than max_response_bytes ({limit:,})",
                    where=shown,
                    hint="ask for less, or raise max_response_bytes",
                    transient=False,
                )
            body += chunk
        return bytes(body)

    def _ready(self) -> aiohttp.ClientSession:
        if not self._open:
            raise ClosedError("the http client is not open", where=self.name)
        if self._session is None:
            import aiohttp

            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit=self._max_connections, keepalive_timeout=self._idle_s),
                cookie_jar=aiohttp.DummyCookieJar(),  # runs must not see each other's cookies, nor may they pile up
                headers={"User-Agent": "flatwater"},
            )
        return self._session


def _connections(session: aiohttp.ClientSession) -> int:
    connector = session.connector
    if connector is None:
        return 0
    pooled = sum(len(each) for each in getattr(connector, "_conns", {}).values())
    return pooled + len(getattr(connector, "_acquired", ()))


def decoded(raw: bytes, content_type: str, charset: str | None) -> Any:
    """The body as a JSON value when it is declared as JSON or looks like it, else as text."""
    if "json" in content_type or raw.lstrip()[:1] in _JSON_MARKS:
        try:
            return msgspec.json.decode(raw)
        except (msgspec.MsgspecError, UnicodeError, RecursionError):
            pass
    try:
        return raw.decode(charset or "utf-8", errors="replace")
    except LookupError:
        return raw.decode(errors="replace")


def shown_url(url: str) -> str:
    """``url`` as messages may show it: without user, password and query, which may hold secrets."""
    try:
        parts = urlsplit(url)
        host = parts.netloc.rpartition("@")[2]
        return urlunsplit((parts.scheme, host, parts.path, "…" if parts.query else "", ""))[:_REASON_CHARS]
    except ValueError:
        return url.split("?", 1)[0].rpartition("@")[2][:_REASON_CHARS]


def check_url(url: str, shown: str) -> None:
    """Raises `WebError` when ``url`` cannot be called."""
    try:
        parts = urlsplit(url)
        scheme, host = parts.scheme.lower(), parts.hostname
        parts.port  # noqa: B018 - reading it checks it
    except ValueError as error:
        raise WebError(f"this is no URL: {error}", where=shown, transient=False) from None
    if scheme not in ("http", "https"):
        what = f"the scheme {scheme!r} cannot be called" if scheme else "the URL has no scheme"
        raise WebError(what, where=shown, hint="write http://… or https://…", transient=False)
    if not host:
        raise WebError("the URL names no host", where=shown, hint="write http://host/path", transient=False)


def _failure(error: Exception, shown: str, timeout_s: float) -> WebError:
    """What went wrong, in words; the library's own messages may hold the URL with its credentials."""
    import aiohttp

    if isinstance(error, TimeoutError):
        return WebError(f"no complete answer within {timeout_s:g} s", where=shown)
    if isinstance(error, aiohttp.RedirectClientError):
        return WebError("redirected to an address that cannot be called", where=shown, transient=False)
    for kind, message, transient in (
        (aiohttp.TooManyRedirects, "too many redirects", False),
        (aiohttp.InvalidURL, "this is no URL to call", False),
        (aiohttp.ClientPayloadError, "the answer ended too early", True),
        (aiohttp.ServerDisconnectedError, "the server closed the connection without an answer", True),
        (aiohttp.ClientConnectorCertificateError, "its certificate is not valid", False),
    ):
        if isinstance(error, kind):
            return WebError(message, where=shown, transient=transient)
    if isinstance(error, aiohttp.ClientResponseError):
        return WebError(f"the answer is not HTTP: {error.message[:_REASON_CHARS]}", where=shown)
    if isinstance(error, OSError):
        return WebError(f"no connection: {_cause(error)}", where=shown)
    transient = isinstance(error, aiohttp.ClientError)
    return WebError(f"the request cannot be sent: {error}"[:_REASON_CHARS], where=shown, transient=transient)


def _cause(error: Exception) -> str:
    inner = getattr(error, "os_error", error)
    return str(getattr(inner, "strerror", None) or inner)[:_REASON_CHARS]
