"""The listener for operators: health, metrics, statistics; behind a token or a loopback name."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from tests.server.client import Client

from flatwater.bounded import Ledger
from flatwater.gateway import Config, ConfigError, Endpoint, Gateway, Service, parse
from flatwater.gateway.admin import Admin, view


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
    assert (await desk.post("/metrics")).status == 405


def test_off_loopback_a_token_is_needed() -> None:
    with pytest.raises(ConfigError, match=r"admin\.token"):
        parse('[admin]\nhost = "0.0.0.0"\nport = 1\n[services.a]\nendpoints = ["http://127.0.0.1:1"]\n')
