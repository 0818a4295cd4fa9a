"""Ids, limits and pages."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Annotated, Generic, TypeVar

import msgspec
from msgspec import Meta, Raw, Struct

from flatwater.server.problem import RequestError

S = TypeVar("S")
T = TypeVar("T")

MAX_ITEMS = 500

Id = Annotated[str, Meta(min_length=1, max_length=255, pattern=r"^[^\x00-\x1f\x7f]+$")]
Text = Annotated[str, Meta(max_length=255)]
Limit = Annotated[int, Meta(ge=1, le=MAX_ITEMS, description="How many items at most.")]
Cursor = Annotated[str, Meta(min_length=1, max_length=600, description="`next` of the page before.")]
Time = Annotated[float, Meta(ge=0, le=1e11, description="Seconds since the epoch.")]
Int32 = Annotated[int, Meta(ge=-(2**31), le=2**31 - 1)]
Key = Annotated[
    str,
    Meta(
        min_length=1,
        max_length=200,
        pattern=r"^[^\x00-\x1f\x7f]+$",
        description="A second submission with this key is the same run.",
    ),
]
Number = Annotated[float, Meta(ge=-1e12, le=1e12)]


class TraceHeaders(Struct, frozen=True, kw_only=True, rename="kebab"):
    """The caller's trace context (W3C); one that is malformed is ignored."""

    traceparent: str | None = None
    tracestate: str | None = None

    @property
    def carrier(self) -> dict[str, str] | None:
        if self.traceparent is None:
            return None
        return {"traceparent": self.traceparent, **({"tracestate": self.tracestate} if self.tracestate else {})}


class Page(Struct, Generic[T], frozen=True):
    """Items, newest first where they have a time; ``next`` is the cursor of the next page, null at the end."""

    items: list[T]
    next: str | None = None


class Paging(Struct, frozen=True, kw_only=True):
    limit: Limit = 50
    cursor: Cursor | None = None


def page_of(found: Sequence[S], limit: int, show: Callable[[S], T], cursor: Callable[[S], str | int]) -> Page[T]:
    """A page from up to ``limit + 1`` rows: the one too many only tells that there is more."""
    items = found[:limit]
    return Page([show(row) for row in items], str(cursor(items[-1])) if len(found) > limit else None)


def number(cursor: str | None) -> int | None:
    """A cursor that must be a number. Raises RequestError."""
    if cursor is None:
        return None
    if not (cursor.isascii() and cursor.isdigit() and len(cursor) < 19):
        raise RequestError(422, "invalid", f"{cursor!r} is no cursor of this list", where="query: cursor")
    return int(cursor)


SHOWN_BYTES = 256 * 1024
SHOWN_IN_LIST_BYTES = 4 * 1024


def shown(text: str | None, max_chars: int = SHOWN_BYTES) -> Raw:
    """Stored JSON as it is; what is larger than ``max_chars`` is replaced by its size."""
    if text is None:
        return Raw(b"null")
    if len(text) > max_chars:
        return Raw(msgspec.json.encode({"truncated": len(text)}))
    return Raw(text.encode())
