"""Random definitions with crashes at random writes: outputs and effects are those of a run that nothing disturbed."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, event, given, note, settings
from hypothesis import strategies as st

from flatwater.engine.engine import Engine
from flatwater.store.state import State
from tests.engine.plan import b, plan
from tests.engine.replay import tell_story
from tests.long import often

EXAMPLES = often(60)
MAX_DEPTH = 4
RETRY = {"maxAttempts": 3, "delayMs": 1, "factor": 1, "jitter": 0}

Draw = Callable[[st.SearchStrategy[Any]], Any]


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    logger = logging.getLogger("flatwater")
    before = logger.level
    logger.setLevel(logging.CRITICAL)
    yield
    logger.setLevel(before)


@dataclass
class Place:
    """Where a block is to stand: what it may read, what it may do."""

    depth: int
    visible: list[str]
    variables: tuple[str, ...] = ("v", "w")
    in_loop: bool = False
    may_fail: bool = True
    may_return: bool = True
    """None of these three beside branches with effects, whose progress would be a matter of luck."""
    copied: bool = False
    """Whether copies of it run side by side: they share variables, and their outputs are nobody's outside."""

    def inner(self, **changes: Any) -> Place:
        return replace(self, depth=self.depth + 1, **changes)


@dataclass
class Maker:
    """Draws definitions. Every name is used once, so that each value tells where it comes from."""

    draw: Draw
    last_id: int = 0
    names: list[str] = field(default_factory=list)

    def id(self) -> int:
        self.last_id += 1
        return self.last_id

    def body(self, place: Place, least: int = 1) -> list[Any]:
        return [self.block(place) for _ in range(self.draw(st.integers(least, 3)))]

    def block(self, place: Place) -> Any:
        flows = ["serial", "if", "if_else", "if_else_if", "repeat", "iterate", "try", "parallel", "copies", "race"]
        kinds = ["note", "flaky", "delay", "wait", *(flows if place.depth < MAX_DEPTH else [])]
        kinds += [] if place.copied else ["var", *(["while"] if place.depth < MAX_DEPTH else [])]
        kinds += ["throw"] if place.may_fail else []
        kinds += ["break"] if place.in_loop else []
        return getattr(self, f"_{self.draw(st.sampled_from(kinds))}")(place)

    def source(self, place: Place) -> str:
        """An expression over what is certain to be the same each time."""
        names = [f"blocks.{name}.value" for name in place.visible]
        names += [] if place.copied else [f"task.variables.{name}" for name in place.variables]
        return f"={self.draw(st.sampled_from(names or ['null']))}"

    def truth(self, place: Place) -> str:
        return self.draw(st.sampled_from(["=true", "=false", f"{self.source(place)} != null"]))

    # ---- leaves ---------------------------------------------------------------------------------

    def _seen(self, block: Any, place: Place) -> Any:
        place.visible.append(block["name"])
        if not place.copied:
            self.names.append(block["name"])
        return block

    def _note(self, place: Place) -> Any:
        id = self.id()
        value = self.source(place) if self.draw(st.booleans()) else f"c{id}"
        return self._seen(b(id, "Note", {"value": value}), place)

    def _var(self, place: Place) -> Any:
        id = self.id()
        name = self.draw(st.sampled_from(place.variables))
        return self._seen(b(id, "Var", {"name": name, "value": f"c{id}"}), place)

    def _flaky(self, place: Place) -> Any:
        return self._seen(b(self.id(), "Fail", {"times": self.draw(st.integers(0, 2))}, retry=RETRY), place)

    def _delay(self, place: Place) -> Any:
        return b(self.id(), "DelayBp", {"timeMillis": self.draw(st.sampled_from([0, 1, 30]))})

    def _wait(self, place: Place) -> Any:
        return b(self.id(), "Await", {"event": "go"})

    def _throw(self, place: Place) -> Any:
        return b(self.id(), "ThrowExceptionBp", {"message": f"m{self.last_id}"})

    def _break(self, place: Place) -> Any:
        return b(self.id(), "BreakBp")

    # ---- flows ----------------------------------------------------------------------------------

    def _serial(self, place: Place) -> Any:
        return b(self.id(), "SerialFlowBp", default=self.body(place.inner()))

    def _if(self, place: Place) -> Any:
        return b(self.id(), "IfBp", {"condition": self.truth(place)}, default=self.body(place.inner()))

    def _if_else(self, place: Place) -> Any:
        id, inner = self.id(), place.inner()
        params = {"conditionIf": self.truth(place)}
        return b(id, "IfElseBp", params, if_=self.body(inner), else_=self.body(inner))

    def _if_else_if(self, place: Place) -> Any:
        id, inner = self.id(), place.inner()
        params = {"conditionIf": self.truth(place), "conditionElseIf": self.truth(place)}
        return b(id, "IfElseIfBp", params, if_=self.body(inner), else_if=self.body(inner), else_=self.body(inner))

    def _repeat(self, place: Place) -> Any:
        id, num = self.id(), self.draw(st.integers(0, 3))
        return b(id, "RepeatNumBp", {"num": num}, default=self.body(place.inner(in_loop=True)))

    def _iterate(self, place: Place) -> Any:
        id, items = self.id(), self.draw(st.lists(st.integers(0, 9), max_size=3))
        return b(id, "IterateListBp", {"list": f"={items}"}, default=self.body(place.inner(in_loop=True)))

    def _while(self, place: Place) -> Any:
        id, turns = self.id(), self.draw(st.integers(0, 2))
        count = f"task.variables.n{id}"
        step = b(self.id(), "Var", {"name": f"n{id}", "value": f"={count} == null ? 1 : {count} + 1"})
        params = {"loopCondition": f"={count} == null ? {turns} > 0 : {count} < {turns}", "retryPeriod": 1}
        return b(id, "WhileBp", params, default=[step, *self.body(place.inner(in_loop=True), 0)])

    def _try(self, place: Place) -> Any:
        id, swallow = self.id(), not place.may_fail or self.draw(st.booleans())
        attempt = self.body(place.inner(may_fail=True))
        catch = [*self.body(place.inner(), 0), b(self.id(), "Note", {"value": f"=blocks.b{id}.kind"})]
        return b(id, "TryCatchBp", {"swallowError": swallow}, try_=attempt, catch=catch)

    def _parallel(self, place: Place) -> Any:
        """Branches with effects of their own: none can end the others, none reads what another writes."""
        id, branches, after = self.id(), [], list(place.visible)
        for i in range(self.draw(st.integers(1, 3))):
            seen = list(place.visible)
            inner = place.inner(
                visible=seen, variables=(f"p{id}x{i}",), in_loop=False, may_fail=False, may_return=False
            )
            branches.append(b(self.id(), "SerialFlowBp", default=self.body(inner)))
            after += [name for name in seen if name not in after]
        place.visible[:] = after
        return b(id, "ParallelFlowBp", default=branches)

    def _copies(self, place: Place) -> Any:
        id, num = self.id(), self.draw(st.integers(0, 3))
        inner = place.inner(visible=[], in_loop=False, may_fail=False, may_return=False, copied=True)
        return b(id, "ParallelRepeatNBp", {"num": num}, default=self.body(inner))

    def _race(self, place: Place) -> Any:
        """One branch does something and ends the others, which only wait."""
        id, inner = self.id(), place.inner()
        ends = {"StopOtherBranch": True, "ThrowExceptionBp": place.may_fail, "ReturnBp": place.may_return}
        ends["BreakBp"] = place.in_loop
        end = self.draw(st.sampled_from([name for name, possible in ends.items() if possible]))
        more = self.body(inner, 0) if end == "StopOtherBranch" else []
        active = b(self.id(), "SerialFlowBp", default=[*self.body(inner, 0), b(self.id(), end), *more])
        idle = [b(self.id(), "Await", {"event": "never"}), b(self.id(), "DelayBp", {"timeMillis": 3_600_000})]
        branches = [active, *idle[: self.draw(st.integers(1, 2))]]
        return b(id, "ParallelFlowBp", default=self.draw(st.permutations(branches)))


