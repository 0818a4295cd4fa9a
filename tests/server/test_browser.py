"""The page in headless Chromium against a real `flatwater serve --demo`: what an operator sees and clicks.

Pictures of every view, light and dark, are left in ui/test-results/.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.error import HTTPError

import pytest
from playwright.sync_api import Browser, expect, sync_playwright
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
from tests.server.harness import block, definition

from flatwater.server.page import STATIC

PICTURES = Path(__file__).parents[2] / "ui" / "test-results"
TOKEN = "a-token-for-the-page"

pytestmark = [
    # Playwright's loop keeps the threads of its executor until the module ends.
    pytest.mark.may_leave("thread"),
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium found: make browser installs it"),
    pytest.mark.skipif(not (STATIC / "index.html").exists(), reason="the page is not built: make ui builds it"),
]

SLEEPING = definition("page-sleeping", block(1, "PrintBp", message="asleep"), block(2, "DelayBp", timeMillis=600_000))
WAITING = definition("page-waiting", block(1, "GetIdleSiteBp", groupName="PAGE_NONE", filled=False, lock=True))
WATCHING = definition("page-watching", block(1, "GetIdleSiteBp", groupName="PAGE_NONE", filled=False))
FAILING = definition(
    "page-failing",
    block(1, "CreateUuidBp"),
    block(2, "SetSiteFilledBp", siteId="PAGE_LATE"),
    block(3, "TaskStateBp", stateMsg="done"),
)
LOOPING = definition(
    "page-looping", block(1, "RepeatNumBp", {"default": [block(2, "PrintBp", message="again")]}, num=30)
)
ASKING = definition(
    "page-asking",
    block(1, "TaskStateBp", stateMsg="=taskInputs.load"),
    inputParams=[
        {
            "name": "load",
            "type": "String",
            "label": "Load",
            "required": True,
            "defaultValue": "",
            "remark": "What to carry.",
        },
        {"name": "count", "type": "Long", "required": False, "defaultValue": "1", "remark": ""},
        {"name": "attrs", "type": "JSONObject", "required": False, "defaultValue": "", "remark": ""},
    ],
)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("page")
    server = Server(folder, "--demo")
    # Its own API is the service behind the gateway: a real upstream that is there.
    (folder / "gateway.toml").write_text(f'[services.self]\nendpoints = ["{server.url}"]\ncache.enabled = true\n')
    (folder / "flatwater.toml").write_text('[gateway]\nconfig = "gateway.toml"\n')
    try:
        server.start()
        for item in (SLEEPING, WAITING, WATCHING, FAILING, LOOPING, ASKING):
            server.call("POST", "/api/definitions", item)
        yield server
    finally:
        server.kill()


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        yield browser
        browser.close()


@pytest.fixture
def desk(browser: Browser, server: Server) -> Iterator[Desk]:
    desk = Desk(browser, server)
    yield desk
    desk.context.close()
    assert desk.complaints == []


@pytest.fixture(autouse=True, scope="module")
def _patience() -> None:
    expect.set_options(timeout=PATIENCE_MS)


def test_the_overview_answers(desk: Desk) -> None:
    page = desk.open()
    expect(page.locator(".page-note")).to_have_text("Ready: takes new runs.")
    expect(page.locator('[data-test="verdict"]')).to_have_text(
        re.compile(r"^\d+(\.\d)? MB, (measuring|settling|flat|growing|falling): ")
    )
    expect(page.locator(".link-state")).to_have_text("Live")
    for tile in page.locator(".tile-value").all():
        expect(tile).to_have_text(re.compile(r"^[\d,.]+$"))
    expect(page.locator(".chart canvas")).to_be_visible()
    expect(page.locator(".card", has_text="Bounded collections").locator(".meter").first).to_be_visible()


def test_a_run_is_found_in_the_list_and_its_tree_is_shown(desk: Desk, server: Server) -> None:
    run = server.submit("page-looping")
    server.in_state(run, "SUCCEEDED")
    page = desk.open("runs?definition=page-looping")
    row = page.locator(f'tr[data-run="{run}"]')
    expect(row.locator(".badge")).to_have_text("succeeded")
    row.locator("a").click()
    expect(page).to_have_url(re.compile(f"#/runs/{run}"))
    expect(desk.badge()).to_have_text("succeeded")
    expect(page.locator('[data-test="sentence"]')).to_have_text(re.compile(r"Succeeded after \d"))
    expect(page.locator(".tree-row")).to_have_count(3)
    # 30 iterations are folded to one line; going back one shows another's block.
    assert page.locator(".tree-row").nth(2).get_attribute("data-path") == "-1/1[29]/2"
    page.get_by_label("Earlier iteration").click()
    assert page.locator(".tree-row").nth(2).get_attribute("data-path") == "-1/1[28]/2"
    page.locator(".tree-row").nth(2).click()
    expect(page.locator(".side .block-name")).to_contain_text("b2")
    expect(page.locator(".side")).to_contain_text("-1/1[28]/2")
    page.keyboard.press("ArrowUp")
    page.keyboard.press("Enter")
    expect(page.locator(".side .block-name")).to_contain_text("b1")


def test_a_running_run_is_canceled(desk: Desk, server: Server) -> None:
    run = server.submit("page-sleeping")
    page = desk.open(f"runs/{run}")
    expect(page.locator('.tree-row[data-path="-1/2"]')).to_have_attribute("data-state", re.compile("RUNNING|WAITING"))
    expect(page.locator('[data-action="resume"]')).to_be_disabled()
    expect(page.locator('[data-action="retry"]')).to_be_disabled()
    desk.click("cancel")
    page.get_by_role("button", name="Keep as it is").click()
    assert server.call("GET", f"/api/runs/{run}")["state"] != "CANCELED"
    desk.click("cancel")
    desk.confirm()
    expect(desk.badge()).to_have_text("canceled")
    assert server.in_state(run, "CANCELED")
    expect(page.locator('[data-action="cancel"]')).to_be_disabled()


def test_a_run_is_paused_and_resumed(desk: Desk, server: Server) -> None:
    run = server.submit("page-sleeping")
    server.in_state(run, "RUNNING", "WAITING")
    page = desk.open(f"runs/{run}")
    desk.click("pause")
    expect(desk.badge()).to_have_text("paused")
    assert server.in_state(run, "PAUSED")
    expect(page.locator('[data-test="sentence"]')).to_contain_text("Resume goes on where it stopped.")
    desk.click("resume")
    expect(desk.badge()).to_have_text(re.compile("running|waiting"))
    assert server.in_state(run, "RUNNING", "WAITING")
    server.call("POST", f"/api/runs/{run}/cancel")
    expect(desk.badge()).to_have_text("canceled")


def test_a_failed_run_is_retried_from_its_failed_block(desk: Desk, server: Server) -> None:
    run = server.submit("page-failing")
    server.in_state(run, "FAILED")
    page = desk.open(f"runs/{run}")
    expect(desk.badge()).to_have_text("failed")
    expect(page.locator(".error-line").first).to_contain_text("PAGE_LATE")
    page.locator(".error-line a").click()
    expect(page.locator('.tree-row[data-path="-1/2"]')).to_have_attribute("aria-selected", "true")
    before = server.call("GET", f"/api/runs/{run}/blocks")["steps"]
    server.call("PUT", "/api/sites", [{"id": "PAGE_LATE", "group": "PAGE"}])
    desk.click("retry")
    expect(desk.badge()).to_have_text("succeeded")
    after = server.call("GET", f"/api/runs/{run}/blocks")["steps"]
    first = [next(step["outputs"] for step in steps if step["path"] == "-1/1") for steps in (before, after)]
    assert first[0] == first[1], "the block that had succeeded ran again"


@pytest.mark.parametrize(("name", "places"), [("page-waiting", ("next", "2nd")), ("page-watching", ("next", "next"))])
def test_waiting_is_explained(desk: Desk, server: Server, name: str, places: tuple[str, str]) -> None:
    """Who only looks takes nothing from who comes after."""
    runs = [server.submit(name) for _ in places]
    for run in runs:
        server.in_state(run, "WAITING")
    for run, place in zip(runs, places, strict=True):
        page = desk.open(f"runs/{run}")
        said = re.compile(rf"^Waits for .*PAGE_NONE, {place} in the queue, since \d+ s")
        expect(page.locator('[data-test="sentence"]')).to_have_text(said)
        expect(page.locator(".tree-note")).to_contain_text("PAGE_NONE")
    for run in runs:
        server.call("POST", f"/api/runs/{run}/cancel")
        server.in_state(run, "CANCELED")


def test_the_list_is_live_and_acts_on_many(desk: Desk, server: Server) -> None:
    page = desk.open("runs?definition=page-sleeping&state=RUNNING,WAITING")
    page.mouse.move(5, 5)
    runs = [server.submit("page-sleeping") for _ in range(3)]
    for run in runs:
        expect(page.locator(f'tr[data-run="{run}"]')).to_be_visible()
    page.get_by_label("Select all shown runs").check()
    page.get_by_role("group", name="Act on the selected runs").get_by_role("button", name="Cancel").click()
    desk.confirm()
    for run in runs:
        server.in_state(run, "CANCELED")
    page.mouse.move(5, 5)
    for run in runs:
        expect(page.locator(f'tr[data-run="{run}"]')).to_have_count(0)


def test_older_pages_and_filters_by_state(desk: Desk, server: Server) -> None:
    for _ in range(55):
        server.submit("page-looping")
    page = desk.open("runs?definition=page-looping")
    expect(page.locator("tbody tr")).to_have_count(50)
    newest = page.locator("tbody tr").first.get_attribute("data-run")
    page.get_by_role("button", name="Older").click()
    expect(page.locator(".page-note")).to_contain_text("older page")
    expect(page.locator(f'tr[data-run="{newest}"]')).to_have_count(0)
    page.get_by_role("button", name="Newest").click()
    expect(page.locator("tbody tr")).to_have_count(50)
    page.get_by_role("button", name=re.compile("^failed")).click()
    expect(page.get_by_text("No run matches this filter.")).to_be_visible()
    expect(page).to_have_url(re.compile("state=FAILED"))


def test_a_run_is_started_from_a_generated_form(desk: Desk, server: Server) -> None:
    desk.refusals.add(422)
    page = desk.open("runs")
    page.get_by_role("button", name="Start a run").click()
    page.locator("#start-definition").select_option("page-asking")
    start = page.get_by_role("button", name="Start", exact=True)
    page.get_by_label("count").fill("many")
    page.get_by_label("Priority").fill("5000")
    start.click()
    expect(page.locator("#input-load-note")).to_have_text("is required")
    expect(page.locator("#input-count-note")).to_have_text("must be a whole number")
    page.get_by_label("Load").fill("SKU-1")
    page.get_by_label("count").fill("2")
    start.click()
    # This one is the server's: it knows the range of priorities.
    expect(page.locator("#how-priority-note")).to_have_attribute("data-error", "true")
    page.get_by_label("Priority").fill("7")
    start.click()
    expect(page).to_have_url(re.compile("#/runs/[0-9A-Z]{26}"))
    expect(desk.badge()).to_have_text("succeeded")
    run = server.call("GET", "/api/runs?definition=page-asking&limit=1")["items"][0]
    assert run["priority"] == 7
    page.get_by_role("button", name="Data").click()
    expect(page.locator(".side")).to_contain_text("SKU-1")


def test_a_site_is_changed_by_hand(desk: Desk, server: Server) -> None:
    server.call("PUT", "/api/sites", [{"id": "PAGE_HAND", "group": "PAGE", "filled": False}])
    page = desk.open("sites?map=groups")
    page.locator('[data-site="PAGE_HAND"]').click()
    expect(page.locator(".side h2")).to_have_text("PAGE_HAND")
    page.get_by_role("switch", name="Filled").click()
    page.get_by_role("button", name="Keep as it is").click()
    expect(page.get_by_role("switch", name="Filled")).not_to_be_checked()
    page.get_by_role("switch", name="Filled").click()
    desk.confirm()
    expect(page.locator('[data-site="PAGE_HAND"]')).to_have_attribute("data-filled", "true")
    page.get_by_role("switch", name="Enabled").click()
    desk.confirm()
    expect(page.locator('[data-site="PAGE_HAND"]')).to_have_attribute("data-enabled", "false")
    found = next(site for site in server.call("GET", "/api/sites?group=PAGE")["items"] if site["id"] == "PAGE_HAND")
    assert (found["filled"], found["enabled"]) == (True, False)
    expect(page.locator(".side .log li")).not_to_have_count(0)


def test_the_map_shows_the_demo_plant(desk: Desk, server: Server) -> None:
    page = desk.open("sites?map=groups")
    sites = server.call("GET", "/api/sites")["items"]
    lanes = {site["lane"] for site in sites if site["lane"]}
    assert lanes
    expect(page.locator(".lane")).to_have_count(len(lanes))
    expect(page.locator(".cell")).to_have_count(len(sites))
    expect(page.locator("tr[data-robot]")).to_have_count(len(server.call("GET", "/api/robots")["items"]))


def test_a_definition_is_checked_and_saved(desk: Desk, server: Server, tmp_path: Path) -> None:
    page = desk.open("definitions?tab=upload")
    file = tmp_path / "new.json"
    wrong = definition("page-new", block(1, "NoSuchBp"), block(2, "DelayBp", timeMillis=5))
    file.write_text(json.dumps(wrong))
    page.locator('input[type="file"]').set_input_files(file)
    expect(page.locator(".problems li").first).to_contain_text("NoSuchBp")
    expect(page.get_by_role("button", name="Save")).to_be_disabled()
    file.write_text(
        json.dumps(definition("page-new", block(1, "PrintBp", message="new"), block(2, "DelayBp", timeMillis=5)))
    )
    page.locator('input[type="file"]').set_input_files([])
    page.locator('input[type="file"]').set_input_files(file)
    expect(page.get_by_text(re.compile(r"^Good: \d+ blocks"))).to_be_visible()
    page.get_by_role("button", name="Save").click()
    expect(page).to_have_url(re.compile("#/definitions/page-new"))
    expect(page.locator(".preview")).to_contain_text("DelayBp")
    assert server.call("GET", "/api/definitions/page-new")["version"] == 1
    page.get_by_role("button", name="Delete").click()
    desk.confirm()
    expect(page.locator(".picks")).not_to_contain_text("page-new")


def test_the_palette_lists_the_blocks(desk: Desk) -> None:
    page = desk.open("definitions?tab=blocks")
    page.get_by_label("Search blocks").fill("getidlesite")
    page.get_by_text("GetIdleSiteBp", exact=True).click()
    expect(page.locator(".kind[open]")).to_contain_text("groupName")


def test_the_ledger_shows_bounds_of_server_and_page(desk: Desk, server: Server) -> None:
    page = desk.open("ledger")
    names = {item["name"] for item in server.call("GET", "/api/ledger")["items"]}
    assert names
    expect(page.locator("main")).to_contain_text(sorted(names)[0])
    expect(page.get_by_role("row", name=re.compile("shown runs"))).to_be_visible()


def test_memory_asks_for_its_token_and_walks_from_a_container_to_its_owner(browser: Browser, server: Server) -> None:
    desk = Desk(browser, server, trusted=False)
    desk.refusals.add(401)
    page = desk.open("memory")
    page.get_by_role("textbox", name="Token").fill(DIAGNOSTIC_TOKEN)
    page.keyboard.press("Enter")
    expect(page.locator("main")).to_contain_text("Free inside malloc")
    page.get_by_label("Floor").select_option("1000")
    page.locator("section", has_text="Containers").get_by_role("link", name="dict").first.click()
    expect(page.locator(".path")).to_be_visible()
    expect(page.locator("main")).to_contain_text("would be freed with it")
    before = page.url
    page.locator("section.card").first.get_by_role("link").first.click()
    expect(page).not_to_have_url(before)
    expect(page.locator(".path")).to_be_visible()
    page.get_by_role("button", name="Trim").click()
    expect(page.locator(".notice.ok")).to_contain_text("Trimming gave back")
    desk.context.close()


def test_the_gateway_shows_its_requests(desk: Desk, server: Server) -> None:
    assert server.call("GET", "/gateway/self/livez") == {"ok": True}
    with pytest.raises(HTTPError, match="404"):
        server.call("GET", "/gateway/self/nothing")
    page = desk.open("gateway")
    expect(page.locator("main")).to_contain_text("every endpoint is up")
    row = page.locator("tr", has_text="/gateway/self/nothing")
    expect(row.first).to_contain_text("404")


def test_triggers_and_events(desk: Desk) -> None:
    page = desk.open("triggers")
    page.get_by_label("Name of the event").fill("page.event")
    page.get_by_label("Data as JSON").fill('{"n": 1}')
    page.get_by_role("button", name="Send").click()
    expect(page.locator(".notice.ok")).to_contain_text("0 waiting blocks got it")
    expect(page.locator(".log")).to_contain_text("page.event")


def test_the_keyboard_reaches_everything(desk: Desk) -> None:
    page = desk.open()
    page.keyboard.press("Tab")
    expect(page.locator(".skip")).to_be_focused()
    for name in ("Flatwater", "Overview", "Runs"):
        page.keyboard.press("Tab")
        assert name in page.evaluate("document.activeElement.textContent")
    page.keyboard.press("Enter")
    expect(page.locator("h1")).to_have_text("Runs")
    expect(page.locator("main")).to_be_focused()
    page.get_by_role("button", name="Start a run").focus()
    page.keyboard.press("Enter")
    expect(page.locator("dialog")).to_be_visible()
    page.keyboard.press("Escape")
    expect(page.locator("dialog")).to_have_count(0)


def test_unknown_places_say_so(desk: Desk) -> None:
    desk.refusals.add(404)
    page = desk.open("runs/01ARZ3NDEKTSV4RRFFQ69G5FAV")
    expect(page.locator(".trouble")).to_be_visible()
    page = desk.open("nowhere")
    expect(page.locator("h1")).to_have_text("No such page")


@pytest.fixture(scope="module")
def views(server: Server) -> dict[str, str]:
    """Every view, with something to see in it."""
    waiting, failed, looping = (server.submit(name) for name in ("page-waiting", "page-failing", "page-looping"))
    site = server.call("GET", "/api/sites")["items"][0]["id"]
    server.in_state(looping, "SUCCEEDED")
    server.in_state(waiting, "WAITING")
    return {
        "overview": "",
        "runs": "runs",
        "runs-filtered": "runs?state=WAITING,SUCCEEDED",
        "run-waiting": f"runs/{waiting}?block=-1/1",
        "run-failed": f"runs/{failed}?block=-1/2",
        "run-loop": f"runs/{looping}?block=-1/1[29]/2",
        "sites": f"sites?site={site}",
        "sites-groups": f"sites?map=groups&site={site}",
        "definition": "definitions/page-asking",
        "upload": "definitions?tab=upload",
        "blocks": "definitions?tab=blocks",
        "triggers": "triggers",
        "ledger": "ledger",
        "memory": "memory",
        "gateway": "gateway",
        "guard": "guard",
    }


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_view_is_readable(browser: Browser, server: Server, views: dict[str, str], scheme: Any) -> None:
    PICTURES.mkdir(parents=True, exist_ok=True)
    desk = Desk(browser, server, color_scheme=scheme)
    poor: dict[str, list[str]] = {}
    for name, place in views.items():
        page = desk.open(place)
        page.wait_for_timeout(600)
        page.screenshot(path=PICTURES / f"{scheme}-{name}.png")
        if found := page.evaluate(POOR_CONTRAST):
            poor[name] = found
    desk.context.close()
    assert poor == {}
    assert desk.complaints == []


@pytest.mark.parametrize(("width", "height"), [(1280, 720), (1024, 768), (768, 1024)])
def test_no_view_is_wider_than_the_screen(
    browser: Browser, server: Server, views: dict[str, str], width: int, height: int
) -> None:
    desk = Desk(browser, server, viewport={"width": width, "height": height}, has_touch=True)
    wide = {}
    for name, place in views.items():
        page = desk.open(place)
        page.wait_for_timeout(300)
        if (over := page.evaluate(OVERFLOW)) > 0:
            wide[name] = over
        page.screenshot(path=PICTURES / f"{width}-{name}.png")
    desk.context.close()
    assert wide == {}


def test_a_restart_of_the_server_is_survived(browser: Browser, tmp_path: Path) -> None:
    server = Server(tmp_path)
    try:
        server.start()
        server.call("POST", "/api/definitions", SLEEPING)
        run = server.submit("page-sleeping")
        server.in_state(run, "RUNNING", "WAITING")
        desk = Desk(browser, server)
        page = desk.open("runs")
        expect(page.locator(f'tr[data-run="{run}"]')).to_be_visible()
        server.kill()
        expect(page.locator(".link-state")).to_contain_text("No connection")
        server.start()
        server.call("POST", f"/api/runs/{run}/cancel")
        expect(page.locator(".link-state")).to_have_text("Live")
        expect(page.locator(f'tr[data-run="{run}"] .badge')).to_have_text("canceled")
        desk.context.close()
    finally:
        server.kill()


def test_the_token_is_asked_for_once(browser: Browser, tmp_path: Path) -> None:
    server = Server(tmp_path, token=TOKEN)
    try:
        server.start()
        desk = Desk(browser, server, trusted=False)
        desk.refusals.add(401)
        page = desk.open()
        field = page.get_by_role("textbox", name="Token")
        field.fill("wrong")
        page.get_by_role("button", name="Go on").click()
        expect(page.get_by_text("did not accept this token")).to_be_visible()
        field.fill(TOKEN)
        page.get_by_role("button", name="Go on").click()
        expect(page.locator(".page-note")).to_have_text("Ready: takes new runs.")
        expect(page.locator(".link-state")).to_have_text("Live")
        page.reload()
        expect(page.locator(".tile-value").first).to_have_text(re.compile(r"\d"))
        expect(page.locator("dialog")).to_have_count(0)
        desk.context.close()
        assert desk.complaints == []
    finally:
        server.kill()
