"""What users' packages add beside blocks: functions of expressions and kinds of triggers."""

from __future__ import annotations

import asyncio
import re
import threading
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from time import sleep, time
from typing import Any

import pytest

from flatwater.engine.block import Registry
from flatwater.engine.blocks import load
from flatwater.engine.definition import parse
from flatwater.engine.engine import Engine
from flatwater.engine.function import function
from flatwater.engine.trigger_kind import Occurrence, trigger
from flatwater.errors import ConflictError, DefinitionError, InputError, SettingError
from flatwater.store import trigger as triggers
from flatwater.store.run import RunFilter, page
from tests.engine.conftest import Open, Trace, kinds
from tests.engine.package import install
from tests.engine.plan import b, plan

PLANT = '''
from flatwater.engine.block import block
from flatwater.engine.function import function
from flatwater.engine.trigger_kind import trigger


@block("Weigh")
def weigh(x: int = 0) -> int:
    return x


@function("row", "siteRow", null=None, example="row('A-17')")
def row(site):
    """The row of a site."""
    return site.split("-")[0]


@trigger("tide")
def tide(spec, after):
    """When the tide is high: seconds between two."""
    return after + float(spec)
'''


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str, str, str], None]:
    def make(name: str, source: str, points: str) -> None:
        (tmp_path / name).mkdir()
        install(tmp_path / name, name, source, points, monkeypatch)

    return make


def evaluated(registry: Registry, source: str, **inputs: Any) -> Any:
    flow = parse(plan("x", outputs={"found": source}), registry)
    return flow.outputs.evaluate({"taskInputs": inputs, "blocks": {}, "task": {}})["found"]


def registry_of(*items: Any) -> Registry:
    registry = Registry(kinds(Trace()))
    for item in items:
        registry.add(item)
    return registry


# ---- packages ---------------------------------------------------------------------------------------


def test_an_installed_package_brings_blocks_functions_and_triggers(package: Any) -> None:
    package("fw_plant", PLANT, "[flatwater.blocks]\nplant = fw_plant\n")
    registry = load()
    assert evaluated(registry, "row(taskInputs.site) + siteRow('B-2') + taskInputs.site.row()", site="A-17") == "ABA"
    assert evaluated(registry, "row(taskInputs.nothing)") is None
    assert registry.require("Weigh").family == "custom"
    assert registry.triggers.items["tide"].next_time("60", 1000.0) == 1060.0
    shown = {each["name"]: each for each in registry.function_palette()}
    assert shown["row"] == {
        "name": "row", "least": 1, "most": 1, "description": "The row of a site.",
        "example": "row('A-17')", "origin": "fw_plant.row",
    }  # fmt: skip
    assert shown["size"]["origin"] == ""
    assert ("tide", "clock") in [(each["name"], each["how"]) for each in registry.trigger_palette()]


def test_a_named_module_brings_the_same_without_being_installed(package: Any) -> None:
    package("fw_named", PLANT, "")
    assert "row" not in load().functions.items
    assert evaluated(load(["fw_named"]), "row('C-1')") == "C"


def test_single_items_and_lists_may_be_offered(package: Any) -> None:
    package(
        "fw_items", PLANT + "both = [row, tide]\n", "[flatwater.blocks]\nboth = fw_items:both\none = fw_items:row\n"
    )
    registry = load()
    assert set(registry.functions.added) == {"row", "siteRow"}
    assert set(registry.triggers.added) == {"tide"}
    assert registry.get("Weigh") is None


def test_two_packages_with_one_name_are_refused_with_both_named(package: Any) -> None:
    package("fw_first", PLANT.replace("Weigh", "W1"), "[flatwater.blocks]\nx = fw_first\n")
    package("fw_second", PLANT.replace("Weigh", "W2"), "[flatwater.blocks]\ny = fw_second\n")
    with pytest.raises(ConflictError) as caught:
        load()
    assert "expression function row" in str(caught.value)
    assert "fw_first.row" in str(caught.value)
    assert "fw_second.row" in str(caught.value)


@pytest.mark.parametrize("name", ["size", "now"])
def test_flatwaters_own_names_are_taken(name: str) -> None:
    @function(name)
    def mine(x: Any = 0) -> Any:
        return x

    with pytest.raises(ConflictError, match=f"function {name} is declared by Flatwater and by"):
        registry_of(mine)


