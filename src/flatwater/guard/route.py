"""What a request is called: by its route, else by its method and path with ids folded. Rows must stay few."""

from __future__ import annotations

import re
from collections.abc import MutableMapping
from functools import lru_cache
from typing import Any

Scope = MutableMapping[str, Any]

_MAX_KNOWN = 1024
_MAX_SEGMENTS, _MAX_PATH = 4, 200
_ID = re.compile(  # a whole segment
    r"(?<=/)(?:\d+|(?=[^/]*\d)(?:[0-9a-f-]{8,}|[^/]{16,})|[^/]{33,})(?=/|$)", re.IGNORECASE
)


class Names:
    """Names of requests that have ended; before its end a framework does not tell a request's route."""

    def __init__(self) -> None:
        self.fixed: set[str] = set()  # routes without parameters, whose requests are named before they have ended

    def learn(self, method: str, path: str, scope: Scope, status: int) -> str:
        """The name of a request that has ended."""
        asked, name = f"{method} {path}", routed(method, scope)
        if name == asked and len(self.fixed) < _MAX_KNOWN:
            self.fixed.add(asked)
        if name:
            return name
        return f"{method} (not found)" if status == 404 else label(asked)


@lru_cache(maxsize=1024)
def label(asked: str) -> str:
    """A name by method and path alone, as in ``GET /orders/4711``: ids folded to ``{}``, long paths cut."""
    method, _, path = asked.partition(" ")
    return f"{method} {fold(path[:_MAX_PATH])}"


def fold(path: str) -> str:
    """At most four segments, with numbers, long hexadecimal words and long words with digits as ``{}``."""
    folded = _ID.sub("{}", path)
    if folded.count("/") > _MAX_SEGMENTS:
        folded = "/".join(folded.split("/", _MAX_SEGMENTS + 1)[:-1]) + "/…"
    return folded


def routed(method: str, scope: Scope) -> str:
    """The name by the route that the framework left in the scope; "" when there is none."""
    path = getattr(scope.get("route"), "path", None)
    if not isinstance(path, str):
        return ""
    root, base = scope.get("root_path", ""), scope.get("app_root_path", "")
    mount = root[len(base) :] if base or "app_root_path" in scope else ""
    return f"{method} {fold(mount) if mount else ''}{path}"
