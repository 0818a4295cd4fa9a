"""Definitions: what imports, every problem at once with its place, inputs, hashes, limits."""

from __future__ import annotations

import copy
import json
import time
from pathlib import Path
from typing import Any

import pytest

from flatwater.engine.block import Registry
from flatwater.engine.blocks import builtin
from flatwater.engine.definition import (
    Flow,
    InputParam,
    Limits,
    Retry,
    canonical,
    check_inputs,
    content_hash,
    parse,
    sub_task_cycle,
)
from flatwater.engine.parameter import ParamType
from flatwater.errors import DefinitionError, Problem

from .kinds import sample_registry
from .plan import Block, b, plan

SAMPLES = Path(__file__).parent / "samples"
REGISTRY = sample_registry()
KNOWN = {"line-supply": (InputParam("siteId", ParamType.STRING, required=True), InputParam("n", ParamType.LONG))}


def sample(name: str) -> Any:
    return json.loads((SAMPLES / f"{name}.json").read_text())


def flow(*blocks: Block, **more: Any) -> Flow:
    return parse(plan("test", *blocks, **more), REGISTRY)


def problems(data: Any, **more: Any) -> dict[str, Problem]:
    with pytest.raises(DefinitionError) as caught:
        parse(data, REGISTRY, **more)
    assert caught.value.problems
    return {problem.path: problem for problem in caught.value.problems}


def problem(*blocks: Block, **more: Any) -> Problem:
    """The one problem of a definition made of ``blocks``."""
    found = list(problems(plan("test", *blocks), **more).values())
    assert len(found) == 1, found
    return found[0]


# ---- what imports -----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["transport", "monitor", "careful_load"])
@pytest.mark.parametrize("registry", [REGISTRY, builtin()], ids=["bare", "built in"])
def test_samples_import(name: str, registry: Registry) -> None:
    data = sample(name)
    found = parse(data, registry, known_definitions=KNOWN)
    assert found.label == data["label"]
    assert found.warnings == ()
    assert found.hash == content_hash(data) == content_hash(json.dumps(data))
    assert parse(json.dumps(data).encode(), registry).hash == found.hash
    assert found.root is found.nodes[0]
    assert found.root.id == -1
    assert [node.index for node in found.nodes] == list(range(len(found.nodes)))


def test_a_transport_task() -> None:
    found = parse(sample("transport"), REGISTRY)
    nodes = {node.name: node for node in found.nodes}
    select = nodes["b4"]
    assert select.type == "CSelectAgvBp"
    assert [node.name for node in select.branches["default"]] == ["b5", "b6", "b7", "b8", "b9", "b10"]
    scope = {
        "taskInputs": {"fromGroup": "IN", "toGroup": "BUF"},
        "blocks": {"b2": {"siteId": "IN-1"}, "b5": {"containerName": "C"}},
        "task": {"priority": 5, "variables": {"storedAt": "BUF-2"}},
    }
    assert nodes["b2"].params.evaluate(scope) == {
        "groupName": "IN", "siteId": "", "filled": True, "content": None, "lock": True, "retryPeriod": 1000,
        "retryNum": None,
    }  # fmt: skip
    assert select.params.evaluate(scope) == {
        "priority": 5, "vehicle": "", "tag": "", "group": "", "keyRoute": "IN-1",
    }  # fmt: skip
    assert nodes["b5"].retry == Retry(3, 0.5, 2, 5.0, 0.1)
    assert nodes["b5"].recovery == "operator"
    assert (nodes["b8"].timeout_s, nodes["b8"].recovery) == (600.0, "reattach")
    assert (found.retry, found.max_parallel, found.release) == (Retry(2, 10.0), 4, "always")
    assert found.live_names == {"b2", "b3", "b5"}
    assert (nodes["b2"].keeps, nodes["b5"].keeps, nodes["b6"].keeps) == ({"siteId"}, {"containerName"}, frozenset())
    assert nodes["b7"].releases == ("b2",)
    assert nodes["b11"].releases == ("b3",)
    assert found.outputs.evaluate(scope) == {"storedAt": "BUF-2", "containerName": "C"}
    assert found.inputs[0] == InputParam("fromGroup", ParamType.STRING, required=True, label="from")


