"""From bytes to arguments: what is right arrives typed, everything wrong is a 4xx that says where."""

from __future__ import annotations

import asyncio
import tracemalloc
from types import SimpleNamespace
from typing import Annotated, Any

import msgspec
import pytest
from starlette.applications import Starlette
from starlette.routing import Route as Mount
from tests.server.client import Client

from flatwater.errors import ConflictError, DamagedError, DefinitionError, FencedError, Problem, StoreFullError
from flatwater.server.endpoint import Endpoint
from flatwater.server.problem import RequestError
from flatwater.server.request import MAX_DROPPED_BYTES, read
from flatwater.server.route import Reply, Table
from flatwater.server.service import Service
from flatwater.settings.model import ServerSettings, Settings

LIMIT = 4096
Small = Annotated[int, msgspec.Meta(ge=1, le=500)]


class Query(msgspec.Struct, frozen=True, kw_only=True):
    limit: Small = 50
    state: tuple[str, ...] = ()
    after: float | None = None


class Headers(msgspec.Struct, frozen=True, rename="kebab"):
    idempotency_key: str | None = None


class Body(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    name: str
    size: Small = 1
    data: Any = None


table = Table("things")


@table.add("GET", "/things/{number}")
async def look(service: Service, number: Small, query: Query, headers: Headers) -> dict[str, Any]:
    """Look."""
    return {"number": number, "query": query, "headers": headers}


@table.add("POST", "/things", status=201, also=(200,))
async def make(service: Service, body: Body) -> Reply[Body]:
    """Make."""
    return Reply(body, 200 if body.name == "old" else 201, {"X-Made": body.name})


@table.add("DELETE", "/things/{number}", status=204)
async def drop(service: Service, number: Small) -> None:
    """Drop."""


@table.add("POST", "/fail/{how}")
async def fail(service: Service, how: str) -> None:
    """Fail."""
    errors: dict[str, Exception] = {
        "conflict": ConflictError("it runs", where="run 1", hint="wait"),
        "full": StoreFullError("no space left on device"),
        "fenced": FencedError("another worker has the runs"),
        "damaged": DamagedError("page 7"),
        "definition": DefinitionError([Problem("-1/3", "unknown block", "did you mean IfBp?")]),
        "bug": ZeroDivisionError("secret"),
        "timeout": TimeoutError("inner"),
    }
    if how == "slow":
        await asyncio.sleep(60)
    raise errors[how]


@pytest.fixture
def client() -> Client:
    return asking(timeout_s=60)


def asking(timeout_s: float) -> Client:
    paths: dict[str, list[Any]] = {}
    for route in table.routes:
        paths.setdefault(route.path, []).append(route)
    app = Starlette(routes=[Mount(path, Endpoint(routes)) for path, routes in paths.items()])
    server = ServerSettings(max_body_bytes=LIMIT, body_timeout_s=timeout_s, request_timeout_s=timeout_s)
    return Client(app, state={"service": SimpleNamespace(settings=Settings(server=server))})


async def test_arguments_arrive_typed(client: Client) -> None:
    answer = await client.get(
        "/things/7?limit=3&state=A,B&after=1.5", headers={"idempotency-key": "k", "unrelated": "x"}
    )
    assert answer.json == {
        "number": 7,
        "query": {"limit": 3, "state": ["A", "B"], "after": 1.5},
        "headers": {"idempotency-key": "k"},
    }
    assert (await client.get("/things/7")).json["query"] == {"limit": 50, "state": [], "after": None}


@pytest.mark.parametrize(
    "target",
    [
        "/things/x",
        "/things/0",
        "/things/501",
        "/things/\u0661",
        "/things/1?limit=0",
        "/things/1?limit=501",
        "/things/1?limit=1e3",
        "/things/1?limit=",
        "/things/1?limit=" + "9" * 500,
        "/things/1?limit=1&limit=2",
        "/things/1?nope=1",
        "/things/1?after=nan",
        "/things/1?after=inf",
        "/things/1?after=null",
        "/things/1?state=%00",
        "/things/1?state=%ff",
        "/things/1?" + "&".join(f"a{number}=1" for number in range(60)),
    ],
)
async def test_bad_parameters(client: Client, target: str) -> None:
    answer = await client.get(target)
    assert answer.status == 422
    assert answer.error["code"] == "invalid"
    assert answer.error["where"].split(":")[0] in ("path", "query")


async def test_unknown_parameters_name_the_known(client: Client) -> None:
    error = (await client.get("/things/1?nope=1")).error
    assert error["hint"] == "known: limit, state, after"
    assert "'nope'" in error["message"]


async def test_good_bodies(client: Client) -> None:
    answer = await client.post("/things", {"name": "a", "size": 3, "data": {"x": [1]}})
    assert (answer.status, answer.headers["x-made"]) == (201, "a")
    assert answer.json == {"name": "a", "size": 3, "data": {"x": [1]}}
    assert (await client.post("/things", {"name": "old"})).status == 200
    answer = await client.ask(
        "POST", "/things", body=b'{"name":"a"}', headers={"content-type": "application/json; charset=utf-8"}
    )
    assert answer.status == 201


DEEP = b'{"name":"a","data":' + b"[" * 200 + b"]" * 200 + b"}"
VERY_DEEP = b'{"name":"a","data":' + b"[" * 2000 + b"]" * 2000 + b"}"


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"", 400), (b"{", 400), (b'{"name": "a"} x', 400), (b'{"name": NaN}', 400), (b"\xff\xfe", 400),
        (b'{"name": "\xff"}', 400), (b'{"name": "\\ud800"}', 400), (b"null", 422), (b"[]", 422), (b'"x"', 422),
        (b'{"size": 1}', 422), (b'{"name": 1}', 422), (b'{"name": "a", "size": 0}', 422),
        (b'{"name": "a", "size": 1e999}', 422), (b'{"name": "a", "size": 99999999999999999999999}', 422),
        (b'{"name": "a", "nmae": 1}', 422), (b'{"name": "a\\u0000"}', 422), (DEEP, 422), (VERY_DEEP, 422),
    ],
)  # fmt: skip
async def test_bad_bodies(client: Client, body: bytes, status: int) -> None:
    answer = await client.ask("POST", "/things", body=body)
    assert answer.status == status, answer.body
    assert answer.error["message"]
    assert answer.error["where"].startswith("body")


