"""Whole answers as ASGI messages."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

import msgspec

from flatwater.server.problem import ErrorAnswer, Failure

JSON = "application/json"
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]


async def answer(send: Send, status: int, body: bytes, headers: dict[str, str]) -> None:
    """Send one whole answer."""
    pairs = [(name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in headers.items()]
    if status != 204:
        pairs.append((b"content-length", str(len(body)).encode()))
    await send({"type": "http.response.start", "status": status, "headers": pairs})
    await send({"type": "http.response.body", "body": b"" if status == 204 else body})


async def fail(send: Send, failed: Failure, *, enveloped: bool = False) -> None:
    """Answer with an error, in Flatwater's shape or in the known systems' envelope."""
    if enveloped:
        parts = [failed.body.message, failed.body.where, failed.body.hint, *map(str, failed.body.problems)]
        shape: object = {"code": failed.status, "msg": "; ".join(part for part in parts if part), "data": None}
    else:
        shape = ErrorAnswer(failed.body)
    await answer(send, failed.status, msgspec.json.encode(shape), {"content-type": JSON, **failed.headers})
