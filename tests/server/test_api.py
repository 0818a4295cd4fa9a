"""The API over a real store and engine."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from tests.server.client import Client, eventually
from tests.server.harness import (
    FAILING,
    QUICK,
    SITE,
    SLOW,
    block,
    definition,
    in_state,
    running,
    saved,
    service_of,
    started,
)

from flatwater.demo import attach
from flatwater.settings.model import DemoSettings, EngineSettings, ServerSettings


@pytest.fixture
async def client(tmp_path: Path) -> AsyncIterator[Client]:
    async with running(tmp_path) as found:
        yield found


# ---- definitions -----------------------------------------------------------------------------------------------------


async def test_definitions_are_saved_listed_and_read(client: Client) -> None:
    first = await client.post("/api/definitions", QUICK)
    assert (first.status, first.json["id"], first.json["version"]) == (201, "quick", 1)
    again = await client.ask("PUT", "/api/definitions", json=QUICK)
    assert again.json["version"] == 1
    changed = await client.post("/api/definitions", {**QUICK, "remark": "new"})
    assert (changed.json["version"], changed.json["hash"] != first.json["hash"]) == (2, True)
    detail = (await client.get("/api/definitions/quick")).json
    assert detail["definition"]["rootBlock"]["children"]["default"][0]["blockType"] == "TaskStateBp"
    await saved(client, SLOW)
    page = (await client.get("/api/definitions?limit=1")).json
    assert [item["id"] for item in page["items"]] == ["quick"]
    rest = (await client.get(f"/api/definitions?limit=1&cursor={page['next']}")).json
    assert ([item["id"] for item in rest["items"]], rest["next"]) == (["slow"], None)
    assert (await client.get("/api/definitions/none")).status == 404


async def test_bad_definitions_list_every_problem_and_store_nothing(client: Client) -> None:
    bad = definition("bad", block(1, "NoSuchBp"), block(2, "DelayBp", timeMillis="=1 +"), block(3, "AlsoNotBp"))
    answer = await client.post("/api/definitions", bad)
    assert answer.status == 422
    assert len(answer.error["problems"]) >= 3
    assert any("NoSuchBp" in problem["message"] for problem in answer.error["problems"])
    assert all(problem["path"] for problem in answer.error["problems"])
    assert (await client.get("/api/definitions")).json["items"] == []
    verdict = (await client.post("/api/definitions/validate", bad)).json
    assert (verdict["ok"], len(verdict["problems"])) == (False, len(answer.error["problems"]))
    good = (await client.post("/api/definitions/validate", QUICK)).json
    assert (good["ok"], good["flow"]["nodes"], good["flow"]["depth"]) == (True, 3, good["flow"]["depth"])
    assert (await client.get("/api/definitions")).json["items"] == []


async def test_deleting_a_definition_with_runs_is_a_conflict(client: Client) -> None:
    await saved(client, QUICK, SLOW)
    await in_state(client, await started(client, "quick"), "SUCCEEDED")
    answer = await client.ask("DELETE", "/api/definitions/quick")
    assert (answer.status, answer.error["code"]) == (409, "conflict")
    assert (await client.ask("DELETE", "/api/definitions/slow")).status == 204
    assert (await client.ask("DELETE", "/api/definitions/slow")).status == 404
    assert (await client.post("/api/runs", {"definition": "slow"})).status == 404


async def test_the_palette_has_schemas(client: Client) -> None:
    items = {item["type"]: item for item in (await client.get("/api/definitions/blocks")).json["items"]}
    assert {"IfBp", "DelayBp", "GetIdleSiteBp"} <= set(items)
    assert items["DelayBp"]["params"]
    assert {"type", "family", "description", "branches", "params", "outputs", "recovery"} <= set(items["IfBp"])


# ---- runs ------------------------------------------------------------------------------------------------------------


async def test_a_run_from_submission_to_its_values(client: Client) -> None:
    await saved(client, QUICK)
    run = await in_state(client, await started(client, "quick", priority=5), "SUCCEEDED")
    assert (run["definition"], run["priority"], run["state_message"]) == ("quick", 5, "hello")
    assert run["variables"] == {"x": 3}
    assert run["ended_at"] >= run["started_at"] >= run["created_at"] - 0.001
    blocks = (await client.get(f"/api/runs/{run['id']}/blocks")).json
    assert [child["type"] for child in blocks["tree"]["children"]["default"]] == ["TaskStateBp", "SetTaskVariableBp"]
    steps = {step["path"]: step for step in blocks["steps"]}
    assert (steps["-1/1"]["state"], steps["-1/2"]["name"]) == ("SUCCEEDED", "b2")
    first = (await client.get(f"/api/runs/{run['id']}/blocks?limit=1")).json
    rest = (await client.get(f"/api/runs/{run['id']}/blocks?cursor={first['next']}")).json
    assert rest["tree"] is None
    assert first["steps"] + rest["steps"] == blocks["steps"]
    assert (await client.get(f"/api/runs/{run['id']}/log")).status == 200
    for tail in ("", "/blocks", "/log"):
        assert (await client.get(f"/api/runs/none{tail}")).status == 404


async def test_a_failed_run_says_where_and_can_be_retried(client: Client) -> None:
    await saved(client, FAILING)
    run = await in_state(client, await started(client, "failing"), "FAILED")
    assert "on purpose" in run["error"]
    assert run["error_path"] == "-1/1"
    answer = await client.post(f"/api/runs/{run['id']}/retry")
    assert answer.status == 200
    assert (await in_state(client, run["id"], "FAILED"))["state"] == "FAILED"


async def test_the_same_key_is_the_same_run(client: Client) -> None:
    await saved(client, QUICK)
    first = await client.post("/api/runs", {"definition": "quick", "idempotency_key": "order 7"})
    second = await client.post("/api/runs", {"definition": "quick"}, headers={"idempotency-key": "order 7"})
    assert (first.status, second.status) == (201, 200)
    assert first.json["id"] == second.json["id"]
    found = (await client.get("/api/runs?out_order_no=order%207")).json["items"]
    assert [run["id"] for run in found] == [first.json["id"]]
    both = {"definition": "quick", "idempotency_key": "a"}
    assert (await client.post("/api/runs", both, headers={"idempotency-key": "b"})).status == 422


async def test_cancel_pause_and_resume(client: Client) -> None:
    await saved(client, SLOW)
    run_id = await started(client, "slow")
    await in_state(client, run_id, "WAITING", "RUNNING")
    paused = await client.post(f"/api/runs/{run_id}/pause")
    assert paused.status == 200
    await in_state(client, run_id, "PAUSED")
    assert (await client.post(f"/api/runs/{run_id}/resume")).status == 200
    await in_state(client, run_id, "WAITING", "RUNNING", "QUEUED")
    assert (await client.post(f"/api/runs/{run_id}/cancel")).status == 200
    assert (await in_state(client, run_id, "CANCELED"))["ended_at"]
    for action in ("cancel", "pause", "resume"):
        answer = await client.post(f"/api/runs/{run_id}/{action}")
        assert (answer.status, answer.error["code"]) == (409, "conflict"), action
        assert (await client.post(f"/api/runs/none/{action}")).status == 404
    assert (await client.post("/api/runs/none/retry")).status == 404


async def test_lists_are_filtered_and_paged(client: Client) -> None:
    await saved(client, QUICK, SLOW)
    quick = [await started(client, "quick") for _ in range(5)]
    slow = await started(client, "slow")
    later = await started(client, "slow", delay_s=3600)
    for run_id in quick:
        await in_state(client, run_id, "SUCCEEDED")
    seen: list[str] = []
    cursor = ""
    while True:
        page = (await client.get(f"/api/runs?limit=2{cursor}")).json
        seen += [run["id"] for run in page["items"]]
        if page["next"] is None:
            break
        cursor = f"&cursor={page['next']}"
    assert seen == sorted([*quick, slow, later], reverse=True)
    filtered = (await client.get("/api/runs?state=QUEUED,WAITING,RUNNING")).json["items"]
    assert {run["id"] for run in filtered} == {slow, later}
    assert (await client.get("/api/runs?definition=slow&state=SUCCEEDED")).json["items"] == []
    assert (await client.get("/api/runs?before=1")).json["items"] == []
    assert (await client.get("/api/runs?state=NOPE")).status == 422
    assert (await client.get("/api/runs?state=SKIPPED")).status == 422


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"definition": ""},
        {"definition": "quick", "priority": 10**9},
        {"definition": "quick", "delay_s": -1},
        {"definition": "quick", "due_at": 1e300},
        {"definition": "quick", "timeout_s": 0},
        {"definition": "quick", "inputs": []},
        {"definition": "quick", "retry": {"max_attempts": 0}},
        {"definition": "quick", "retry": {"attempts": 1}},
        {"definition": "quick", "idempotency_key": ""},
        {"definition": "quick", "idempotency_key": "x" * 500},
        {"definition": "quick", "due_at": 1e9, "delay_s": 1},
        {"definition": "quick", "nope": 1},
    ],
)
async def test_absurd_submissions_are_refused_and_nothing_is_stored(client: Client, body: dict[str, Any]) -> None:
    await saved(client, QUICK)
    answer = await client.post("/api/runs", body)
    assert answer.status in (400, 422)
    assert answer.error["message"]
    assert (await client.get("/api/runs")).json["items"] == []


async def test_required_inputs_are_checked(client: Client) -> None:
    await saved(client, {**QUICK, "inputParams": [{"name": "site", "type": "String", "required": True}]})
    answer = await client.post("/api/runs", {"definition": "quick"})
    assert answer.status == 422
    assert "site" in answer.body.decode()


async def test_large_values_make_small_answers(client: Client) -> None:
    big = definition("big", block(1, "SetTaskVariableBp", varName="v", varValue="x" * 300_000))
    await saved(client, big)
    run = await in_state(client, await started(client, "big"), "SUCCEEDED")
    assert run["variables"]["v"] == {"truncated": 300_002}
    assert len((await client.get(f"/api/runs/{run['id']}/blocks")).body) < 20_000


# ---- sites -----------------------------------------------------------------------------------------------------------


async def test_sites_are_imported_waited_for_and_changed(client: Client) -> None:
    await saved(client, SITE)
    waiting = await started(client, "site")
    second = await started(client, "site")
    for run_id in (waiting, second):
        await in_state(client, run_id, "WAITING")
    run = (await client.get(f"/api/runs/{second}")).json
    assert run["wait"][0]["kind"] == "site"
    assert run["wait"][0]["place"] == 2
    assert run["wait"][0]["reason"]
    answer = await client.ask("PUT", "/api/sites", json=[{"id": "A-1", "group": "A", "x": 1.5, "attrs": {"h": 2}}])
    assert answer.json == {"saved": 1}

    async def locked() -> bool:
        found = (await client.get("/api/sites?group=A")).json["items"]
        return bool(found and found[0]["locked_by"])

    await eventually(locked)
    (site,) = (await client.get("/api/sites?group=A")).json["items"]
    assert site["locked_by"]["run"] == waiting
    assert (site["x"], site["attrs"]) == (1.5, {"h": 2})
    refused = await client.ask("PATCH", "/api/sites/A-1", json={"filled": True})
    assert (refused.status, refused.error["code"]) == (409, "conflict")
    await client.post(f"/api/runs/{waiting}/cancel")

    async def passed_on() -> bool:
        return bool((await client.get("/api/sites/A-1")).json["locked_by"] == {"run": second, "path": "-1/1"})

    await eventually(passed_on)
    changes = (await client.get("/api/sites/changes?site=A-1&limit=2")).json
    assert len(changes["items"]) == 2
    assert changes["items"][0]["id"] > changes["items"][1]["id"]
    more = (await client.get(f"/api/sites/changes?site=A-1&cursor={changes['next']}")).json
    assert more["items"]


async def test_sites_change_by_hand(client: Client) -> None:
    await client.ask(
        "PUT", "/api/sites", json=[{"id": "B/1", "group": "B"}, {"id": "C", "filled": True, "content": "sku"}]
    )
    answer = await client.ask(
        "PATCH", "/api/sites/B/1", json={"filled": True, "content": "box", "tags": ["t"], "enabled": False}
    )
    assert answer.status == 200, answer.body
    assert (answer.json["filled"], answer.json["content"], answer.json["tags"]) == (True, "box", ["t"])
    assert answer.json["enabled"] is False
    assert (await client.get("/api/sites")).json["groups"] == ["B"]
    assert (await client.ask("PATCH", "/api/sites/none", json={"filled": True})).status == 404
    assert (await client.ask("PATCH", "/api/sites/C", json={"locked": True})).status == 422
    assert (await client.ask("PUT", "/api/sites", json=[{"id": str(n)} for n in range(501)])).status == 422
    assert (await client.ask("PUT", "/api/sites", json=[{"id": "x", "x": 1e13}])).status == 422


async def test_a_lock_can_be_taken_away(client: Client) -> None:
    await saved(client, SITE)
    await client.ask("PUT", "/api/sites", json=[{"id": "A-1", "group": "A"}])
    await started(client, "site")

    async def locked() -> bool:
        return bool((await client.get("/api/sites/A-1")).json["locked_by"])

    await eventually(locked)
    answer = await client.ask("PATCH", "/api/sites/A-1", json={"locked": False})
    assert (answer.status, answer.json["locked_by"]) == (200, None)


# ---- triggers and events ---------------------------------------------------------------------------------------------


async def test_triggers_start_runs(client: Client) -> None:
    await saved(client, QUICK)
    trigger = {"id": "t", "definition_id": "quick", "kind": "event", "spec": "truck", "max_pending": 1000}
    assert (await client.post("/api/triggers", trigger)).status == 201
    delivered = (await client.post("/api/events", {"name": "truck", "data": {"gate": 1}})).json
    assert len(delivered["started"]) == 1
    await in_state(client, delivered["started"][0], "SUCCEEDED")
    (event,) = (await client.get("/api/events?name=truck")).json["items"]
    assert event["data"] == {"gate": 1}
    (found,) = (await client.get("/api/triggers")).json["items"]
    assert found["last_run_id"] == delivered["started"][0]
    assert (await client.post("/api/events", {"name": "other"})).json == {"delivered": 0, "started": []}
    assert (await client.post("/api/triggers", {**trigger, "definition_id": "none"})).status == 404
    assert (await client.post("/api/triggers", {**trigger, "kind": "cron", "spec": "61 * * * *"})).status in (400, 422)
    assert (await client.ask("DELETE", "/api/triggers/t")).status == 204
    assert (await client.ask("DELETE", "/api/triggers/t")).status == 404


# ---- the service -----------------------------------------------------------------------------------------------------


async def test_health(client: Client) -> None:
    assert (await client.get("/livez")).json == {"ok": True}
    ready = await client.get("/readyz")
    assert (ready.status, ready.json["ready"]) == (200, True)
    assert set(ready.json["checks"]) == {"store", "queue", "draining"}
    service = service_of(client)
    service.draining = True
    draining = await client.get("/readyz")
    assert (draining.status, draining.json["checks"]["draining"]["ok"]) == (503, False)
    assert draining.headers["retry-after"]
    await saved(client, QUICK)
    assert (await client.post("/api/runs", {"definition": "quick"})).error["code"] == "draining"
    service.draining = False
    service.store.writer.degraded = "disk full: no space left"
    degraded = await client.get("/readyz")
    assert (degraded.status, degraded.json["checks"]["store"]) == (
        503,
        {"ok": False, "detail": "disk full: no space left"},
    )
    service.store.writer.degraded = None


async def test_info_status_and_ledger(client: Client) -> None:
    await saved(client, QUICK, SLOW)
    await in_state(client, await started(client, "quick"), "SUCCEEDED")
    await in_state(client, await started(client, "slow"), "WAITING")
    info = (await client.get("/api/info")).json
    assert (info["database"], info["demo"], info["token_required"]) == ("sqlite", False, False)
    service_of(client).counts._until = 0.0
    status = (await client.get("/api/status")).json
    assert status["runs"]["SUCCEEDED"] == 1
    assert status["runs"]["waiting"] == 1
    assert status["waits"] == {"timer": 1}
    assert status["memory"]["rss_bytes"] > 10_000_000
    assert status["contexts"]["live"] >= 0
    ledger = {item["name"]: item for item in (await client.get("/api/ledger")).json["items"]}
    assert {"server.tasks", "server.streams", "status.history"} <= set(ledger)
    assert [item for item in ledger.values() if not 0 <= item["size"] <= item["bound"]] == []


async def test_metrics(client: Client) -> None:
    await saved(client, QUICK)
    await in_state(client, await started(client, "quick"), "SUCCEEDED")
    service_of(client).counts._until = 0.0
    answer = await client.get("/metrics")
    assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
    from prometheus_client.parser import text_string_to_metric_families

    found = {
        sample.name: sample
        for family in text_string_to_metric_families(answer.body.decode())
        for sample in family.samples
    }
    names = (
        "runs runs_active runs_submitted_total runs_ended_total run_seconds_count contexts_live rss_bytes fds threads "
        "holder_size ready loop_lag_seconds_bucket stream_subscribers store_writer_batches store_writer_rows"
    )
    for name in (f"flatwater_{part}" for part in names.split()):
        assert name in found, name
    assert found["flatwater_runs_submitted_total"].value == 1
    assert found["flatwater_run_seconds_count"].value == 1
    again = (await client.get("/metrics")).body
    assert again.count(b"\n# HELP") == answer.body.count(b"\n# HELP")


async def test_the_stream_tells_of_runs_and_status(client: Client) -> None:
    service = service_of(client)
    await saved(client, QUICK)
    with service.engine.events.subscribe() as subscription:
        run_id = await started(client, "quick")
        seen: list[Any] = []

        def enough() -> bool:
            seen.extend(message.item for message in subscription.ready(1000))
            kinds = {item["type"] for item in seen}
            ended = any(item.get("id") == run_id and item.get("state") == "SUCCEEDED" for item in seen)
            return ended and {"block", "status"} <= kinds

        await eventually(enough)
    status = next(item for item in seen if item["type"] == "status")
    assert {"rss_bytes", "active", "pending", "waiting", "rate_per_s"} <= set(status)


async def test_changed_sites_are_told(client: Client) -> None:
    service = service_of(client)
    with service.engine.events.subscribe() as subscription:
        await client.ask("PUT", "/api/sites", json=[{"id": "A-1", "group": "A"}])
        seen: list[Any] = []

        def told() -> bool:
            seen.extend(message.item for message in subscription.ready(1000))
            return any(item["type"] == "site" and item["id"] == "A-1" for item in seen)

        await eventually(told)


async def seen_by_a_listener(client: Client, kinds: set[str]) -> dict[str, Any]:
    """One event of each of these types, as they come."""
    found: dict[str, Any] = {}
    with service_of(client).engine.events.subscribe() as subscription:

        def all_there() -> bool:
            found.update({message.item["type"]: message.item for message in subscription.ready(1000)})
            return kinds <= set(found)

        await eventually(all_there, 30.0)
    return found


async def test_log_lines_are_told_and_listed(client: Client) -> None:
    await saved(
        client,
        definition(
            "loud",
            block(
                1, "WhileBp", {"default": [block(2, "PrintBp", message="hear")]}, loopCondition="=true", retryPeriod=20
            ),
        ),
    )
    run_id = await started(client, "loud")
    line = (await seen_by_a_listener(client, {"log"}))["log"]
    assert (line["run_id"], line["level"]) == (run_id, "info")
    assert "hear" in line["message"]

    async def listed() -> bool:
        return len((await client.get(f"/api/runs/{run_id}/log?limit=2")).json["items"]) == 2

    await eventually(listed)
    first = (await client.get(f"/api/runs/{run_id}/log?limit=1")).json
    second = (await client.get(f"/api/runs/{run_id}/log?limit=1&cursor={first['next']}")).json
    assert second["items"][0]["at"] >= first["items"][0]["at"]
    assert (await client.get(f"/api/runs/{run_id}/log?cursor=x")).status == 422


async def test_the_demo_plant_shows_robots_and_sites(tmp_path: Path) -> None:
    demo = DemoSettings(enabled=True, speed=100.0)
    async with running(tmp_path, demo=demo, **attach(demo)) as client:
        robots = (await client.get("/api/robots")).json["items"]
        assert len(robots) == 3
        assert {"id", "state", "battery", "station", "x", "y", "run", "waypoints"} <= set(robots[0])
        found = await seen_by_a_listener(client, {"robot", "site", "run", "block", "status"})
        assert found["robot"]["id"] in {robot["id"] for robot in robots}
        assert found["site"]["updated_at"] > 0
        assert (await client.get("/api/info")).json["demo"] is True


async def test_too_many_streams(tmp_path: Path) -> None:
    async with running(tmp_path, engine=EngineSettings(max_subscribers=1)) as client:
        with service_of(client).engine.events.subscribe():
            answer = await client.get("/api/stream")
            assert (answer.status, answer.error["code"]) == (429, "limit")
            assert (await client.get("/api/stream?nope=1")).status == 422
            assert (await client.ask("HEAD", "/api/stream")).status == 405


async def test_unknown_addresses_and_methods(client: Client) -> None:
    assert (await client.get("/api/nothing")).error["code"] == "not_found"
    assert (await client.get("/api/runs/")).status == 404
    answer = await client.ask("PATCH", "/api/runs")
    assert (answer.status, answer.headers["allow"]) == (405, "GET, HEAD, POST")


async def test_a_token_guards_the_api(tmp_path: Path) -> None:
    async with running(tmp_path, server=ServerSettings(host="0.0.0.0", token="t0ken")) as client:
        assert (await client.get("/api/runs")).status == 401
        assert (await client.get("/livez")).status == 200
        assert (await client.get("/api/info", headers={"authorization": "Bearer t0ken"})).json["token_required"] is True


async def test_a_ten_megabyte_definition_is_refused(client: Client) -> None:
    chunks = [b"x" * 65536] * 160
    answer = await client.ask("POST", "/api/definitions", body=chunks, headers={"content-length": str(65536 * 160)})
    assert (answer.status, answer.error["code"]) == (413, "too-large")