@st.composite
def definitions(draw: Any) -> dict[str, Any]:
    maker = Maker(draw)
    blocks = maker.body(Place(0, []))
    outputs = {name: f"blocks.{name}.value" for name in maker.names[:8]}
    return plan("random", *blocks, outputs={**outputs, "v": "task.variables.v", "w": "task.variables.w"})


async def bell(engine: Engine, run_id: str) -> None:
    await engine.publish("go", 1)


def show(blocks: Any, depth: int = 0) -> str:
    lines = ""
    for each in blocks:
        params = {key: value["value"] for key, value in each["inputParams"].items()}
        lines += f"{'  ' * depth}{each['id']} {each['blockType']} {params or ''}\n"
        for name, inner in each["children"].items():
            lines += f"{'  ' * depth} {name}:\n{show(inner, depth + 1)}"
    return lines


@settings(
    max_examples=EXAMPLES, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large]
)
@given(definition=definitions(), points=st.lists(st.floats(0, 1), min_size=1, max_size=3), singly=st.booleans())
async def test_a_replay_comes_to_the_same(definition: dict[str, Any], points: list[float], singly: bool) -> None:
    note("\n" + show(definition["rootBlock"]["children"]["default"]))
    with tempfile.TemporaryDirectory() as folder:
        plain = await tell_story(Path(folder) / "plain", definition, (), bell, one_by_one=singly)
        crashes = [1 + int(point * max(1, plain.batches - 1)) for point in points]
        story = await tell_story(Path(folder) / "crashed", definition, crashes, bell, one_by_one=singly)
    event(plain.state)
    note(f"crashes at {crashes} of {plain.batches}: {story.lives}\nplain: {plain.lives}")
    assert story.end == plain.end
    assert story.effects == plain.effects
    assert not story.repeated()
    assert plain.state in (State.SUCCEEDED, State.FAILED)
