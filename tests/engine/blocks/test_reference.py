"""The reference of blocks is what the code says, complete, and its examples are definitions that compile."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from flatwater.engine.blocks import builtin
from flatwater.engine.definition import parse
from flatwater.engine.example import EXAMPLES, INPUTS, SUB_TASK_ID
from flatwater.engine.reference import FAMILIES, example, reference

PAGE = Path(__file__).parents[3] / "docs" / "reference" / "blocks.md"
PALETTE = {entry["type"]: entry for entry in builtin().palette()}
# What the catalogue of the design asks for, one name a block.
CATALOGUE = """
SerialFlowBp ParallelFlowBp ParallelRepeatNBp IfBp IfElseBp IfElseIfBp WhileBp RepeatNumBp IterateListBp TryCatchBp
BreakBp ReturnBp ThrowExceptionBp StopOtherBranch DelayBp SubTask::x
GetIdleSiteBp GetIdleCrowdedSiteBp QueryIdleSiteBp SetSiteFilledBp SetSiteEmptyBp SetSiteLockedBp SetSiteUnlockedBp
SetSiteContentBp SetSiteTagsBp SetSiteAttrBp GetSiteAttrBp BatchSettingSiteBp GetLockedSitesByTaskRecordIdBp
CSelectAgvBp CAgvOperationBp VehicleStationBp GetBatteryLevelBp
TaskStateBp SetTaskVariableBp SetTaskVariablesBp SetOutOrderNoBp SetResponseBp GetTaskRecordBp StartTaskBp SuspendTaskBp
StopTaskBp TriggerTaskEventBp WaitEventBp CurrentTimeStampBp TimestampBp CreateUuidBp StringToJsonObjectBp
StringToJsonArrayBp CacheDataBp GetCacheDataBp ClearCacheDataBp PrintBp ScriptBp JdbcQueryBp JdbcExecuteBp
GetBp PostBp HttpGetBp HttpPostBp
ModbusReadBp ModbusWriteBp ModbusWaitBp
"""


def test_the_page_is_up_to_date() -> None:
    assert PAGE.read_text("utf-8") == reference(), (
        "run: python -m flatwater.engine.reference > docs/reference/blocks.md"
    )


def test_every_block_of_the_catalogue_exists() -> None:
    registry = builtin()
    assert [name for name in CATALOGUE.split() if name not in registry] == []


def test_every_block_has_its_place_and_its_example() -> None:
    assert {entry["family"] for entry in PALETTE.values()} == set(FAMILIES)
    assert EXAMPLES.keys() == PALETTE.keys()


def test_every_parameter_and_block_is_described() -> None:
    silent = [
        f"{type_}.{name}"
        for type_, entry in PALETTE.items()
        for name, param in entry["params"]["properties"].items()
        if not param.get("description") and entry["family"] != "robot"
    ]
    assert silent == []
    assert [type_ for type_, entry in PALETTE.items() if not entry["description"]] == []


@pytest.mark.parametrize("type_", sorted(PALETTE))
def test_examples_compile(type_: str) -> None:
    block = json.loads(example(PALETTE[type_]))
    flow = parse(
        {
            "label": "example",
            "version": 1,
            "inputParams": [{"name": name, "type": "Any"} for name in INPUTS],
            "outputParams": [],
            "rootBlock": block if type_ == "RootBp" else around(block),
        },
        builtin(),
        known_definitions={SUB_TASK_ID: ()} if type_ != "SubTask" else None,
    )
    assert flow.warnings == ()
    assert type_ in {node.type for node in flow.nodes}


def around(block: dict[str, Any]) -> dict[str, Any]:
    """A definition's root in which the block may stand."""
    children = [block]
    if block["blockType"] in ("BreakBp", "StopOtherBranch"):
        outer = "WhileBp" if block["blockType"] == "BreakBp" else "ParallelFlowBp"
        params = {"loopCondition": {"type": "Simple", "value": "true"}} if outer == "WhileBp" else {}
        children = [
            {"id": 99, "name": "outer", "blockType": outer, "inputParams": params, "children": {"default": [block]}}
        ]
    return {"id": -1, "name": "root", "blockType": "RootBp", "inputParams": {}, "children": {"default": children}}


def test_links_lead_somewhere() -> None:
    text = reference()
    titles = {title.lower() for title in re.findall(r"^### (.+)$", text, re.MULTILINE)}
    assert set(re.findall(r"\]\(#([^)]+)\)", text)) == titles