def test_a_package_that_cannot_be_loaded_is_named(package: Any) -> None:
    package("fw_broken", "raise RuntimeError('no licence')", "[flatwater.blocks]\nx = fw_broken\n")
    with pytest.raises(SettingError) as caught:
        load()
    for part in ("fw_broken", "RuntimeError: no licence", "uninstall"):
        assert part in str(caught.value)


# ---- functions --------------------------------------------------------------------------------------


@function("double_it")
def double_it(value: float, times: int = 2) -> float:
    return value * times


@pytest.mark.parametrize(
    ("source", "wrong"),
    [
        ("doubleit(1)", "did you mean double_it?"),
        ("double_it()", "takes 1 to 2 arguments, not 0"),
        ("double_it(1, 2, 3)", "takes 1 to 2 arguments, not 3"),
    ],
)
def test_a_definition_is_checked_when_it_is_imported(source: str, wrong: str) -> None:
    with pytest.raises(DefinitionError) as caught:
        parse(plan("x", b(7, "Note", {"value": f"={source}"})), registry_of(double_it))
    (problem,) = caught.value.problems
    assert problem.path == "/rootBlock/children/default/0/inputParams/value/value"
    assert "column 1" in problem.message
    assert wrong in problem.message + problem.hint


def raises(value: Any) -> Any:
    raise ValueError("no such pallet")


def gives(result: Any) -> Any:
    return lambda: result


def nested(depth: int) -> Any:
    found: Any = 1
    for _ in range(depth):
        found = [found]
    return found


def waits() -> int:
    sleep(0.06)
    return 1


def burns() -> int:
    return sum(number * number for number in range(1_000_000))


@pytest.mark.parametrize(
    ("call", "wrong"),
    [
        (gives({1, 2}), "the result of f has a set in it, which cannot be stored"),
        (gives({"a": [object()]}), "the result of f has a object in it"),
        (gives({1: 2}), "the result of f has a dict in it"),
        (gives(float("nan")), "beyond what a Double can hold"),
        (gives(2**64), "beyond what a Long can hold"),
        (gives("x" * 1_000_001), "the text grows beyond 1,000,000 characters"),
        (gives([0] * 100_001), "the list grows beyond 100,000 items"),
        (gives([[0] * 1000] * 1000), "the result of f holds more than 200,000 values"),
        (gives(nested(41)), "the result of f is nested deeper than 40 levels"),
        (burns, "of the processor, 0.005 s are allowed"),
        (waits, "most of them waiting"),
    ],
)
async def test_what_a_function_may_not_do_fails_the_block_with_its_path(
    open_engine: Open, call: Any, wrong: str
) -> None:
    registry = registry_of(function("f", max_cpu_s=0.005)(call))
    async with open_engine(registry=registry) as engine:
        await engine.save(plan("x", b(3, "SerialFlowBp", default=[b(5, "Note", {"value": "=1 + f()"})])))
        outcome = await engine.result(await engine.submit("x"))
    assert outcome.state == "FAILED"
    assert outcome.error_path == "-1/3/5"
    assert wrong in str(outcome.error)


async def test_a_function_that_raises_names_itself_the_place_and_its_line(open_engine: Open) -> None:
    async with open_engine(registry=registry_of(function("pallet")(raises))) as engine:
        await engine.save(plan("x", b(5, "Note", {"value": "=1 + pallet(3)"})))
        outcome = await engine.result(await engine.submit("x"))
    assert outcome.error_path == "-1/5"
    for part in ("b5 (Note, id 5)", "value", "pallet raised ValueError: no such pallet", "column", "1 + pallet(3)"):
        assert part in str(outcome.error)
    assert f"{Path(__file__).name}:{raises.__code__.co_firstlineno + 1}" in str(outcome.error)


def test_a_function_cannot_change_a_runs_values() -> None:
    @function("spoil")
    def spoil(values: list[Any]) -> int:
        values[0]["n"] = 99
        values.clear()
        return 0

    given = [{"n": 1}]
    assert evaluated(registry_of(spoil), "spoil(taskInputs.orders)", orders=given) == 0
    assert given == [{"n": 1}]


def test_what_it_keeps_of_its_result_does_not_reach_the_run() -> None:
    kept: list[list[int]] = []

    @function("keep")
    def keep() -> list[int]:
        kept.append([1])
        return kept[-1]

    found = evaluated(registry_of(keep), "keep()")
    kept[0].append(2)
    assert found == [1]


