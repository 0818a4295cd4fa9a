"""Tokens, host names, origins and headers."""

from __future__ import annotations

from typing import Any

import pytest
from tests.server.client import Client

from flatwater.listener.address import is_loopback
from flatwater.server.auth import Guard, token_for
from flatwater.server.reply import answer

TOKEN = "s3cret-token"


async def app(scope: Any, receive: Any, send: Any) -> None:
    await answer(send, 200, b"through", {"content-type": "text/plain"})


def guarded(*, token: str = "", loopback: bool = True, hosts: tuple[str, ...] = ()) -> Client:
    return Client(Guard(app, token=token, diagnostic_token="diagnose", loopback=loopback, hosts=hosts))


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.8.8", "::1", "localhost"])
def test_loopback_needs_no_token(host: str) -> None:
    assert is_loopback(host)
    assert token_for(host, "") == ""
    assert token_for(host, "mine") == "mine"


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "10.0.0.1", "example.org"])
def test_other_addresses_get_a_token(host: str) -> None:
    assert not is_loopback(host)
    assert len(token_for(host, "")) >= 32
    assert token_for(host, "") != token_for(host, "")


@pytest.mark.parametrize("host", ["127.0.0.1:8350", "localhost", "LOCALHOST.:8350", "[::1]:8350", "proxy.example:1"])
async def test_known_hosts_pass(host: str) -> None:
    assert (await guarded(hosts=("Proxy.Example",)).get("/", headers={"host": host})).status == 200


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1.evil.example", "", None, "[::2]"])
async def test_rebound_hosts_are_refused(host: str | None) -> None:
    answer = await guarded().get("/api/runs", headers={"host": host})
    assert answer.status == 403
    assert answer.error["code"] == "host"
    assert "allowed_hosts" in answer.error["hint"]


async def test_any_host_passes_with_a_token_off_loopback() -> None:
    client = guarded(token=TOKEN, loopback=False)
    assert (
        await client.get("/api/runs", headers={"host": "any.example", "authorization": f"Bearer {TOKEN}"})
    ).status == 200


WRONG = [
    {},
    {"authorization": "Bearer wrong"},
    {"authorization": f"Basic {TOKEN}"},
    {"authorization": TOKEN},
    {"authorization": "Bearer \xe9"},
    {"authorization": "Bearer "},
    {"cookie": "flatwater_token=x"},
    {"cookie": '=;;;"'},
]


@pytest.mark.parametrize("headers", WRONG)
async def test_without_the_token_nothing_is_told(headers: dict[str, str]) -> None:
    for path in ("/api/runs", "/api/stream", "/metrics", "/openapi.json", "/api/info"):
        answer = await guarded(token=TOKEN).get(path, headers=headers)
        assert answer.status == 401, path
        assert answer.headers["WWW-Authenticate".lower()].startswith("Bearer")
        assert TOKEN not in answer.body.decode()


@pytest.mark.parametrize("path", ["/livez", "/readyz", "/", "/assets/app.js"])
async def test_health_and_the_pages_files_need_no_token(path: str) -> None:
    assert (await guarded(token=TOKEN).get(path)).status == 200


async def test_bearer_and_cookie_are_taken_everywhere_the_query_only_by_the_stream() -> None:
    client = guarded(token=TOKEN)
    assert (await client.get("/api/runs", headers={"authorization": f"bearer {TOKEN}"})).status == 200
    assert (await client.get("/api/runs", headers={"cookie": f"a=b; flatwater_token={TOKEN}"})).status == 200
    assert (await client.get(f"/api/stream?token={TOKEN}")).status == 200
    assert (await client.get(f"/api/runs?token={TOKEN}")).status == 401


async def test_the_page_swaps_its_token_for_a_cookie() -> None:
    answer = await guarded(token=TOKEN).get(f"/?token={TOKEN}&tab=runs")
    assert (answer.status, answer.headers["location"]) == (303, "/?tab=runs")
    cookie = answer.headers["set-cookie"]
    assert cookie.startswith(f"flatwater_token={TOKEN};")
    assert "HttpOnly" in cookie
    assert "SameSite=Strict" in cookie
    assert "set-cookie" not in (await guarded(token=TOKEN).get("/?token=wrong")).headers


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 200),
        ({"origin": "http://127.0.0.1:8350"}, 200),
        ({"origin": "http://evil.example"}, 403),
        ({"origin": "null"}, 403),
        ({"origin": "http://[::1"}, 403),
        ({"origin": "http://127.0.0.1:9999"}, 403),
        ({"origin": "https://proxy.example"}, 200),
        ({"sec-fetch-site": "cross-site"}, 403),
        ({"sec-fetch-site": "same-site"}, 403),
        ({"sec-fetch-site": "same-origin"}, 200),
    ],
)
async def test_other_sites_may_not_change_anything(headers: dict[str, str], status: int) -> None:
    client = guarded(hosts=("proxy.example",))
    assert (await client.get("/api/start-task/1/2", headers=headers)).status == status
    assert (await client.post("/api/runs", headers=headers)).status == status
    assert (await client.get("/api/runs", headers=headers)).status == 200


async def test_security_headers() -> None:
    page = (await guarded().get("/")).headers
    assert "script-src 'self'" in page["content-security-policy"]
    assert "unsafe" not in page["content-security-policy"]
    assert page["x-content-type-options"] == "nosniff"
    api = (await guarded().get("/api/runs")).headers
    assert api["content-security-policy"].startswith("default-src 'none'")
    assert api["cache-control"] == "no-store"
    assert "access-control-allow-origin" not in api


async def test_endless_addresses_are_refused() -> None:
    assert (await guarded().get("/api/runs?x=" + "a" * 20_000)).status == 414


@pytest.mark.parametrize("token", ["", "secret"])
async def test_the_instruments_need_a_token_always(token: str) -> None:
    client = guarded(token=token)
    for path in ("/api/memory", "/api/memory/heap", "/api/guard", "/api/guard/1/release"):
        assert (await client.get(path)).status == 401
        assert (await client.get(path, headers={"authorization": "Bearer wrong"})).status == 401
        assert (await client.get(path, headers={"authorization": f"Bearer {token}"})).status == 401
        assert (await client.get(path, headers={"authorization": "Bearer diagnose"})).status == 200
    assert (await client.get("/api/info", headers={"authorization": "Bearer diagnose"})).status == 200
    answer = await client.get("/?token=diagnose")
    assert answer.status == 303
    assert "flatwater_token=diagnose" in answer.headers["set-cookie"]