def test_the_other_samples() -> None:
    monitor = parse(sample("monitor"), REGISTRY, known_definitions=KNOWN)
    assert monitor.sub_tasks == {"line-supply"}
    nodes = {node.name: node for node in monitor.nodes}
    assert (nodes["b6"].type, nodes["b6"].sub_task, nodes["b6"].recovery) == ("SubTask", "line-supply", "reattach")
    scope = {"blocks": {"b4": {"site": {"id": "LINE-1"}}}}
    assert nodes["b6"].params.evaluate(scope) == {"ifAsync": False, "taskRecordId": None, "siteId": "LINE-1"}
    careful = parse(sample("careful_load"), REGISTRY)
    nodes = {node.name: node for node in careful.nodes}
    assert nodes["b12"].disabled
    assert careful.release == "failure"
    params = nodes["b4"].params.evaluate({"taskInputs": {"site": "S"}, "blocks": {"b1": {"error": "jam"}}})
    assert params["header"] == {"Content-Type": "application/json"}
    assert params["param"] == {"site": "S", "error": "jam", "level": 3}


def test_unknown_members_are_kept_and_do_not_matter() -> None:
    data = sample("transport")
    data["windTaskDefId"] = {"any": ["thing", 1.5, None]}
    data["rootBlock"]["children"]["default"][0]["selected"] = True
    data["rootBlock"]["children"]["default"][0]["inputParams"]["stateMsg"]["label"] = "x"
    parse(data, REGISTRY)
    assert json.loads(canonical(data)) == data
    assert content_hash(data) != content_hash(sample("transport"))


def test_the_hash_is_of_the_content_not_the_layout() -> None:
    data = sample("transport")
    turned = json.loads(json.dumps(data, indent=3), object_pairs_hook=lambda pairs: dict(reversed(pairs)))
    assert content_hash(turned) == content_hash(data)
    assert canonical(turned) == canonical(data)
    before = copy.deepcopy(data)
    parse(data, REGISTRY)
    assert data == before


@pytest.mark.parametrize(
    ("stated", "release"),
    [(True, "always"), (False, "never"), (None, "always"), ("failure", "failure"), (1, "always"), ("false", "never")],
)
def test_release_of_sites(stated: Any, release: str) -> None:
    assert flow(releaseSites=stated).release == release
    assert flow(releaseSites=stated, releaseOnEnd="failure").release == "failure"


def test_empty_and_missing_members() -> None:
    root = {"id": -1, "name": None, "blockType": "RootBp", "children": None, "inputParams": None}
    found = parse({"label": None, "inputParams": None, "outputParams": None, "rootBlock": root}, REGISTRY)
    assert (found.label, found.version, found.depth, len(found.nodes)) == ("", "", 1, 1)
    one = {"id": 1, "blockType": "BreakBp", "children": {"default": []}}
    loop = b(2, "RepeatNumBp", {"num": "2"}, default=[one])
    found = flow(loop)
    assert found.nodes[2].name == "b1"


# ---- problems ---------------------------------------------------------------------------------------


