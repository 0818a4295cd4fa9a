"""Blocks: kinds read from signatures, argument passing, outputs, the registry and the palette."""

from __future__ import annotations

import datetime
import enum
import sys
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Annotated, Any, Literal

import msgspec
import pytest
from msgspec import Meta

from flatwater.engine.block import BlockCall, Kind, Registry, Shape, block, kind_of
from flatwater.engine.blocks import builtin
from flatwater.engine.catalogue import FLOW_KINDS
from flatwater.engine.parameter import NEEDED, ConversionError, ParamType
from flatwater.errors import ConflictError, NotFoundError


class Weight(msgspec.Struct, rename="camel"):
    net_kg: float
    stable: bool = True


@dataclass
class Box:
    width: int
    tags: list[str]


class Mode(enum.Enum):
    FAST = "fast"
    SLOW = "slow"


@block("Weigh", aliases=["WeighBp"], recovery="reattach")
async def weigh(
    scale: str,
    tare: float = 0.0,
    unit: Literal["kg", "g"] = "kg",
    times: Annotated[int, Meta(ge=1, le=9, description="how often")] = 1,
    boxes: list[Box] | None = None,
    *,
    call: BlockCall,
) -> Weight:
    """Put it on the scale.

    And read it.
    """
    return Weight(1.5 - tare)


@block("Pack", family="test", branches=("default",), camel=True)
def pack(site_id: str, box: Box, type_: Mode = Mode.FAST, at: datetime.date | None = None, **extra: Any) -> int:
    return box.width


def kind(func: Any) -> Kind:
    found = kind_of(func)
    assert found is not None
    return found


def test_a_kind_is_read_from_the_signature() -> None:
    found = kind(weigh)
    assert (found.type, found.family, found.recovery, found.aliases) == ("Weigh", "custom", "reattach", ("WeighBp",))
    assert found.description == "Put it on the scale."
    assert found.is_async
    assert found.wants_call
    assert not found.open
    assert [(p.name, p.type, p.required) for p in found.params] == [
        ("scale", ParamType.STRING, True),
        ("tare", ParamType.DOUBLE, False),
        ("unit", ParamType.STRING, False),
        ("times", ParamType.LONG, False),
        ("boxes", ParamType.ARRAY, False),
    ]
    assert found.by_name["scale"].default is NEEDED
    assert found.by_name["times"].description == "how often"
    assert found.shape is Shape.LEAF


def test_the_function_stays_a_function() -> None:
    assert pack("A", Box(3, [])) == 3


def test_names_of_the_format() -> None:
    found = kind(pack)
    assert [param.name for param in found.params] == ["siteId", "box", "type", "at"]
    assert not found.is_async
    assert not found.wants_call
    assert found.open
    assert found.branches == ("default",)
    assert found.shape is Shape.SERIAL


def test_arguments_are_what_the_function_asks_for() -> None:
    arguments = kind(pack).arguments(
        {"siteId": "A", "box": {"width": 1, "tags": ["x"]}, "type": "slow", "at": "2026-01-31", "more": [1]}
    )
    assert arguments == {
        "site_id": "A",
        "box": Box(1, ["x"]),
        "type_": Mode.SLOW,
        "at": datetime.date(2026, 1, 31),
        "more": [1],
    }
    defaults = {param.name: param.default for param in kind(pack).params[2:]}
    assert kind(pack).arguments(defaults) == {"type_": Mode.FAST, "at": None}


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("unit", "lb", "Invalid enum value 'lb'"),
        ("times", 10, "Expected int <= 9"),
        ("times", 0, "Expected int >= 1"),
        ("boxes", '[{"width": 1}]', r"missing required field tags - at boxes\[0\]"),
        ("boxes", [{"width": "x", "tags": []}], r"Expected int, got str - at boxes\[0\].width"),
    ],
)
def test_choices_bounds_and_structs_are_checked(name: str, value: Any, message: str) -> None:
    with pytest.raises(ConversionError, match=message):
        kind(weigh).by_name[name].convert(value)


@pytest.mark.parametrize(
    ("result", "outputs"),
    [
        (None, {}),
        ({"a": 1}, {"a": 1}),
        ({"a": (1, {2: None})}, {"a": [1, {"2": None}]}),
        (Weight(2.0), {"netKg": 2.0, "stable": True}),
        (Box(1, ["a"]), {"width": 1, "tags": ["a"]}),
        (5, {"result": 5}),
        ([1], {"result": [1]}),
        (Mode.FAST, {"result": "fast"}),
        ({"a": float("nan")}, {"a": None}),
    ],
)
def test_outputs_are_plain_json(result: Any, outputs: dict[str, Any]) -> None:
    assert kind(weigh).pack(result) == outputs


def test_outputs_that_json_cannot_hold() -> None:
    with pytest.raises(TypeError, match="block Weigh returned what JSON cannot hold"):
        kind(weigh).pack({"a": object()})


