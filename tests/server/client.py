"""A client that speaks ASGI to an application in the same loop: no socket, no extra library."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import unquote

import msgspec


@dataclass
class Answer:
    status: int = 0
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""

    @property
    def json(self) -> Any:
        return msgspec.json.decode(self.body)

    @property
    def error(self) -> Any:
        return self.json["error"]


@dataclass
class Client:
    """Requests to ``app``. ``state`` is what the lifespan gave."""

    app: Any
    state: dict[str, Any] = field(default_factory=dict)
    headers: dict[str, str] = field(default_factory=lambda: {"host": "127.0.0.1:8350"})

    async def get(self, path: str, **options: Any) -> Answer:
        return await self.ask("GET", path, **options)

    async def post(self, path: str, json: Any = None, **options: Any) -> Answer:
        return await self.ask("POST", path, json=json, **options)

    async def ask(
        self,
        method: str,
        target: str,
        *,
        json: Any = None,
        body: bytes | Iterable[bytes] | None = None,
        headers: Mapping[str, str | None] | None = None,
    ) -> Answer:
        path, _, query = target.partition("?")
        given: dict[str, str | None] = {**self.headers, **(headers or {})}
        if json is not None or body is not None:
            given.setdefault("content-type", "application/json")
        chunks = (
            [msgspec.json.encode(json)] if json is not None else [body] if isinstance(body, bytes) else list(body or ())
        )
        scope = {
            "type": "http",
            "asgi": {"version": "3.0"},
            "http_version": "1.1",
            "method": method,
            "scheme": "http",
            "path": unquote(path),
            "raw_path": path.encode(),
            "query_string": query.encode(),
            "root_path": "",
            "headers": [(name.encode(), value.encode()) for name, value in given.items() if value is not None],
            "client": ("127.0.0.1", 1),
            "server": ("127.0.0.1", 8350),
            "state": self.state.copy(),
        }
        answer = Answer()
        waiting = list(chunks)

        async def receive() -> dict[str, Any]:
            if not waiting:
                if chunks:
                    await asyncio.Event().wait()
                return {"type": "http.request", "body": b"", "more_body": False}
            chunk = waiting.pop(0)
            return {"type": "http.request", "body": chunk, "more_body": bool(waiting)}

        async def send(message: Mapping[str, Any]) -> None:
            if message["type"] == "http.response.start":
                answer.status = message["status"]
                answer.headers = {name.decode(): value.decode() for name, value in message["headers"]}
            elif message["type"] == "http.response.body":
                answer.body += message.get("body", b"")

        await self.app(scope, receive, send)
        return answer


async def eventually(true: Callable[[], Any], timeout_s: float = 60.0) -> None:
    """Wait until ``true()``, which may be a coroutine, is; TimeoutError when it does not come true."""
    async with asyncio.timeout(timeout_s):
        while True:
            found = true()
            if inspect.isawaitable(found):
                found = await found
            if found:
                return
            await asyncio.sleep(0.005)
