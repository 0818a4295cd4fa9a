"""The Flow family: the kinds that the engine walks itself, as declarations.

Names, parameters and branches are those of the definition format; the other families are declared by the functions that
implement them.
"""

from __future__ import annotations

from typing import Annotated, Any, Final

from msgspec import Meta, Struct

from flatwater.engine.block import SUB_TASK, Kind, Shape
from flatwater.engine.parameter import NEEDED, Param, ParamType

MAX_REPEATS: Final = 1_000
MAX_COPIES: Final = 100
MAX_DELAY_MS: Final = 10 * 365 * 24 * 3600 * 1000  # ten years

_JUMP = (
    "a jump to another block cannot be replayed after a restart, for what ran does not follow from the tree any more;"
    " use WhileBp with BreakBp, IfElseBp or TryCatchBp"
)
REFUSED: Final = {"SkipToComponent": _JUMP, "SkipToComponentBp": _JUMP}
"""Block types that exist elsewhere and will not here, with the reason."""

Count = Annotated[int, Meta(ge=0, le=MAX_REPEATS)]
Copies = Annotated[int, Meta(ge=0, le=MAX_COPIES)]
Millis = Annotated[int, Meta(ge=0, le=MAX_DELAY_MS)]


class Chosen(Struct):
    branch: str | None


class Counted(Struct):
    index: int


class Iterated(Struct):
    index: int
    size: int
    item: Any


class Caught(Struct):
    caught: bool
    error: str | None = None
    path: str | None = None
    name: str | None = None
    kind: str | None = None


class Copied(Struct):
    num: int
    index: int | None = None


class Stopped(Struct):
    stopped: int


def _condition(name: str) -> Param:
    return Param(name=name, type=ParamType.BOOLEAN, required=True, default=False, description="null counts as false")


def _flag(name: str, description: str) -> Param:
    return Param(name=name, type=ParamType.BOOLEAN, default=False, description=description)


def _number(name: str, annotation: Any, description: str, default: Any = NEEDED) -> Param:
    return Param(
        name=name,
        type=ParamType.LONG,
        required=default is NEEDED,
        default=default,
        annotation=annotation,
        description=description,
    )


def _flow(name: str, shape: Shape, description: str, *params: Param, branches: str = "default", **rest: Any) -> Kind:
    names = () if shape is Shape.LEAF else tuple(branches.split())
    return Kind(
        type=name, family="flow", shape=shape, description=description, params=params, branches=names, pure=True, **rest
    )


FLOW_KINDS: Final = (
    _flow("RootBp", Shape.SERIAL, "The root of a definition."),
    _flow("SerialFlowBp", Shape.SERIAL, "Its blocks one after another."),
    _flow("ParallelFlowBp", Shape.PARALLEL, "Its blocks side by side; fails, and stops the others, when one fails."),
    _flow(
        "ParallelRepeatNBp",
        Shape.COPIES,
        "Its blocks several times side by side.",
        _number("num", Copies, f"how many copies, at most {MAX_COPIES}"),
        outputs=Copied,
    ),
    _flow("IfBp", Shape.CHOICE, "Its blocks if the condition holds.", _condition("condition"), outputs=Chosen),
    _flow(
        "IfElseBp",
        Shape.CHOICE,
        "One branch if the condition holds, else the other.",
        _condition("conditionIf"),
        branches="if else",
        outputs=Chosen,
    ),
    _flow(
        "IfElseIfBp",
        Shape.CHOICE,
        "The first branch whose condition holds, else the last.",
        _condition("conditionIf"),
        _condition("conditionElseIf"),
        branches="if else_if else",
        outputs=Chosen,
    ),
    _flow(
        "WhileBp",
        Shape.LOOP,
        "Its blocks again and again while the condition holds.",
        _condition("loopCondition"),
        _number("retryPeriod", Millis, "milliseconds between two iterations", 1_000),
        _flag("runOnce", "end after the first iteration"),
        outputs=Counted,
    ),
    _flow(
        "RepeatNumBp",
        Shape.LOOP,
        "Its blocks a number of times.",
        _number("num", Count, f"how often, at most {MAX_REPEATS}"),
        outputs=Counted,
    ),
    _flow(
        "IterateListBp",
        Shape.LOOP,
        "Its blocks once for each item of a list.",
        Param(name="list", type=ParamType.ARRAY, required=True, default=NEEDED, description="the items"),
        outputs=Iterated,
    ),
    _flow(
        "TryCatchBp",
        Shape.GUARD,
        "Its first branch, and when that fails the second.",
        _flag("swallowError", "go on after the second branch as if nothing had failed"),
        _flag("ignoreAbort", "do not run the second branch when the run is canceled"),
        branches="try catch",
        outputs=Caught,
    ),
    _flow("BreakBp", Shape.LEAF, "Ends the innermost loop.", needs=(Shape.LOOP,)),
    _flow("ReturnBp", Shape.LEAF, "Ends the run as succeeded."),
    _flow(
        "ThrowExceptionBp",
        Shape.LEAF,
        "Fails.",
        Param(name="message", type=ParamType.STRING, description="the error's text"),
    ),
    _flow(
        "StopOtherBranch",
        Shape.LEAF,
        "Stops the other branches of the parallel block around it.",
        needs=(Shape.PARALLEL, Shape.COPIES),
        outputs=Stopped,
    ),
    _flow(
        "DelayBp",
        Shape.LEAF,
        "Waits; a long wait leaves memory.",
        _number("timeMillis", Millis, "milliseconds"),
    ),
    Kind(
        type=SUB_TASK,
        family="flow",
        description="Runs another definition; the parameters it does not name are that definition's inputs.",
        params=(
            _flag("ifAsync", "do not wait for its end"),
            Param(name="taskRecordId", type=ParamType.STRING, description="the id to give the new run"),
        ),
        outputs=dict[str, Any],
        open=True,
        recovery="reattach",
    ),
)