def test_all_problems_at_once() -> None:
    data = plan(
        "test",
        b(1, "RepeatNumBp", {"num": "1001"}, default=[b(2, "Unknwon"), b(3, "SkipToComponent")]),
        b(4, "IfBp", {"condition": "=blocks.b1.index = 3"}, if_=[b(5, "BreakBp")]),
        b(6, "DelayBp", {"timeMillis": "-5", "extra": "x"}, retry={"maxAttempts": 0, "foo": 1}, timeoutMs="x"),
        b(7, "WhileBp", {"loopCondition": "=blocks.b77.x"}, default=[b(7, "DelayBp", name="b6")]),
        b(8, "StopOtherBranch", recovery="perhaps", disabled="yes"),
        inputs=[("a", "Foo"), ("a", "Long")],
        maxParallel=0,
        releaseSites=[],
        remark=5,
    )
    data["inputParams"].append({"name": "c", "type": "Long", "defaultValue": "many"})
    found = problems(data)
    at = "/rootBlock/children/default"
    assert {path: each.message.split(": ")[-1] for path, each in found.items()} == {
        f"{at}/0/inputParams/num/value": "Expected int <= 1000, not Long 1001",
        f"{at}/0/children/default/0/blockType": "blockType 'Unknwon' is unknown",
        f"{at}/0/children/default/1/blockType": "blockType SkipToComponent is not supported",
        f"{at}/1/inputParams/condition/value": "unexpected '=' [column 17 of `blocks.b1.index = 3`]",
        f"{at}/1/children/if": "IfBp has no branch 'if'",
        f"{at}/1/children/if/0": "BreakBp must be inside a loop",
        f"{at}/2/inputParams/timeMillis/value": "Expected int >= 0, not Long -5",
        f"{at}/2/retry/foo": "foo is not part of a retry policy",
        f"{at}/2/retry/maxAttempts": "maxAttempts must be from 1 to 1,000, not 0",
        f"{at}/2/timeoutMs": 'timeoutMs must be a number, not String "x"',
        f"{at}/3/inputParams/loopCondition": "b7 (WhileBp, id 7) reads blocks.b77, but there is no block of that name",
        f"{at}/3/children/default/0/id": "id 7 is also the id of /rootBlock/children/default/3",
        f"{at}/3/children/default/0/name": "name 'b6' is also the name of /rootBlock/children/default/2",
        f"{at}/3/children/default/0/inputParams": "parameter timeMillis is missing",
        f"{at}/4": "StopOtherBranch must be inside a parallel block",
        f"{at}/4/recovery": "recovery must be one of rerun, reattach, operator, not 'perhaps'",
        f"{at}/4/disabled": 'disabled must be true or false, not String "yes"',
        "/inputParams/0/type": "type 'Foo' is unknown",
        "/inputParams/1/name": "name is used twice",
        "/inputParams/2/defaultValue": 'defaultValue must be a whole number of 64 bits (Long), not String "many"',
        "/maxParallel": "maxParallel must be from 1 to 10,000, not 0",
        "/releaseSites": "releaseSites must be one of always, failure, never, not list of 0",
        "/remark": "remark must be text, not Long 5",
    }
    assert found[f"{at}/0/children/default/0/blockType"].message.startswith("b2 (Unknwon, id 2): ")
    assert "cannot be replayed" in found[f"{at}/0/children/default/1/blockType"].hint
    assert found[f"{at}/3/inputParams/loopCondition"].hint == "did you mean b7?"


