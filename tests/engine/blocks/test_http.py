"""The HTTP family against real servers: answers of all kinds, failures of all kinds, tries, and recovery."""

from __future__ import annotations

import asyncio
import socket
import sys
import textwrap
from collections.abc import AsyncIterator
from pathlib import Path
from time import time
from typing import Any

import pytest

from flatwater.engine.blocks.http import encoded, fields
from flatwater.engine.web import shown_url
from flatwater.errors import RunError
from flatwater.store import log as logs
from flatwater.store import run as runs
from flatwater.store import step as steps
from flatwater.store.state import State
from tests.engine.blocks.conftest import Bench, Open, eventually
from tests.engine.blocks.upstream import Upstream, serve
from tests.engine.plan import b, plan

ROOT = Path(__file__).parents[3]


@pytest.fixture
async def upstream() -> AsyncIterator[Upstream]:
    async with serve() as upstream:
        yield upstream


async def ask(bench: Bench, url: str, kind: str = "GetBp", **params: Any) -> dict[str, Any]:
    outputs = await bench.outputs(b(1, kind, {"url": url, **params}), outputs={"r": "blocks.b1"}, label="ask")
    return dict(outputs["r"])


async def refused(bench: Bench, url: str, kind: str = "GetBp", **params: Any) -> str:
    return await bench.error(b(1, kind, {"url": url, **params}), label="ask")


# ---- answers ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["GetBp", "HttpGetBp"])
async def test_get_sends_query_and_headers_and_reads_json(bench: Bench, upstream: Upstream, kind: str) -> None:
    params = {"header": {"X-Plant": "hall", "X-N": 5}, "param": {"q": "a b&c", "n": 3}}
    answer = await ask(bench, f"{upstream.url}/echo?fixed=1", kind, **params)
    assert answer["status"] == 200
    got = answer["response"]
    assert got["query"] == {"fixed": "1", "q": "a b&c", "n": "3"}
    assert (got["headers"]["X-Plant"], got["headers"]["X-N"]) == ("hall", "5")
    assert "Idempotency-Key" not in got["headers"]


@pytest.mark.parametrize("kind", ["PostBp", "HttpPostBp"])
async def test_post_sends_json_with_the_order_id_as_key(bench: Bench, upstream: Upstream, kind: str) -> None:
    run_id = await bench.submit(
        b(1, kind, {"url": f"{upstream.url}/echo", "param": '={"sku": taskInputs.x}'}),
        inputs={"x": 7},
        outputs={"r": "blocks.b1.response"},
    )
    got = (await bench.engine.result(run_id, 60)).outputs["r"]
    assert (got["method"], got["body"]) == ("POST", '{"sku":7}')
    assert got["headers"]["Content-Type"] == "application/json"
    [step] = (await bench.store.read(steps.load, [run_id]))[run_id]
    assert got["headers"]["Idempotency-Key"] == step.order_id
    assert len(step.order_id) == 26


async def test_post_sends_text_and_forms_and_the_users_own_key(bench: Bench, upstream: Upstream) -> None:
    url = f"{upstream.url}/echo"
    sent = await ask(bench, url, "PostBp", param="<a/>", mediaType="text/xml", header={"idempotency-key": "mine"})
    assert (sent["response"]["body"], sent["response"]["headers"]["Content-Type"]) == ("<a/>", "text/xml")
    assert [v for k, v in sent["response"]["headers"].items() if k.lower() == "idempotency-key"] == ["mine"]
    form = await ask(bench, url, "PostBp", param={"a": "1 2"}, mediaType="application/x-www-form-urlencoded")
    assert form["response"]["body"] == "a=1+2"


async def test_key_value_parameters(bench: Bench, upstream: Upstream) -> None:
    block = b(1, "GetBp", {"url": f"{upstream.url}/echo"})
    block["inputParams"]["param"] = {"type": "Key-Value", "value": '[["x", "=taskInputs.n + 1", "Long"], ["y", "z"]]'}
    outputs = await bench.outputs(block, inputs={"n": 1}, outputs={"q": "blocks.b1.response.query"})
    assert outputs == {"q": {"x": "2", "y": "z"}}


async def test_text_is_read_in_its_charset(bench: Bench, upstream: Upstream) -> None:
    assert (await ask(bench, f"{upstream.url}/text"))["response"] == "grüß"


