"""The page's view of guarded workers: a real Huey consumer under ``flatwater guard``, seen through a real server."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, expect, sync_playwright
from tests.guard.consumer import Consumer, consuming
from tests.guard.guarding import GUARD
from tests.server.browser import (
    ARGUMENTS,
    CHROMIUM,
    DIAGNOSTIC_TOKEN,
    OVERFLOW,
    PATIENCE_MS,
    POOR_CONTRAST,
    Desk,
    Server,
)

from flatwater.guard.record import Record
from flatwater.server.page import STATIC

PICTURES = Path(__file__).parents[2] / "ui" / "test-results"

pytestmark = [
    # Playwright's loop keeps the threads of its executor until the module ends.
    pytest.mark.may_leave("thread"),
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium found: make browser installs it"),
    pytest.mark.skipif(not (STATIC / "index.html").exists(), reason="the page is not built: make ui builds it"),
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Where this server and its guard keep their temporary files: guards of other tests are not seen."""
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("guard")
        patch.setenv("TMPDIR", str(folder))
        yield folder


@pytest.fixture(scope="module")
def consumer(folder: Path) -> Iterator[Consumer]:
    """It has been recycled, and a task of it was killed and is quarantined."""
    words = ["--record", str(folder / "guard.db"), "--soft", "90MiB", "--hard", "180MiB", "--quarantine", "1", "--"]
    consumer = Consumer(folder, str(folder / "huey.db"), "thread", 1, *GUARD, *words)
    mixed = "tasks.grow(number, 1024, 0.02) if number * 7919 % 1000 < 600 else tasks.nothing(number)"
    consumer.call(f"for number in range(120): {mixed}")
    with consuming(consumer):
        consumer.wait(lambda: len(consumer.rows()) >= 120)
        consumer.call("tasks.eat(300)")
        consumer.wait(lambda: "is quarantined" in consumer.log.read_text())
        yield consumer


@pytest.fixture(scope="module")
def server(folder: Path) -> Iterator[Server]:
    server = Server(folder)
    try:
        server.start()
        yield server
    finally:
        server.kill()


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    expect.set_options(timeout=PATIENCE_MS)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        yield browser
        browser.close()


def test_workers_tasks_ends_and_the_release_of_a_task(browser: Browser, server: Server, consumer: Consumer) -> None:
    desk = Desk(browser, server, trusted=False)
    desk.refusals.add(401)
    page = desk.open("guard")
    page.get_by_role("textbox", name="Token").fill(DIAGNOSTIC_TOKEN)
    page.keyboard.press("Enter")
    assert consumer.process is not None
    guard = page.locator(f'[data-guard="{consumer.process.pid}"]')
    expect(guard).to_contain_text("huey_inferior.huey")
    consumer.call("tasks.grow(999, 15 * 1024, 6.0)")
    expect(guard.locator("[data-worker] .mono")).to_have_text("grow")
    expect(guard.locator("[data-worker] .meter")).to_contain_text("of 189 MB")
    tasks = guard.locator("section", has_text="Grows per call")
    expect(tasks.locator("tbody tr").first).to_contain_text("grow")
    processes = guard.locator("section", has_text="After the last task").last
    expect(processes.locator("[data-process]")).to_have_count(1)
    expect(processes.locator("[data-process] td").last).to_contain_text(
        re.compile(r"[1-9]\d % above it.*malloc, in use")
    )
    ends = guard.locator("section", has_text="Place empty")
    expect(ends).to_contain_text("recycled: ")
    expect(ends).to_contain_text("killed by the guard: hard limit")
    picture(desk, "guard")
    guard.locator("[data-release]").click()
    expect(page.locator(".notice.ok")).to_contain_text("may run again")
    expect(guard.locator("[data-release]")).to_have_count(0)
    with Record(Path(consumer.done.parent / "guard.db")) as record:
        assert record.quarantined() == []
    desk.context.close()
    assert desk.complaints == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_view_is_readable(browser: Browser, server: Server, consumer: Consumer, scheme: Any) -> None:
    desk = Desk(browser, server, color_scheme=scheme, viewport={"width": 768, "height": 1024})
    page = desk.open("guard")
    expect(page.locator("[data-worker]")).to_be_visible()
    assert page.evaluate(POOR_CONTRAST) == []
    assert page.evaluate(OVERFLOW) <= 0
    picture(desk, f"{scheme}-768-guard")
    desk.context.close()
    assert desk.complaints == []


def picture(desk: Desk, name: str) -> None:
    PICTURES.mkdir(parents=True, exist_ok=True)
    desk.page.screenshot(path=PICTURES / f"{name}.png", full_page=True)