@pytest.mark.parametrize(
    ("block", "path", "message"),
    [
        ({"id": "1", "blockType": "ReturnBp"}, "/id", 'id must be a whole number from 0, not String "1"'),
        ({"id": True, "blockType": "ReturnBp"}, "/id", "id must be a whole number from 0, not Boolean true"),
        ({"id": -5, "blockType": "ReturnBp"}, "/id", "id must be a whole number from 0, not Long -5"),
        ({"id": 1}, "/blockType", "blockType is missing"),
        ({"id": 1, "blockType": 5}, "/blockType", "blockType must be text"),
        ({"id": 1, "blockType": "RootBp"}, "/blockType", "must be the root block"),
        ({"id": 1, "blockType": "ReturnBp", "children": []}, "/children", "must be a JSON object"),
        ({"id": 1, "blockType": "SerialFlowBp", "children": {"default": {}}}, "/children/default", "a JSON array"),
        ({"id": 1, "blockType": "SerialFlowBp", "children": {"a/b": [1]}}, "/children/a~1b", "no branch 'a/b'"),
        ({"id": 1, "blockType": "SerialFlowBp", "children": {"default": [7]}}, "/children/default/0", "not Long 7"),
        ({"id": 1, "blockType": "ReturnBp", "inputParams": "x"}, "/inputParams", "must be a JSON object"),
        ({"id": 1, "blockType": "ReturnBp", "name": "x" * 201}, "/name", "more than 200"),
        ({"id": 1, "blockType": "SubTask"}, "/blockType", "does not say which definition"),
        ({"id": 1, "blockType": "SubTask::"}, "/blockType", "does not say which definition"),
        (5, "", "a block is a JSON object, not Long 5"),
    ],
)
def test_bad_blocks(block: Any, path: str, message: str) -> None:
    found = problems(plan("test", block))
    at = f"/rootBlock/children/default/0{path}"
    assert at in found
    assert message in found[at].message


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        (5, "must be an object, not Long 5"),
        ({"type": "Script", "value": "x"}, 'has the type String "Script"'),
        ({"type": ["Simple"], "value": "x"}, "has the type list of 1"),
        ({"type": "Simple", "value": "soon"}, "must be a whole number of 64 bits (Long)"),
        ({"type": "Simple", "value": "1e999"}, "must be a whole number of 64 bits (Long)"),
        ({"type": "Simple", "value": 1.5}, "must be a whole number of 64 bits (Long)"),
        ({"type": "Simple", "value": [1]}, "must be a whole number of 64 bits (Long)"),
        ({"type": "Expression", "value": "1 +"}, "is not an expression: the expression ends too early"),
        ({"type": "Expression", "value": "x.y"}, "there is no 'x'"),
        ({"type": "Key-Value", "value": []}, "is Long and cannot be Key-Value"),
    ],
)
def test_bad_parameters(entry: Any, message: str) -> None:
    block = {"id": 1, "name": "b1", "blockType": "DelayBp", "inputParams": {"timeMillis": entry}}
    found = problem(block)
    assert found.path.startswith("/rootBlock/children/default/0/inputParams/timeMillis")
    assert found.message.startswith("b1 (DelayBp, id 1): timeMillis ")
    assert message in found.message


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (5, "must hold rows, not Long 5"),
        ("[1", "must hold rows: "),
        ([1], "has a row that is not"),
        ([["a"]], "has a row that is not"),
        ([["", "x"]], "has a row that is not"),
        ([["a", "x", "String", 4]], "has a row that is not"),
        ([["a", "x"], ["a", "y"]], "has the key 'a' more than once"),
        ([["a", "x", "Longer"]], 'row a has the type String "Longer"'),
        ([["a", "x", "Long"]], "row a must be a whole number"),
        ([["a", "=1 +", "Long"]], "is not an expression"),
    ],
)
def test_bad_rows(rows: Any, message: str) -> None:
    block = {"id": 1, "blockType": "PostBp", "inputParams": {"param": {"type": "Key-Value", "value": rows}}}
    assert message in problem(block).message


def test_rows_as_the_format_has_them() -> None:
    rows = [["a", "1", "Long"], ["b", "=taskInputs.x", "String"], {"key": "c", "value": ""}, ["d", "1"]]
    for value in (rows, json.dumps(rows)):
        block = {"id": 1, "blockType": "PostBp", "inputParams": {"param": {"type": "Key-Value", "value": value}}}
        params = flow(block).nodes[1].params.evaluate({"taskInputs": {"x": 5}})
        assert params == {"param": {"a": 1, "b": "5", "c": None, "d": "1"}}


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "truncated"),
        (b'{"label": "a",\n  "rootBlock": }', "line 2 column 16"),
        ("[1]", "a definition is a JSON object, not list of 1"),
        (b"\xff\xfe", "malformed"),
        ("\ud800", "not Unicode"),
        ('{"a": 1e999}', "out of range"),
        ('{"a": NaN}', "malformed"),
        ('{"a": 18446744073709551616}', "beyond 64 bits"),
        ({"a": 2**70}, "beyond 64 bits"),
        ({"a": [float("nan")]}, "not finite"),
        ({"a": {1: 2}}, "keys of a JSON object are texts"),
        ({"a": {1, 2}}, "set is not a JSON type"),
        ({"a": "\ud800"}, "lone surrogate"),
        ("{}", "needs a rootBlock"),
        ('{"rootBlock": {"id": 1, "blockType": "IfBp"}}', "must be RootBp"),
        (b"x" * (1024 * 1024 + 1), "more than 1,048,576"),
        ({"a": "x" * (1024 * 1024 + 1)}, "more than 1,048,576"),
        ("[" * 100_000, "nested too deeply"),
        ('{"a":' * 100_000 + "1" + "}" * 100_000, "nested too deeply"),
    ],
)
def test_bad_documents(data: Any, message: str) -> None:
    assert any(message in each.message for each in problems(data).values())


def test_100_000_nested_blocks() -> None:
    inner: dict[str, Any] = {}
    for number in range(100_000):
        inner = {"id": number, "name": f"b{number}", "blockType": "SerialFlowBp", "children": {"default": [inner]}}
    begun = time.process_time()
    found = problems({"label": "deep", "rootBlock": inner})
    assert time.process_time() - begun < 10
    assert [each.message for each in found.values()] == ["the JSON is nested too deeply"]