async def test_runs_share_no_cookies(bench: Bench, upstream: Upstream) -> None:
    for _ in range(2):
        assert (await ask(bench, f"{upstream.url}/cookie"))["response"] == {}


async def test_connections_are_kept_and_shown(bench: Bench, upstream: Upstream) -> None:
    web = bench.engine.services.web
    assert web.statistics().size == 0
    for _ in range(5):
        await ask(bench, f"{upstream.url}/text")
    statistics = web.statistics()
    assert (statistics.size, statistics.calls, statistics.failed) == (1, 5, 0)


# ---- failures ---------------------------------------------------------------------------------------


async def test_a_status_beyond_200_fails_unless_told_otherwise(bench: Bench, upstream: Upstream) -> None:
    error = await refused(bench, f"{upstream.url}/status/404")
    assert "status 404 Not Found: because I say so" in error
    assert f"[{upstream.url}/status/404]" in error
    answer = await ask(bench, f"{upstream.url}/status/404", failOnStatus=False)
    assert answer == {"response": "because I say so", "status": 404}


@pytest.mark.parametrize(
    ("path", "cause"),
    [
        ("short", "the answer ended too early"),
        ("chunk", "the answer ended too early"),
        ("garbage", "the answer is not HTTP"),
        ("silent", "the server closed the connection"),
        ("reset", "no connection: Connection reset by peer"),
    ],
)
async def test_broken_answers(bench: Bench, upstream: Upstream, path: str, cause: str) -> None:
    assert cause in await refused(bench, f"{upstream.raw_url}/{path}")


@pytest.mark.parametrize("path", ["slow", "trickle"])
async def test_the_time_limit_covers_the_whole_answer(bench: Bench, upstream: Upstream, path: str) -> None:
    assert "no complete answer within 0.2 s" in await refused(bench, f"{upstream.url}/{path}", timeout=200)


async def test_nobody_listens(bench: Bench) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    error = await refused(bench, f"http://user:secret@127.0.0.1:{port}/x?token=secret")
    assert "no connection" in error
    assert f"http://127.0.0.1:{port}/x" in error
    assert "secret" not in error


async def test_an_answer_is_bounded_after_it_is_unpacked(open_bench: Open, upstream: Upstream) -> None:
    async with open_bench(max_response_bytes=2 * 1024 * 1024) as bench:
        assert len((await ask(bench, f"{upstream.url}/huge?mib=2"))["response"]) == 2 * 1024 * 1024
        error = await refused(bench, f"{upstream.url}/huge?mib=30")
        assert "larger than max_response_bytes (2,097,152)" in error
        assert bench.engine.services.web.statistics().received_bytes < 12 * 1024 * 1024


async def test_redirects_are_limited(bench: Bench, upstream: Upstream) -> None:
    assert (await ask(bench, f"{upstream.url}/loop/3"))["response"] == "grüß"
    assert "too many redirects" in await refused(bench, f"{upstream.url}/loop/50")
    assert "redirected to an address that cannot be called" in await refused(bench, f"{upstream.url}/away")


@pytest.mark.parametrize(
    ("url", "cause"),
    [
        ("ftp://host/file", "the scheme 'ftp' cannot be called"),
        ("file:///etc/passwd", "the scheme 'file' cannot be called"),
        ("localhost/x", "the URL has no scheme"),
        ("http://", "the URL names no host"),
        ("http://host:99999/", "this is no URL"),
        ("http://[::1/", "this is no URL"),
        ("http://127.0.0.1:1/\x00", ""),
    ],
)
async def test_urls_that_cannot_be_called(bench: Bench, url: str, cause: str) -> None:
    assert cause in await refused(bench, url)


@pytest.mark.parametrize(
    ("params", "cause"),
    [
        ({"header": "not json"}, "header is not JSON"),
        ({"header": "=[1]"}, "header is not a JSON object"),
        ({"header": {"X": "a\r\nY: b"}}, "the request cannot be sent"),
        ({"param": "a=b"}, "param is not JSON"),
    ],
)
async def test_bad_parameters(bench: Bench, upstream: Upstream, params: dict[str, Any], cause: str) -> None:
    assert cause in await refused(bench, f"{upstream.url}/echo", **params)