def test_calls_in_loops_are_metered() -> None:
    calls: list[int] = []

    @function("count_up")
    def count_up(x: int) -> int:
        calls.append(x)
        return x

    registry = registry_of(count_up)
    flow = parse(plan("x", outputs={"found": "taskInputs.l.map(x, count_up(x))"}), registry)
    with pytest.raises(Exception, match="takes more than 200,000 steps"):
        flow.outputs.evaluate({"taskInputs": {"l": list(range(50_000))}, "blocks": {}, "task": {}})
    assert 1_000 < len(calls) < 2_100


def test_what_is_impure_by_its_own_example_is_refused() -> None:
    state = iter(range(10))
    with pytest.raises(TypeError, match="is not pure: its example 'tick\\(\\)' gave 0, then 1"):
        function("tick", example="tick()")(lambda: next(state))
    with pytest.raises(TypeError, match="the example of function pallet fails"):
        function("pallet", example="pallet(1)")(raises)


async def coroutine() -> int:
    return 1


def by_name(*, key: int) -> int:
    return key


@pytest.mark.parametrize(
    ("names", "call", "wrong"),
    [
        (("a-b",), double_it, "cannot be a function's name"),
        (("filter",), double_it, "no word of the language"),
        (("blocks",), double_it, "no word of the language"),
        ((), double_it, "cannot be a function's name"),
        (("f",), coroutine, "an expression cannot wait"),
        (("f",), by_name, "arguments by place, not key by name"),
    ],
)
def test_what_cannot_be_a_function(names: tuple[str, ...], call: Any, wrong: str) -> None:
    with pytest.raises(TypeError, match=wrong):
        function(*names)(call)


# ---- triggers ---------------------------------------------------------------------------------------


async def runs_of(engine: Engine) -> list[Any]:
    return (await engine.store.read(page, RunFilter(), None, 100)).items


async def until_runs(engine: Engine, count: int) -> list[Any]:
    async with asyncio.timeout(60):
        while len(found := await runs_of(engine)) < count:
            await asyncio.sleep(0.02)
    return found


def clock(step_s: float) -> Any:
    @trigger("tide")
    def tide(spec: str, after: float) -> float:
        """Seconds between two tides."""
        if spec == "never":
            raise LookupError("no moon")
        return after + step_s

    return tide


async def test_a_users_clock_fires(open_engine: Open) -> None:
    async with open_engine(registry=registry_of(clock(0.2))) as engine:
        await engine.save(plan("x", b(1, "Note")))
        saved = await engine.triggers.save("t", "x", "tide", "any")
        assert saved.next_at == pytest.approx(time() + 0.2, abs=30)
        await until_runs(engine, 2)


async def test_unknown_kinds_and_bad_specs_are_refused(open_engine: Open) -> None:
    async with open_engine(registry=registry_of(clock(-1))) as engine:
        await engine.save(plan("x", b(1, "Note")))
        with pytest.raises(InputError, match="did you mean tide"):
            await engine.triggers.save("t", "x", "tides", "1")
        with pytest.raises(InputError, match="LookupError: no moon"):
            await engine.triggers.save("t", "x", "tide", "never")
        with pytest.raises(InputError, match="gave -1 s from then"):
            await engine.triggers.save("t", "x", "tide", "1")


class Bench:
    """A source that tells what a test puts in, and notes what was durable when it went on."""

    def __init__(self) -> None:
        self.waiting: asyncio.Queue[Any] = asyncio.Queue()
        self.told: list[Any] = []
        self.listening = 0
        self.begun = 0

    def kind(self) -> Any:
        def check(spec: str) -> None:
            if not spec.startswith("/"):
                raise ValueError("a folder begins with /")

        @trigger("folder", check=check)
        async def folder(spec: str) -> AsyncIterator[Any]:
            """A folder in which files appear."""
            self.begun += 1
            self.listening += 1
            try:
                while True:
                    each = await self.waiting.get()
                    if isinstance(each, Exception):
                        raise each
                    yield each
                    self.told.append(each)
            finally:
                self.listening -= 1

        return folder


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(60):
        while not condition():
            await asyncio.sleep(0.02)


async def test_a_source_starts_a_run_for_each_event_and_goes_on_when_it_is_durable(open_engine: Open) -> None:
    bench = Bench()
    async with open_engine(registry=registry_of(bench.kind())) as engine:
        await engine.save(plan("x", b(1, "Note", {"value": "=taskInputs.file"}), inputs=[("file", "String")]))
        with pytest.raises(InputError, match="a folder begins with /"):
            await engine.triggers.save("t", "x", "folder", "in")
        saved = await engine.triggers.save("t", "x", "folder", "/in", inputs={"file": "?"}, max_pending=10)
        assert saved.next_at is None
        for told in (
            {"file": "a"},
            Occurrence(inputs={"file": "b"}, key="b"),
            Occurrence(inputs={"file": "b"}, key="b"),
        ):
            bench.waiting.put_nowait(told)
        bench.waiting.put_nowait("nonsense")
        await until(lambda: len(bench.told) == 4)
        found = await runs_of(engine)
        assert len(found) == 2
        assert {run.trigger_id for run in found} == {"t"}
        await engine.triggers.save("t", "x", "folder", "/in", enabled=False)
        await until(lambda: bench.listening == 0)
    assert bench.begun == 1