def test_depth_and_number_of_blocks() -> None:
    def nested(depth: int) -> Block:
        inner = b(depth, "ReturnBp")
        for number in range(depth - 1, 0, -1):
            inner = b(number, "SerialFlowBp", default=[inner])
        return plan("deep", inner)

    assert parse(nested(49), REGISTRY).depth == 50
    found = problems(nested(50))
    assert [each.message for each in found.values()] == ["the blocks are nested too deeply"]
    assert len(problems(nested(60))) == 1

    large = Limits(max_body_bytes=4 * 1024 * 1024)
    many = [b(number, "ReturnBp") for number in range(10_000)]
    found = problems(plan("many", *many), limits=large)
    assert [each.message for each in found.values()] == ["the definition has more than 10,000 blocks"]
    assert len(parse(plan("many", *many[:-1]), REGISTRY, limits=large).nodes) == 10_000


def test_problems_are_listed_up_to_a_number() -> None:
    with pytest.raises(DefinitionError) as caught:
        parse(plan("test", *[b(number, "Nope") for number in range(250)]), REGISTRY)
    assert len(caught.value.problems) == 101
    assert caught.value.problems[-1].message == "and 150 more problems"


# ---- sub-tasks, references ----------------------------------------------------------------------


def test_sub_tasks_are_checked_against_what_they_start() -> None:
    supply = b(1, "SubTask::line-supply", {"siteId": "=1", "n": "5"})
    found = parse(plan("t", supply), REGISTRY, known_definitions=KNOWN)
    assert found.nodes[1].params.evaluate({})["n"] == 5
    assert found.nodes[1].params.evaluate({})["siteId"] == "1"
    by_reference = {"id": 1, "blockType": "SubTask", "refTaskDefId": "line-supply"}
    assert flow(by_reference).sub_tasks == {"line-supply"}
    for params, message in (
        ({}, "input siteId of the sub-task is missing"),
        ({"siteId": "a", "n": "x"}, "n must be a whole number"),
        ({"siteId": "a", "siteid": "x"}, "siteid is not a parameter of SubTask"),
    ):
        assert message in problem(b(1, "SubTask::line-supply", params), known_definitions=KNOWN).message
    found_problem = problem(b(1, "SubTask::line-suply"), known_definitions=KNOWN)
    assert "there is no definition 'line-suply'" in found_problem.message
    assert found_problem.hint == "did you mean line-supply?"


def test_a_parameter_that_a_block_does_not_have_is_a_warning() -> None:
    """Definitions of the known systems carry options that mean nothing here; they import unchanged."""
    found = flow(b(1, "DelayBp", {"timeMillis": "5", "timeMilis": "7", "spin": "=taskInputs.x"}))
    assert {warning.path.rsplit("/", 1)[1]: warning.hint for warning in found.warnings} == {
        "timeMilis": "did you mean timeMillis?",
        "spin": "it has timeMillis",
    }
    assert found.nodes[1].params.evaluate({}) == {"timeMillis": 5}


def test_circles_of_sub_tasks() -> None:
    assert sub_task_cycle({"a": ["b", "c"], "b": ["c"], "c": []}) is None
    assert sub_task_cycle({"a": ["b"], "b": ["c"], "c": ["a"]}) == ("a", "b", "c", "a")
    assert sub_task_cycle({"a": ["a"]}) == ("a", "a")
    assert sub_task_cycle({"x": ["a"], "a": ["b"], "b": ["a"]}) == ("a", "b", "a")
    chain = {str(number): [str(number + 1)] for number in range(20_000)}
    assert sub_task_cycle(chain) is None
    assert sub_task_cycle({**chain, "20000": ["19999"]}) == ("19999", "20000", "19999")