# ---- tries ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["GetBp", "PostBp"])
async def test_tries_until_there_is_an_answer(bench: Bench, upstream: Upstream, kind: str) -> None:
    upstream.failures = 2
    again = {"retry": True, "retryTimes": 3, "retryInterval": 20}
    run_id = await bench.submit(b(1, kind, {"url": f"{upstream.url}/flaky", **again}), outputs={"r": "blocks.b1"})
    assert (await bench.engine.result(run_id, 60)).outputs == {"r": {"response": [1], "status": 200}}
    assert len(upstream.seen) == 3
    assert len(set(upstream.seen)) == 1  # the same order, whatever the try
    assert await bench.waiters() == []
    lines = [line.message for line in await bench.store.read(logs.page, run_id)]
    assert any(line.startswith("try 1 of 4: ") and "status 503" in line for line in lines)


async def test_the_number_of_tries_is_kept_while_the_run_is_out_of_memory(open_bench: Open, upstream: Upstream) -> None:
    upstream.failures = 100
    again = {"retry": True, "retryTimes": 3, "retryInterval": 300}
    async with open_bench(park_after_s=0.02) as bench:
        began = time()
        run_id = await bench.submit(b(1, "PostBp", {"url": f"{upstream.url}/flaky", **again}))
        assert "try 2 of 4 of POST" in (await bench.until(run_id, State.WAITING)).wait
    async with open_bench(park_after_s=0.02) as bench:
        result = await bench.engine.result(run_id, 60)
        assert result.state == State.FAILED
        assert "status 503" in result.error
        assert len(upstream.seen) == 4
        assert len(set(upstream.seen)) == 1
        assert time() - began > 0.9


async def test_what_cannot_get_better_is_not_tried_again(bench: Bench, upstream: Upstream) -> None:
    error = await refused(bench, f"{upstream.url}/status/404", retry=True, retryInterval=10)
    assert "status 404" in error
    assert len(upstream.seen) == 1


# ---- recovery ---------------------------------------------------------------------------------------


KILLED = """
import asyncio, sys
from flatwater.engine.engine import Engine
from flatwater.store import Store

async def main(database, run_definition):
    async with Store.open(database) as store, Engine(store) as engine:
        await engine.submit(run_definition, idempotency_key="the run")
        await asyncio.sleep(60)

asyncio.run(main(*sys.argv[1:]))
"""


@pytest.mark.parametrize(("recovery", "decision"), [(None, "resume"), (None, "retry"), ("rerun", None)])
async def test_a_post_that_was_under_way_at_a_kill(
    open_bench: Open, upstream: Upstream, tmp_path: Path, recovery: str | None, decision: str | None
) -> None:
    extra = {} if recovery is None else {"recovery": recovery}
    block = b(1, "PostBp", {"url": f"{upstream.url}/slow"}, **extra)
    async with open_bench() as bench:
        await bench.engine.save(plan("killed", block, outputs={"r": "blocks.b1.response"}), "killed")
    command = [sys.executable, "-c", textwrap.dedent(KILLED), f"sqlite:///{tmp_path}/flatwater.db", "killed"]
    process = await asyncio.create_subprocess_exec(*command, cwd=ROOT)
    try:
        await eventually(lambda: asyncio.sleep(0, upstream.seen), 20)
    finally:
        process.kill()
        await process.wait()
    async with open_bench() as bench:
        run_id = str(await bench.store.read(runs.find, "the run"))
        if decision is not None:
            row = await bench.until(run_id, State.NEEDS_OPERATOR)
            assert upstream.seen[0] in row.wait
            assert len(upstream.seen) == 1
        upstream.release.set()
        if decision is not None:
            await getattr(bench.engine, decision)(run_id)
        result = await bench.engine.result(run_id, 60)
    assert result.state == State.SUCCEEDED
    assert result.outputs == {"r": None if decision == "resume" else "late"}


# ---- parts ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("http://a.b/c?d=e#f", "http://a.b/c?…"),
        ("https://user:pw@a.b:8443/c", "https://a.b:8443/c"),
        ("http://u:p@[::1", "[::1"),
    ],
)
def test_urls_are_shown_without_secrets(url: str, shown: str) -> None:
    assert shown_url(url) == shown


def test_fields_and_bodies() -> None:
    assert fields('{"a": 1, "b": true, "c": null, "d": [1]}', "header") == {"a": "1", "b": "true", "d": "[1]"}
    assert fields(None, "header") == {}
    assert encoded(None, "application/json") is None
    assert encoded("as it is", "application/json") == b"as it is"
    assert encoded([1, "x"], "application/json") == b'[1,"x"]'
    with pytest.raises(RunError):
        fields(5, "header")