async def test_where_names_the_field(client: Client) -> None:
    assert (await client.post("/things", {"name": "a", "size": 0})).error["where"] == "body: size"


async def test_an_escaped_backslash_before_u0000_is_text(client: Client) -> None:
    assert (await client.ask("POST", "/things", body=rb'{"name": "a\\u0000"}')).status == 201
    assert (await client.ask("POST", "/things", body=rb'{"name": "a\\\u0000"}')).status == 422


async def test_brackets_inside_of_texts_are_no_depth(client: Client) -> None:
    assert (await client.post("/things", {"name": "[" * 500, "data": '"' + "{" * 500})).status == 201


async def test_large_bodies_are_refused(client: Client) -> None:
    stated = await client.ask("POST", "/things", body=[b"x" * 100], headers={"content-length": "10000000"})
    assert stated.status == 413
    assert stated.headers["connection"] == "close"
    assert "max_body_bytes" in stated.error["hint"]
    unstated = await client.ask("POST", "/things", body=[b"x" * LIMIT, b"x"])
    assert unstated.status == 413


async def test_large_bodies_are_never_in_memory() -> None:
    received = 0

    async def receive() -> dict[str, Any]:
        nonlocal received
        received += 2**20
        return {"type": "http.request", "body": b"x" * 2**20, "more_body": True}

    scope = {"headers": [(b"content-type", b"application/json")]}
    tracemalloc.start()
    try:
        with pytest.raises(RequestError, match="more than 4096 bytes"):
            await read(scope, receive, LIMIT, 30.0)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 5 * 2**20
    assert MAX_DROPPED_BYTES < received <= MAX_DROPPED_BYTES + 2 * 2**20


@pytest.mark.parametrize("media", ["text/plain", "", None, "application/x-www-form-urlencoded", "multipart/form-data"])
async def test_only_json_is_taken(client: Client, media: str | None) -> None:
    answer = await client.ask("POST", "/things", body=b'{"name":"a"}', headers={"content-type": media})
    assert (answer.status, answer.error["code"]) == (415, "media-type")


async def test_methods(client: Client) -> None:
    answer = await client.ask("PUT", "/things/1")
    assert (answer.status, answer.headers["allow"]) == (405, "DELETE, GET, HEAD")
    assert (await client.ask("HEAD", "/things/1")).status == 200
    assert (await client.ask("DELETE", "/things/1")).status == 204


@pytest.mark.parametrize(
    ("how", "status", "code"),
    [
        ("conflict", 409, "conflict"),
        ("full", 503, "store_full"),
        ("fenced", 503, "fenced"),
        ("damaged", 503, "store_damaged"),
        ("definition", 422, "definition"),
        ("bug", 500, "internal"),
        ("slow", 504, "timeout"),
        ("timeout", 500, "internal"),
    ],
)
async def test_errors_keep_their_shape(how: str, status: int, code: str) -> None:
    answer = await asking(timeout_s=0.2 if how == "slow" else 60).post(f"/fail/{how}")
    assert (answer.status, answer.error["code"]) == (status, code)
    assert b"secret" not in answer.body
    if how == "conflict":
        assert answer.error == {
            "code": "conflict",
            "message": "The present state does not allow this: it runs",
            "where": "run 1",
            "hint": "wait",
        }
    if how == "full":
        assert answer.headers["retry-after"] == "1"
    if how == "definition":
        assert answer.error["problems"] == [{"path": "-1/3", "message": "unknown block", "hint": "did you mean IfBp?"}]


async def test_slow_bodies_time_out() -> None:
    client = asking(timeout_s=0.2)

    async def receive() -> Any:
        await asyncio.sleep(60)

    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {
        "type": "http",
        "method": "POST",
        "path": "/things",
        "raw_path": b"/things",
        "root_path": "",
        "query_string": b"",
        "headers": [(b"content-type", b"application/json")],
        "state": client.state,
    }
    await client.app(scope, receive, send)
    assert sent[0]["status"] == 408
