"""Who may ask: tokens, host names against DNS rebinding, origins against cross-site requests, and security headers."""

from __future__ import annotations

import hmac
import secrets
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from http.cookies import CookieError, SimpleCookie
from typing import Any
from urllib.parse import parse_qsl, urlencode

from flatwater.listener.address import is_loopback
from flatwater.server.problem import RequestError, failure
from flatwater.server.reply import Send, answer, fail
from flatwater.server.request import Receive, Scope, header

COOKIE = "flatwater_token"
MAX_TARGET_BYTES = 16 * 1024
_HEALTH = frozenset({"/livez", "/readyz"})
_DIAGNOSTIC = ("/api/memory", "/api/guard")
_SAFE = frozenset({"GET", "HEAD", "OPTIONS"})
_CHANGING_GETS = ("/api/suspend-task/", "/api/start-task/")  # as the known systems have them
_NOTHING = "default-src 'none'; frame-ancestors 'none'"
_PAGE = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; font-src 'self'; "
    "connect-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
)
_HEADERS = {
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "cross-origin-resource-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
}


def token_for(host: str, token: str) -> str:
    """The token that callers must send, empty when none is needed. A missing one is made."""
    return token or ("" if is_loopback(host) else secrets.token_urlsafe(24))


class Guard:
    """Stands before every route. Refuses with 401 (no token) or 403 (wrong host or origin)."""

    def __init__(
        self,
        app: Callable[[Scope, Receive, Send], Awaitable[None]],
        *,
        token: str,
        diagnostic_token: str,
        loopback: bool,
        hosts: Iterable[str] = (),
    ) -> None:
        self._app = app
        self._token = token.encode()
        self._diagnostic_token = diagnostic_token.encode()
        self._names = frozenset(map(str.lower, hosts))
        # Names by which a loopback server may be asked; a page that rebinds its own name to 127.0.0.1 has another one.
        self._hosts = frozenset({"localhost", "127.0.0.1", "::1", *self._names}) if loopback else None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        guarded = _with_headers(scope["path"], send)
        try:
            if len(scope["raw_path"]) + len(scope["query_string"]) > MAX_TARGET_BYTES:
                raise RequestError(414, "target", f"the address has more than {MAX_TARGET_BYTES} bytes")
            self._check_host(scope)
            self._check_origin(scope)
            if await self._redirected(scope, guarded):
                return
            self._check_token(scope)
        except RequestError as error:
            await fail(guarded, failure(error))
            return
        await self._app(scope, receive, guarded)

    def _check_host(self, scope: Scope) -> None:
        if self._hosts is None:
            return
        name = _host_name(header(scope, b"host"))
        if name not in self._hosts:
            raise RequestError(
                403,
                "host",
                f"this server is not called {name!r}",
                where="header: Host",
                hint="add it to server.allowed_hosts",
            )

    def _check_origin(self, scope: Scope) -> None:
        """Refuse what a foreign page makes a browser send. Browsers name the page's origin with every unsafe method."""
        if scope["method"] in _SAFE and not scope["path"].startswith(_CHANGING_GETS):
            return
        origin = header(scope, b"origin").lower()
        if origin:
            _, _, place = origin.partition("://")
            allowed = place == header(scope, b"host").lower() or _host_name(place) in self._names
        else:
            allowed = header(scope, b"sec-fetch-site") in ("", "same-origin", "none")
        if not allowed:
            raise RequestError(
                403, "origin", "pages of other sites may not change anything here", where="header: Origin"
            )

    def _check_token(self, scope: Scope) -> None:
        if not _is_private(scope["path"]):
            return
        # Whoever may ask for diagnostics may ask for everything; where no token is needed, diagnostics need one.
        diagnostic = scope["path"].startswith(_DIAGNOSTIC)
        accepted = [self._diagnostic_token] if diagnostic else [self._token, self._diagnostic_token]
        if not accepted[0] or any(
            token and hmac.compare_digest(offered, token) for offered in _offers(scope) for token in accepted
        ):
            return
        raise RequestError(
            401,
            "unauthorized",
            "a token is needed",
            where="header: Authorization",
            hint="send 'Authorization: Bearer TOKEN'; the server printed it at its start or server.token sets it",
            headers={"WWW-Authenticate": 'Bearer realm="flatwater"'},
        )

    async def _redirected(self, scope: Scope, send: Send) -> bool:
        """The page opened with ``?token=``: keep the token as a cookie and take it out of the address."""
        if scope["method"] != "GET" or scope["path"] not in ("/", "/index.html"):
            return False
        pairs = parse_qsl(scope["query_string"].decode("latin-1"), keep_blank_values=True, max_num_fields=None)
        offered = dict(pairs).get("token", "").encode()
        known = [token for token in (self._token, self._diagnostic_token) if token]
        if not offered or not any(hmac.compare_digest(offered, token) for token in known):
            return False
        rest = urlencode([pair for pair in pairs if pair[0] != "token"])
        secure = "; Secure" if scope.get("scheme") == "https" else ""
        headers = {
            "location": f"/?{rest}" if rest else "/",
            "set-cookie": f"{COOKIE}={offered.decode()}; Path=/; HttpOnly; SameSite=Strict{secure}",
        }
        await answer(send, 303, b"", headers)
        return True


def _offers(scope: Scope) -> list[bytes]:
    """The tokens that the request carries; EventSource can set no headers, so the stream takes one in its query."""
    kind, _, bearer = header(scope, b"authorization").partition(" ")
    offers = [bearer.strip()] if kind.lower() == "bearer" else []
    try:
        cookie = SimpleCookie(header(scope, b"cookie")).get(COOKIE)
    except CookieError:
        cookie = None
    if cookie is not None:
        offers.append(cookie.value)
    if scope["path"] == "/api/stream":
        offers += [value for name, value in parse_qsl(scope["query_string"].decode("latin-1")) if name == "token"]
    return [offer.encode("utf-8", "surrogateescape") for offer in offers]


def _is_private(path: str) -> bool:
    """Everything with data in it. The page's own files have none: they must load for the page to ask for the token."""
    return path.startswith("/api/") or path in ("/api", "/metrics", "/openapi.json")


def _host_name(host: str) -> str:
    if host.startswith("["):
        return host[1:].partition("]")[0].lower()
    return host.partition(":")[0].lower().rstrip(".")


def _pairs(headers: dict[str, str]) -> list[tuple[bytes, bytes]]:
    return [(name.encode(), value.encode()) for name, value in headers.items()]


_API_PAIRS = _pairs({**_HEADERS, "content-security-policy": _NOTHING, "cache-control": "no-store"})
_PAGE_PAIRS = _pairs({**_HEADERS, "content-security-policy": _PAGE})


def _with_headers(path: str, send: Send) -> Send:
    pairs = _API_PAIRS if _is_private(path) or path in _HEALTH else _PAGE_PAIRS

    async def guarded(message: MutableMapping[str, Any]) -> None:
        if message["type"] == "http.response.start":
            message["headers"] = [*message["headers"], *pairs]
        await send(message)

    return guarded
