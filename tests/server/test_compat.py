"""The known systems' calls: their names, their codes, our engine."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from tests.server.client import Client, eventually
from tests.server.harness import FAILING, QUICK, SLOW, in_state, running, saved

from flatwater.server.compat import BLOCK_CODES, RUN_CODES
from flatwater.settings.model import ServerSettings
from flatwater.store.state import RUN_STATES, State


@pytest.fixture
async def client(tmp_path: Path) -> AsyncIterator[Client]:
    async with running(tmp_path) as found:
        await saved(found, QUICK, SLOW, FAILING)
        yield found


async def order(client: Client, **fields: Any) -> str:
    answer = await client.post("/api/set-order", fields)
    assert answer.status == 200, answer.body
    assert (answer.json["code"], answer.json["msg"]) == (200, "Success")
    return str(answer.json["data"]["taskRecordId"])


async def records(client: Client, **query: Any) -> list[Any]:
    answer = await client.post("/api/queryTaskRecord", {"currentPage": 1, "pageSize": 1_000_000, "queryParam": query})
    assert answer.status == 200, answer.body
    return list(answer.json["data"]["pageList"])


def test_every_state_has_a_code() -> None:
    assert set(RUN_CODES) == set(RUN_STATES)
    assert set(BLOCK_CODES) == set(State)


async def test_an_order_is_started_by_label_with_inputs_as_text(client: Client) -> None:
    definition = {
        **QUICK,
        "id": "id-7",
        "label": "move",
        "inputParams": [{"name": "site", "type": "String", "required": True}],
    }
    await saved(client, definition)
    run_id = await order(client, taskLabel="move", inputParams='{"site": "PS-01"}', priority=3, unknownField=1)
    await in_state(client, run_id, "SUCCEEDED")
    (record,) = await records(client, taskRecordId=run_id)
    assert (record["def_id"], record["def_label"], record["status"], record["priority"]) == ("id-7", "move", 1003, 3)
    assert msgspec.json.decode(record["input_params"]) == [{"name": "site", "defaultValue": "PS-01"}]
    assert record["created_on"].endswith("+00:00")
    assert record["ended_on"] >= record["created_on"]
    assert record["state_description"] == "hello"
    by_id = await order(client, taskId="id-7", inputParams={"site": "PS-02"})
    assert by_id != run_id


async def test_the_callers_own_record_id_names_the_run_everywhere(client: Client) -> None:
    assert await order(client, taskLabel="slow", taskRecordId="B12-LABEL-7") == "B12-LABEL-7"
    assert await order(client, taskLabel="slow", taskRecordId="B12-LABEL-7") == "B12-LABEL-7"
    assert len(await records(client)) == 1
    blocks = (await client.post("/api/queryBlocksByTaskId", {"taskRecordId": "B12-LABEL-7"})).json["data"]
    assert blocks["taskStatus"] == 1000
    answer = await client.post("/api/stop-task", {"taskRecordId": "B12-LABEL-7"})
    assert answer.json["data"]["done"] == ["B12-LABEL-7"]

    async def stopped() -> bool:
        return bool((await records(client, taskRecordId="B12-LABEL-7"))[0]["status"] == 1001)

    await eventually(stopped)


async def test_blocks_have_their_fields_and_codes(client: Client) -> None:
    run_id = await order(client, taskLabel="failing")
    await in_state(client, run_id, "FAILED")
    data = (await client.post("/api/queryBlocksByTaskId", {"taskRecordId": run_id}, headers={"language": "en"})).json[
        "data"
    ]
    assert data["taskStatus"] == 1004
    block = next(item for item in data["blockList"] if item["blockName"] == "ThrowExceptionBp")
    assert block["status"] == 1004
    assert "on purpose" in block["endedReason"]
    assert block["startedOn"].endswith("+00:00")
    assert block["blockLabel"]


@pytest.mark.parametrize("style", ["get", "post"])
async def test_suspend_and_start(client: Client, style: str) -> None:
    run_id = await order(client, taskLabel="slow", outOrderNo="o-1")
    await in_state(client, run_id, "WAITING", "RUNNING")
    for action, codes in (("suspend-task", (1002,)), ("start-task", (1000,))):
        if style == "get":
            answer = await client.get(f"/api/{action}/slow/{run_id}")
        else:
            answer = await client.post(f"/api/{action}", {"taskRecordIds": [run_id]})
        assert answer.json["code"] == 200, answer.body

        async def reached(codes: tuple[int, ...] = codes) -> bool:
            return (await records(client, outOrderNo="o-1"))[0]["status"] in codes

        await eventually(reached)


async def test_a_get_that_changes_something_is_not_for_other_sites_nor_for_head(client: Client) -> None:
    run_id = await order(client, taskLabel="slow")
    path = f"/api/suspend-task/slow/{run_id}"
    assert (await client.get(path, headers={"sec-fetch-site": "cross-site"})).status == 403
    assert (await client.ask("HEAD", path)).status == 405


async def test_lists_of_runs_say_which_were_refused(client: Client) -> None:
    slow, quick = await order(client, taskLabel="slow"), await order(client, taskLabel="quick")
    await in_state(client, quick, "SUCCEEDED")
    await in_state(client, slow, "WAITING", "RUNNING")
    listed = [
        {"taskId": "slow", "taskRecordId": slow},
        {"taskId": "quick", "taskRecordId": quick},
        {"taskRecordId": "none"},
    ]
    data = (await client.post("/api/stop-all-task", {"releaseSite": 1, "stopTaskList": listed})).json["data"]
    assert data["done"] == [slow]
    assert {item["taskRecordId"] for item in data["refused"]} == {quick, "none"}


async def test_queries_filter_and_page(client: Client) -> None:
    ids = [await order(client, taskLabel="quick") for _ in range(5)]
    for run_id in ids:
        await in_state(client, run_id, "SUCCEEDED")
    assert len(await records(client, status="1003", taskLabel="quick")) == 5
    assert await records(client, status=1004) == []
    assert await records(client, taskRecordId="none") == []
    pages = []
    for number in (1, 2, 3, 4):
        answer = await client.post("/api/queryTaskRecord", {"pageNum": number, "pageSize": 2})
        pages.append([record["id"] for record in answer.json["data"]["pageList"]])
    assert pages == [sorted(ids, reverse=True)[:2], sorted(ids, reverse=True)[2:4], [min(ids)], []]


@pytest.mark.parametrize(
    ("path", "body", "status"),
    [
        ("set-order", {}, 422),
        ("set-order", {"taskLabel": "none"}, 404),
        ("set-order", {"taskLabel": "quick", "inputParams": "{"}, 422),
        ("set-order", {"taskLabel": "quick", "inputParams": "[1]"}, 422),
        ("set-order", {"taskLabel": "quick", "taskRecordId": "a", "outOrderNo": "b"}, 422),
        ("queryBlocksByTaskId", {"taskRecordId": "none"}, 404),
        ("queryBlocksByTaskId", {}, 422),
        ("queryTaskRecord", {"queryParam": {"status": "7"}}, 422),
        ("queryTaskRecord", {"currentPage": 21}, 422),
        ("stop-task", {}, 422),
        ("stop-all-task", {"stopTaskList": []}, 422),
        ("stop-task", {"taskRecordId": "none"}, 404),
        ("stop-task", {"taskRecordIds": ["x"] * 501}, 422),
    ],
)
async def test_errors_come_in_their_wrapper(client: Client, path: str, body: Any, status: int) -> None:
    answer = await client.post(f"/api/{path}", body)
    assert answer.status == status, answer.body
    assert answer.json["code"] == status
    assert answer.json["data"] is None
    assert answer.json["msg"]


async def test_it_can_be_turned_off(tmp_path: Path) -> None:
    async with running(tmp_path / ".", server=ServerSettings(compatibility=False)) as client:
        assert (await client.post("/api/set-order", {"taskLabel": "quick"})).status in (404, 405)
        assert "/api/set-order" not in (await client.get("/openapi.json")).json["paths"]
