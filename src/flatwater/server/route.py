"""One declaration for each route: what it takes, what it answers, what can go wrong.

The signature of the handler is the declaration: path parameters by their names, ``query`` and ``headers`` structs, a
``body``; the return annotation is the answer. Both the decoding of requests and ``/openapi.json`` come from it.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Awaitable, Callable
from typing import Any, Generic, TypeVar, get_args, get_origin, get_type_hints

import msgspec

from flatwater.server.reply import JSON

T = TypeVar("T")
Handler = TypeVar("Handler", bound=Callable[..., Awaitable[Any]])

_PARAMETER = re.compile(r"{(\w+)(?::\w+)?}")


class Reply(msgspec.Struct, Generic[T], frozen=True):
    """An answer with a status other than the route's own, or with headers."""

    value: T
    status: int = 0
    headers: dict[str, str] = {}


class Route(msgspec.Struct, frozen=True, kw_only=True):
    """A method of a path. ``errors`` are the statuses that this handler adds to those that any route may answer."""

    method: str
    path: str
    handler: Callable[..., Awaitable[Any]]
    tag: str
    summary: str
    description: str
    status: int
    also: tuple[int, ...]
    errors: tuple[int, ...]
    media: str
    public: bool
    limit: str
    params: dict[str, Any]
    query: Any
    headers: Any
    body: Any
    decoder: msgspec.json.Decoder[Any] | None
    answer: Any
    raw: bool
    changing: bool
    enveloped: bool

    @property
    def template(self) -> str:
        """The path as OpenAPI writes it."""
        return _PARAMETER.sub(r"{\1}", self.path)


class Table:
    """The routes of one noun. ``enveloped`` ones answer errors as the known systems do: ``{code, msg, data}``."""

    def __init__(self, tag: str, *, enveloped: bool = False) -> None:
        self.tag = tag
        self._enveloped = enveloped
        self.routes: list[Route] = []

    def add(
        self,
        method: str,
        path: str,
        *,
        status: int = 200,
        also: tuple[int, ...] = (),
        errors: tuple[int, ...] = (),
        media: str = JSON,
        public: bool = False,
        limit: str = "max_body_bytes",
        raw: bool = False,
        changing: bool = False,
    ) -> Callable[[Handler], Handler]:
        """Declare the decorated handler.

        ``also``: other good statuses it may choose by :class:`Reply`. ``public``: needs no token. ``limit``: the
        server setting that bounds the body. ``raw``: the handler answers by itself. ``changing``: a
        GET that is not safe, so there is no HEAD.
        """

        def declare(handler: Handler) -> Handler:
            hints = get_type_hints(handler, include_extras=True)
            answer = hints.pop("return")
            if get_origin(answer) is Reply:
                (answer,) = get_args(answer)
            doc = inspect.cleandoc(handler.__doc__ or "").partition("\n")
            names = _PARAMETER.findall(path)
            self.routes.append(
                Route(
                    method=method,
                    path=path,
                    handler=handler,
                    tag=self.tag,
                    summary=doc[0].rstrip("."),
                    description=doc[2].strip(),
                    status=status,
                    also=also,
                    errors=errors,
                    media=media,
                    public=public,
                    limit=limit,
                    params={name: hints[name] for name in names},
                    query=hints.get("query"),
                    headers=hints.get("headers"),
                    body=hints.get("body"),
                    decoder=msgspec.json.Decoder(hints["body"]) if "body" in hints else None,
                    answer=answer,
                    raw=raw,
                    changing=changing,
                    enveloped=self._enveloped,
                )
            )
            return handler

        return declare