async def test_a_full_trigger_is_not_told_more(open_engine: Open) -> None:
    bench, trace = Bench(), Trace()
    registry = kinds(trace)
    registry.add(bench.kind())
    async with open_engine(registry=registry) as engine:
        await engine.save(plan("x", b(1, "Gate")))
        await engine.triggers.save("t", "x", "folder", "/in")
        for number in range(3):
            bench.waiting.put_nowait(Occurrence(key=str(number)))
        await until_runs(engine, 1)
        await asyncio.sleep(0.3)
        assert len(await runs_of(engine)) == 1
        assert not bench.told or len(bench.told) == 1
        trace.gate.set()
        await until_runs(engine, 3)


async def test_a_source_that_fails_begins_again(open_engine: Open, caplog: pytest.LogCaptureFixture) -> None:
    bench = Bench()
    async with open_engine(registry=registry_of(bench.kind())) as engine:
        await engine.save(plan("x", b(1, "Note")))
        await engine.triggers.save("t", "x", "folder", "/in")
        bench.waiting.put_nowait(ConnectionError("the share is gone"))
        bench.waiting.put_nowait({})
        await until_runs(engine, 1)
    assert bench.begun == 2
    assert bench.listening == 0
    assert "the source of trigger t" in caplog.text


async def test_more_sources_than_allowed_rest(open_engine: Open) -> None:
    bench = Bench()
    async with open_engine(registry=registry_of(bench.kind()), max_trigger_sources=2) as engine:
        await engine.save(plan("x", b(1, "Note")))
        for number in range(3):
            await engine.triggers.save(f"t{number}", "x", "folder", "/in")
        await until(lambda: bench.listening == 2)
        await engine.triggers.save("t0", "x", "folder", "/in", enabled=False)
        await until(lambda: bench.begun == 3)
        assert len(await engine.store.read(triggers.of_kinds, ["folder"], 10)) == 2
    assert bench.listening == 0


@pytest.mark.parametrize(
    ("name", "call", "wrong"),
    [
        ("toolongname", lambda spec, after: after, "1 to 8 letters"),
        ("x", coroutine, "plain function"),
        ("x", lambda spec: 0.0, "must take \\(spec, after\\)"),
    ],
)
def test_what_cannot_be_a_trigger(name: str, call: Any, wrong: str) -> None:
    with pytest.raises(TypeError, match=wrong):
        trigger(name)(call)


def test_declaring_starts_nothing() -> None:
    before = threading.active_count()
    registry_of(Bench().kind(), clock(1), double_it)
    assert threading.active_count() == before


# ---- the page ---------------------------------------------------------------------------------------


async def test_the_page_says_what_works(open_engine: Open, tmp_path: Path) -> None:
    text = (Path(__file__).parents[2] / "docs/howto/extensions.md").read_text()
    scope: dict[str, Any] = {"__name__": "page"}
    for code in re.findall(r"```python\n(.*?)```", text, re.DOTALL):
        exec(code, scope)
    registry = registry_of(scope["row"], scope["shift"], scope["folder"])
    assert evaluated(registry, "taskInputs.site.row()", site="B-3") == "B"
    assert registry.triggers.items["shift"].next_time("8", 8 * 3600 * 10.5) == 8 * 3600 * 11
    ((_, made),) = scope["markdown"].__flatwater_renderer__
    assert made({"verdict": {"kind": "plateau", "reason": "flat"}}) == b"# plateau\n\nflat\n"
    async with open_engine(registry=registry) as engine:
        await engine.save(plan("x", b(1, "Note"), inputs=[("file", "String")]))
        with pytest.raises(InputError, match="FileNotFoundError"):
            await engine.triggers.save("t", "x", "folder", str(tmp_path / "none"))
        (tmp_path / "a.json").write_text("{}")
        await engine.triggers.save("t", "x", "folder", str(tmp_path))
        await until_runs(engine, 1)
        await until((tmp_path / "a.taken").exists)
