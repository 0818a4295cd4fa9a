"""Calls of a running server, for the commands that steer it."""

from __future__ import annotations

import json
import sys
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from typing import Any

import click

from flatwater.errors import FlatwaterError

TIMEOUT_S = 30.0


class CallError(FlatwaterError, code="call"):
    """The server refused the call."""


def options(function: Any) -> Any:
    """``--url`` and ``--token`` for a command."""
    token = click.option("--token", envvar="FLATWATER_SERVER_TOKEN", help="The server's token, if it wants one.")
    url = click.option(
        "--url",
        envvar="FLATWATER_URL",
        default="http://127.0.0.1:8350",
        show_default=True,
        help="The server's address.",
    )
    return url(token(function))


class Client:
    """A server's HTTP API. Every failure is a `CallError` with the server's own words."""

    def __init__(self, url: str, token: str | None) -> None:
        self._url = url.rstrip("/")
        self._token = token
        # Straight to the server: a proxy of the environment has no business with it.
        self._opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))

    def call(self, method: str, path: str, body: Any = None, **query: Any) -> Any:
        """The JSON answer."""
        given = {key: value for key, value in query.items() if value not in (None, "", ())}
        address = f"{self._url}{path}" + (f"?{urllib.parse.urlencode(given)}" if given else "")
        data = body if isinstance(body, bytes) or body is None else json.dumps(body).encode()
        request = urllib.request.Request(address, data, {"content-type": "application/json"}, method=method)  # noqa: S310
        if self._token:
            request.add_header("authorization", f"Bearer {self._token}")
        try:
            with self._opener.open(request, timeout=TIMEOUT_S) as answer:
                return json.loads(answer.read() or b"null")
        except urllib.error.HTTPError as error:
            raise _refused(error) from None
        except (urllib.error.URLError, OSError, ValueError) as error:
            reason = getattr(error, "reason", error)
            hint = "is `flatwater serve` running there? --url or FLATWATER_URL say where"
            raise CallError(str(reason), where=self._url, hint=hint) from None

    def pages(self, path: str, limit: int, **query: Any) -> Iterator[dict[str, Any]]:
        """At most ``limit`` items of a list, page by page."""
        cursor = None
        while limit > 0:
            page = self.call("GET", path, limit=min(limit, 500), cursor=cursor, **query)
            yield from page["items"]
            limit -= len(page["items"])
            cursor = page.get("next")
            if cursor is None:
                return


def _refused(error: urllib.error.HTTPError) -> CallError:
    try:
        told = json.loads(error.read())["error"]
    except (ValueError, KeyError, TypeError):
        return CallError(f"status {error.code}", where=error.url or "")
    lines = [
        f"\n  {problem.get('path', '')}: {problem.get('message', '')}"
        + (f" ({problem['hint']})" if problem.get("hint") else "")
        for problem in told.get("problems") or ()
    ]
    return CallError(
        told.get("message", "") + "".join(lines), where=told.get("where") or "", hint=told.get("hint") or ""
    )


def show(value: Any) -> None:
    """Print JSON for people and programs alike."""
    click.echo(json.dumps(value, ensure_ascii=False, indent=2))


def table(items: Iterator[dict[str, Any]], columns: dict[str, Any]) -> None:
    """A table on a terminal, tab-separated lines in a pipe. ``columns``: title → key or function of an item."""
    rows = (
        [str(column(item) if callable(column) else item.get(column, "")) for column in columns.values()]
        for item in items
    )
    if not sys.stdout.isatty():
        for row in rows:
            click.echo("\t".join(row))
        return
    from rich.console import Console
    from rich.table import Table

    grid = Table(*columns, box=None, header_style="bold")
    for row in rows:
        grid.add_row(*row)
    Console().print(grid)
