"""The page's files, and nothing else, are served."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.server.client import Client

from flatwater.server.page import Page


@pytest.fixture
def client(tmp_path: Path) -> Client:
    root = tmp_path / "static"
    (root / "assets").mkdir(parents=True)
    (root / "index.html").write_text("<title>Flatwater</title>")
    (root / "assets" / "app-1a2b.js").write_text("1")
    (tmp_path / "secret.txt").write_text("secret")
    return Client(Page(root))


async def test_index_and_assets(client: Client) -> None:
    for path in ("/", "/index.html"):
        answer = await client.get(path)
        assert answer.body == b"<title>Flatwater</title>"
        assert answer.headers["content-type"] == "text/html; charset=utf-8"
        assert answer.headers["cache-control"] == "no-cache"
    script = await client.get("/assets/app-1a2b.js")
    assert script.headers["content-type"] in ("text/javascript; charset=utf-8", "application/javascript; charset=utf-8")
    assert "immutable" in script.headers["cache-control"]


async def test_unchanged_files_are_not_sent_again(client: Client) -> None:
    tag = (await client.get("/")).headers["etag"]
    answer = await client.get("/", headers={"if-none-match": tag})
    assert (answer.status, answer.body) == (304, b"")


@pytest.mark.parametrize(
    "path", ["/secret.txt", "/../secret.txt", "/assets/../../secret.txt", "/assets", "/%2e%2e/secret.txt", "//"]
)
async def test_nothing_else_is_served(client: Client, path: str) -> None:
    answer = await client.get(path)
    assert answer.status == 404
    assert answer.error["code"] == "not_found"


async def test_methods(client: Client) -> None:
    assert (await client.post("/")).status == 405
    assert (await client.post("/nothing")).status == 404


async def test_without_a_built_page(tmp_path: Path) -> None:
    answer = await Client(Page(tmp_path / "none")).get("/")
    assert (answer.status, answer.headers["content-type"]) == (404, "text/plain; charset=utf-8")
    assert b"make ui" in answer.body