def test_warnings_for_what_is_null_for_certain() -> None:
    found = flow(
        b(1, "PrintBp", {"message": "=blocks.b2.x"}),
        b(2, "PrintBp", {"message": "=taskInputs.naem"}),
        b(3, "GetIdleSiteBp"),
        b(4, "PrintBp", {"message": "=blocks.b3.siteID"}),
        inputs=[("name", "String")],
    )
    assert [(each.path.rpartition("/rootBlock/children/default/")[2], each.message) for each in found.warnings] == [
        ("0/inputParams/message",
         "b1 (PrintBp, id 1) reads blocks.b2, which cannot have run before it: the value is null"),
        ("1/inputParams/message", "b2 (PrintBp, id 2) reads taskInputs.naem, which inputParams does not declare"),
        ("3/inputParams/message", "b4 (PrintBp, id 4) reads blocks.b3.siteID, which GetIdleSiteBp never gives"),
    ]  # fmt: skip


# ---- inputs and outputs -------------------------------------------------------------------------


def inputs(*rows: dict[str, Any]) -> Flow:
    return parse({**plan("test"), "inputParams": list(rows)}, REGISTRY)


def test_inputs_are_converted() -> None:
    found = inputs(
        {"name": "s", "type": "String", "defaultValue": "x"},
        {"name": "b", "type": "Boolean", "defaultValue": "true"},
        {"name": "o", "type": "JSONObject"},
        {"name": "a", "type": "JSONArray", "defaultValue": "[1]"},
        {"name": "d", "type": "Double", "required": True},
        {"name": "l", "type": "Long", "required": True, "defaultValue": "3"},
    )
    assert check_inputs(found, {"d": "1.5", "o": '{"k": 1}', "more": [1]}) == {
        "s": "x", "b": True, "o": {"k": 1}, "a": [1], "d": 1.5, "l": 3, "more": [1],
    }  # fmt: skip
    assert check_inputs(found, {"d": 1, "s": 5, "b": False, "l": "", "a": None})["s"] == "5"


def test_bad_inputs_are_all_listed() -> None:
    found = inputs(
        {"name": "d/e", "type": "Double", "required": True, "label": "depth"},
        {"name": "l", "type": "Long"},
        {"name": "s", "type": "String", "required": True},
    )
    with pytest.raises(DefinitionError) as caught:
        check_inputs(found, {"l": "many", "s": ""})
    assert [(each.path, each.message) for each in caught.value.problems] == [
        ("/inputs/d~1e", "input d/e is required: Double depth"),
        ("/inputs/l", 'input l must be a whole number of 64 bits (Long), not String "many"'),
        ("/inputs/s", "input s is required: String"),
    ]
    with pytest.raises(DefinitionError, match="the number is not finite"):
        check_inputs(found, {"x": {"y": [float("inf")]}})
    with pytest.raises(DefinitionError, match="not a JSON type"):
        check_inputs(found, {"x": object()})


def test_outputs() -> None:
    data = plan("test", b(1, "GetIdleSiteBp"))
    data["outputParams"] = [
        {"name": "site", "type": "String", "value": "=blocks.b1.siteId"},
        {"name": "n", "type": "Long", "value": {"type": "Expression", "value": "1 + 1"}},
        {"name": "fixed", "type": "Long", "value": "7"},
        {"name": "from variable", "type": "JSONArray"},
    ]
    found = parse(data, REGISTRY)
    scope = {"blocks": {"b1": {"siteId": "A"}}, "task": {"variables": {"from variable": [1]}}}
    assert found.outputs.evaluate(scope) == {"site": "A", "n": 2, "fixed": 7, "from variable": [1]}
    assert found.nodes[1].releases == ()
    data["outputParams"].append({"name": "bad", "type": "Long", "value": "=blocks.b9.x +"})
    data["outputParams"].append({"name": "gone", "type": "Long", "value": "=blocks.b9.x"})
    assert set(problems(data)) == {"/outputParams/4", "/outputParams/5"}


def test_retry_pauses() -> None:
    retry = Retry(5, 1.0, 2.0, 5.0, 0.0)
    assert [retry.pause_s(attempt) for attempt in (1, 2, 3, 4)] == [1.0, 2.0, 4.0, 5.0]
    spread = Retry(5, 1.0, 2.0, 5.0, 0.5)
    assert (spread.pause_s(1, lambda: 0.0), spread.pause_s(1, lambda: 1.0)) == (0.5, 1.5)
    assert Retry(1000, 1.0, 100.0, 60.0, 0.0).pause_s(999) == 60.0