def test_signatures_that_cannot_be_blocks() -> None:
    def star(*args: int) -> None: ...
    def positional(a: int, /) -> None: ...
    def odd(a: ModuleType) -> None: ...
    def other_name(ctx: BlockCall) -> None: ...
    def unknown(a: NotThere) -> None: ...  # type: ignore[name-defined]  # noqa: F821

    for func, message in (
        (star, "cannot be given by name"),
        (positional, "cannot be given by name"),
        (odd, "parameter a cannot come from JSON"),
        (other_name, "name the BlockCall parameter 'call'"),
        (unknown, "at the top level of its module"),
    ):
        with pytest.raises(TypeError, match=message):
            block("Odd")(func)
    with pytest.raises(TypeError, match="recovery must be one of"):
        block("Odd", recovery="never")(test_the_function_stays_a_function)  # type: ignore[arg-type]
    for name in ("", "Sub::task", "x" * 101):
        with pytest.raises(TypeError, match="cannot be a block type"):
            block(name)(test_the_function_stays_a_function)


# ---- registry ---------------------------------------------------------------------------------------


def test_registry_finds_by_type_alias_and_prefix() -> None:
    registry = Registry([*FLOW_KINDS, weigh])
    assert registry.require("Weigh") is registry.get("WeighBp") is kind(weigh)
    found = registry.get("SubTask::line-supply")
    assert found is not None
    assert found.type == "SubTask"
    assert "IfBp" in registry
    assert len(registry) == len(FLOW_KINDS) + 1
    with pytest.raises(NotFoundError, match=r"no block type 'Weihg'.*did you mean Weigh"):
        registry.require("Weihg")


def test_registry_refuses_clashes() -> None:
    @block("WeighBp")
    def other() -> None: ...

    registry = Registry([weigh])
    registry.register(weigh)
    with pytest.raises(ConflictError, match=r"WeighBp is declared by .*weigh and by .*other"):
        registry.register(other)
    assert registry.get("WeighBp") is kind(weigh)
    with pytest.raises(TypeError, match="not a block"):
        registry.register(print)


def test_an_implementation_replaces_its_declaration() -> None:
    @block("SubTask", camel=True)
    async def sub_task(if_async: bool = False, **inputs: Any) -> dict[str, Any]:
        return inputs

    registry = Registry(FLOW_KINDS)
    registry.register(sub_task)
    assert registry.require("SubTask::x").func is sub_task
    assert len(registry) == len(FLOW_KINDS)


def test_modules() -> None:
    found = Registry()
    found.add_module(sys.modules[__name__])
    assert {each.type for each in found} == {"Weigh", "Pack"}


def test_entry_points(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As an installed package offers them: one block, several, and a module of them."""
    source = "from flatwater.engine.block import block\n"
    for name in ("One", "Two", "Three"):
        source += f"@block('{name}')\ndef {name.lower()}(x: int = 0) -> int:\n    return x\n"
    (tmp_path / "plant_blocks.py").write_text(source + "several = [two, three]\n")
    info = tmp_path / "plant_blocks-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: plant-blocks\nVersion: 1.0\n")
    points = "one = plant_blocks:one\nseveral = plant_blocks:several\nall = plant_blocks\n"
    (info / "entry_points.txt").write_text(f"[flatwater.blocks]\n{points}")
    monkeypatch.syspath_prepend(tmp_path)
    registry = Registry()
    registry.load_entry_points()
    assert {kind.type for kind in registry} == {"One", "Two", "Three"}


def test_the_builtin_registry_has_the_flow_family() -> None:
    registry = builtin()
    assert {kind.type for kind in FLOW_KINDS} <= {kind.type for kind in registry}


# ---- palette ----------------------------------------------------------------------------------------


def test_palette_is_json_schema() -> None:
    entries = {entry["type"]: entry for entry in Registry([*FLOW_KINDS, weigh, pack]).palette()}
    msgspec.json.encode(entries)
    found = entries["Weigh"]
    assert found["params"]["required"] == ["scale"]
    assert found["params"]["additionalProperties"] is False
    properties = found["params"]["properties"]
    assert properties["scale"] == {"type": "string", "x-type": "String"}
    assert properties["tare"] == {"type": "number", "x-type": "Double", "default": 0.0}
    assert properties["unit"]["enum"] == ["g", "kg"]
    assert (properties["times"]["minimum"], properties["times"]["maximum"]) == (1, 9)
    assert properties["times"]["description"] == "how often"
    assert "Box" in found["params"]["$defs"]
    assert set(found["outputs"]["properties"]) == {"netKg", "stable"}
    assert entries["Pack"]["outputs"]["properties"] == {"result": {"type": "integer"}}
    assert entries["Pack"]["params"]["additionalProperties"] is True
    assert entries["TryCatchBp"]["branches"] == ["try", "catch"]
    assert set(entries["IterateListBp"]["outputs"]["properties"]) == {"index", "size", "item"}
    assert entries["RepeatNumBp"]["params"]["properties"]["num"]["maximum"] == 1000
    assert entries["DelayBp"]["outputs"]["properties"] == {}


def test_every_flow_kind_is_described() -> None:
    assert all(kind.description for kind in FLOW_KINDS)
