"""The listener for operators: health, metrics, statistics; behind a token or a loopback name."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.gateway.origin import OK, Origin, config, gate, origin
from tests.server.client import Client

from flatwater.bounded import Ledger
from flatwater.gateway import Config, ConfigError, Endpoint, Gateway, Service, parse
from flatwater.gateway.admin import MAX_BODY_BYTES, Admin, view
from flatwater.gateway.cache import cache_key
from flatwater.gateway.purge import Purge, matcher
from flatwater.gateway.reload import reload


@pytest.fixture
async def gateway() -> AsyncIterator[Gateway]:
    services = {"shop": Service(endpoints=(Endpoint("http://127.0.0.1:9"),), path="/shop")}
    async with Gateway(Config(services=services), ledger=Ledger()) as found:
        yield found


async def test_a_refused_request_in_every_figure(gateway: Gateway) -> None:
    answer = await Client(gateway.app).get("/shop/cart")
    assert answer.status in (502, 503)
    desk = Client(Admin(gateway))
    seen = (await desk.get("/api/gateway")).json
    assert seen["history"][0]["target"] == "/shop/cart"
    assert seen["history"][0]["service"] == "shop"
    assert seen["statistics"]["services"][0]["requests"] == 1
    metrics = (await desk.get("/metrics")).body.decode()
    assert 'flatwater_gateway_answers_total{class="5xx",service="shop"} 1.0' in metrics
    assert 'flatwater_gateway_endpoint_failures_total{endpoint="http://127.0.0.1:9",service="shop"}' in metrics
    assert len(view(gateway, limit=1).history) == 1


async def test_health_follows_the_drain(gateway: Gateway) -> None:
    desk = Client(Admin(gateway))
    assert (await desk.get("/livez")).status == 200
    assert (await desk.get("/readyz")).status == 200
    await gateway.drain(1.0)
    assert (await desk.get("/livez")).status == 200
    assert (await desk.get("/readyz")).status == 503


@pytest.mark.parametrize("path", ["/metrics", "/api/gateway"])
async def test_who_may_ask(gateway: Gateway, path: str) -> None:
    desk = Client(Admin(gateway))
    assert (await desk.get(path, headers={"host": "rebound.example"})).status == 403
    assert (await desk.get(path, headers={"host": "[::1]:1"})).status == 200
    locked = Client(Admin(gateway, token="secret"))
    assert (await locked.get(path)).status == 401
    assert (await locked.get(path, headers={"authorization": "Bearer wrong"})).status == 401
    assert (await locked.get(path, headers={"authorization": "Bearer secret", "host": "any"})).status == 200


async def test_nothing_else(gateway: Gateway) -> None:
    desk = Client(Admin(gateway))
    assert (await desk.get("/")).status == 404
    assert (await desk.post("/")).status == 404
    assert (await desk.post("/metrics")).status == 405
    assert (await desk.get("/api/gateway/purge")).status == 405
    assert (await desk.ask("PUT", "/api/gateway/purge", json={})).status == 405


def test_off_loopback_a_token_is_needed() -> None:
    with pytest.raises(ConfigError, match=r"admin\.token"):
        parse('[admin]\nhost = "0.0.0.0"\nport = 1\n[services.a]\nendpoints = ["http://127.0.0.1:1"]\n')


CACHED = "cache = { enabled = true, default_fresh_s = 600.0 }"
VARIED = OK.replace(b"\r\n\r\n", b"\r\nvary: accept-language\r\n\r\n")


@pytest.mark.parametrize(
    ("wanted", "gone"),
    [
        ({"all": True}, {"/api/", "/api/a?x=1", "/api/a/b"}),
        ({"all": True, "service": "api"}, {"/api/", "/api/a?x=1", "/api/a/b"}),
        ({"url": "http://gate/api/a?x=1"}, {"/api/a?x=1"}),
        ({"url": "https://gate/api/a?x=1"}, set()),
        ({"url": "/api/a"}, set()),
        ({"prefix": "//gate/api/a"}, {"/api/a?x=1", "/api/a/b"}),
        ({"prefix": "/api/a/"}, {"/api/a/b"}),
    ],
)
@pytest.mark.parametrize("answer", [OK, VARIED])
async def test_purge(wanted: dict[str, Any], gone: set[str], answer: bytes, ledger: Ledger) -> None:
    paths = ["/api/", "/api/a?x=1", "/api/a/b"]
    async with origin(answer) as upstream, gate(config(upstream.port, CACHED), ledger) as front:
        for path in [*paths, *paths]:
            await front.get(path)
        assert len(upstream.heads) == len(paths), "the second time from the cache"
        desk = Client(Admin(front.gateway))
        told = await desk.post("/api/gateway/purge", json=wanted)
        assert told.status == 200
        assert (told.json["purged"] > 0) == bool(gone)
        upstream.heads.clear()
        for path in paths:
            await front.get(path)
        asked = {head.split()[1].decode() for head in upstream.heads}
        assert asked == {path.removeprefix("/api") for path in gone}
        await front.at_rest()


async def test_what_is_on_its_way_in_is_purged_too(ledger: Ledger) -> None:
    release = asyncio.Event()

    async def slow(origin: Origin, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            await origin.request(reader)
            await release.wait()
            writer.write(OK)

    async with origin(slow) as upstream, gate(config(upstream.port, CACHED), ledger) as front:
        asking = asyncio.gather(front.get(), front.get())
        async with asyncio.timeout(60):
            while not upstream.heads:
                await asyncio.sleep(0.005)
        await Client(Admin(front.gateway)).post("/api/gateway/purge", json={"prefix": "/api/"})
        release.set()
        assert [reply.status for reply in await asking] == [200, 200]
        upstream.heads.clear()
        await front.get()
        assert upstream.heads, "the answer from before the purge is not kept"
        await front.at_rest()


places = st.tuples(
    st.sampled_from(["http", "https"]),
    st.sampled_from(["a", "a:80", "a:443", "B.example"]),
    st.sampled_from(["/", "/x", "/x/y", "/x?q=1", "/x?", "/x%20"]),
)


@given(places, places, st.sampled_from(["shop", "news"]), st.sampled_from(["", "shop"]))
def test_what_a_purge_means(
    stored: tuple[str, str, str], meant: tuple[str, str, str], owner: str, service: str
) -> None:
    """A URL means exactly its key, a prefix all that begin with it; without scheme and host, those of any."""

    def key(place: tuple[str, str, str]) -> bytes:
        return cache_key(place[0].encode(), place[1].encode(), place[2].encode(), owner.encode())

    def means(**given: Any) -> bool:
        return matcher(Purge(service=service, **given))(key(stored))

    ours = service in ("", owner)
    scheme, host, target = meant
    assert means(url=f"{scheme}://{host}{target}") == (ours and key(meant) == key(stored))
    assert means(prefix=f"{scheme}://{host}{target}") == (ours and key(stored).startswith(key(meant)))
    assert means(url=target) == (ours and stored[2] == target)
    assert means(prefix=target) == (ours and stored[2].startswith(target))
    assert means(all=True) == ours


async def test_an_endpoint_out_of_rotation(ledger: Ledger, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """It gets nothing, whatever its checks say, also after a reload that changes its service; then it is back."""
    file = tmp_path / "gateway.toml"
    async with origin(OK) as first, origin(OK) as second:
        urls = [f"http://127.0.0.1:{each.port}" for each in (first, second)]
        text = f'[services.api]\nendpoints = {urls}\nbalance = "round_robin"\n'
        file.write_text(text)
        async with gate(parse(text), ledger) as front:
            desk = Client(Admin(front.gateway, reload=lambda: reload(front.gateway, file)))
            wanted = {"service": "api", "endpoint": urls[0], "out": True}
            with caplog.at_level(logging.WARNING):
                assert (await desk.post("/api/gateway/rotation", json=wanted)).json == {"changed": True, "up": 1}
            record = next(record for record in caplog.records if vars(record).get("audit") == "rotation")
            assert f"operator at 127.0.0.1: rotation {urls[0]} of api is out" in record.getMessage()
            assert (await desk.post("/api/gateway/rotation", json=wanted)).json == {"changed": False, "up": 1}
            assert {(await front.get()).status for _ in range(6)} == {200}
            file.write_text(text + "max_body_bytes = 1\n")
            assert (await desk.post("/api/gateway/reload", json={})).json == {"restart": []}
            assert {(await front.get()).status for _ in range(6)} == {200}
            assert not first.heads
            states = [endpoint.state for endpoint in front.gateway.statistics().services[0].endpoints]
            assert states == ["out", "up"]
            metrics = (await desk.get("/metrics")).body.decode()
            assert f'flatwater_gateway_endpoint_up{{endpoint="{urls[0]}",service="api"}} 0.0' in metrics
            assert (await desk.post("/api/gateway/rotation", json={**wanted, "out": False})).json["up"] == 2
            assert {(await front.get()).status for _ in range(6)} == {200}
            assert first.heads
            for wrong in ({**wanted, "service": "b"}, {**wanted, "endpoint": "http://127.0.0.1:1"}):
                assert (await desk.post("/api/gateway/rotation", json=wrong)).status == 404
            await front.at_rest()


async def test_a_refused_reload_says_why(gateway: Gateway, tmp_path: Path) -> None:
    file = tmp_path / "gateway.toml"
    file.write_text("[services.shop]\nendpoints = []\n")
    desk = Client(Admin(gateway, reload=lambda: reload(gateway, file)))
    told = await desk.post("/api/gateway/reload", json={})
    assert told.status == 422
    assert f"{file}:2" in told.json["error"]
    assert (await Client(Admin(gateway)).post("/api/gateway/reload", json={})).status == 409


@pytest.mark.parametrize("path", ["/api/gateway/purge", "/api/gateway/rotation", "/api/gateway/reload"])
async def test_who_may_act(gateway: Gateway, path: str) -> None:
    done: list[str] = []

    def load() -> Any:
        done.append(path)
        return reload(gateway, Path("/nowhere"))

    desk = Client(Admin(gateway, reload=load))
    act: Callable[..., Any] = desk.post
    assert (await act(path, json={}, headers={"host": "rebound.example"})).status == 403
    assert (await act(path, body=b"{}", headers={"content-type": "text/plain"})).status == 415, "a form of another site"
    assert (await act(path, body=b"{}", headers={"content-type": None})).status == 415
    assert (await act(path, body=b" " * (MAX_BODY_BYTES + 1))).status == 413
    locked = Client(Admin(gateway, token="secret", reload=load))
    assert (await locked.post(path, json={})).status == 401
    assert not done
    if path.endswith("reload"):
        return
    for wrong in (b"", b"[]", b"{", b"{}", b'{"all": true, "more": 1}', b'{"all": true, "prefix": "/x"}'):
        assert (await act(path, body=wrong)).status == 400, wrong
