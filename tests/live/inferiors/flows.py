"""What runs in the plant, and what it must come to: outputs follow from the definition and the number alone."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tests.engine.plan import b, plan

AGAIN = {"maxAttempts": 4, "delayMs": 150, "factor": 1.5, "jitter": 0.5}
SITES = 6
TURNS = 6

NUMBER = [("n", "Long")]


def loops() -> Any:
    return plan(
        "loops",
        b(1, "RepeatNumBp", {"num": TURNS}, default=[
            b(2, "Compute", {"number": "=blocks.b1.index"}),
            b(3, "Add", {"name": "sum", "number": "=blocks.b2.result"}),
            b(4, "IfElseBp", {"conditionIf": "=blocks.b1.index % 2 == 0"},
              if_=[b(5, "Work")], else_=[b(6, "DelayBp", {"timeMillis": 1_300})]),
        ]),
        b(7, "WhileBp", {"loopCondition": "=task.variables.sum < 1000", "retryPeriod": 50}, default=[
            b(8, "Add", {"name": "sum", "number": 300}),
            b(9, "IfBp", {"condition": "=task.variables.sum > 700"}, default=[b(10, "BreakBp")]),
            b(11, "Work"),
        ]),
        inputs=NUMBER,
        outputs={"sum": "task.variables.sum + taskInputs.n", "turns": "blocks.b7.index"},
    )  # fmt: skip


def wide() -> Any:
    return plan(
        "wide",
        b(1, "ParallelRepeatNBp", {"num": 4}, default=[b(2, "Compute", {"number": "=blocks.b1.index"}), b(3, "Work")]),
        b(4, "ParallelFlowBp", default=[
            b(5, "SerialFlowBp", default=[
                b(6, "DelayBp", {"timeMillis": 4_000}), b(7, "Note", {"value": "=taskInputs.n"}),
            ]),
            b(8, "SerialFlowBp", default=[b(9, "Work", {"seconds": 0.1}), b(10, "Add", {"name": "x", "number": 1})]),
            b(11, "SerialFlowBp", default=[b(12, "WaitEventBp", {"eventName": "bell"}), b(13, "Note", {"value": 5})]),
        ]),
        b(14, "ParallelFlowBp", default=[
            b(15, "SerialFlowBp", default=[b(16, "DelayBp", {"timeMillis": 150}), b(17, "StopOtherBranch")]),
            b(18, "WaitEventBp", {"eventName": "never"}),
            b(19, "DelayBp", {"timeMillis": 3_600_000}),
        ]),
        inputs=NUMBER,
        outputs={"a": "blocks.b7.value", "x": "task.variables.x", "five": "blocks.b13.value"},
    )  # fmt: skip


def store() -> Any:
    """Two sites at a time of a few that many want; one is given back early, one with the end."""
    return plan(
        "store",
        b(1, "GetIdleSiteBp", {"groupName": "A", "lock": True}),
        b(2, "Occupy", {"site": "=blocks.b1.siteId"}),
        b(3, "GetIdleSiteBp", {"groupName": "B", "lock": True}),
        b(4, "Occupy", {"site": "=blocks.b3.siteId"}),
        b(5, "SetSiteUnlockedBp", {"siteId": "=blocks.b1.siteId"}),
        b(6, "Work", {"seconds": 0.03}),
        inputs=NUMBER,
        outputs={"n": "taskInputs.n", "got": "blocks.b1.siteId != null && blocks.b3.siteId != null"},
    )


def child() -> Any:
    return plan(
        "child",
        b(1, "Compute", {"number": "=taskInputs.n"}),
        b(2, "DelayBp", {"timeMillis": 2_500}),
        b(3, "Work"),
        inputs=NUMBER,
        outputs={"square": "blocks.b1.result"},
    )


def parent() -> Any:
    return plan(
        "parent",
        b(1, "ParallelFlowBp", default=[
            b(2, "SubTask::child", {"n": "=taskInputs.n"}),
            b(3, "SubTask::child", {"n": "=taskInputs.n + 1"}),
        ]),
        b(4, "SubTask::child", {"n": 3, "ifAsync": True}),
        inputs=NUMBER,
        outputs={"sum": "blocks.b2.square + blocks.b3.square"},
    )  # fmt: skip


def again() -> Any:
    return plan(
        "again",
        b(1, "Fail", {"times": 2}, retry=AGAIN),
        b(2, "TryCatchBp", {"swallowError": True},
          try_=[b(3, "Work"), b(4, "ThrowExceptionBp", {"message": "no oil"})],
          catch=[b(5, "DelayBp", {"timeMillis": 2_200}), b(6, "Note", {"value": "=blocks.b2.error"})]),
        b(7, "FailFirst"),
        b(8, "Note", {"value": "=taskInputs.n"}),
        inputs=NUMBER,
        outputs={"attempt": "blocks.b1.attempt", "error": "blocks.b6.value", "n": "blocks.b8.value"},
    )  # fmt: skip


def orders() -> Any:
    return plan(
        "orders",
        b(1, "RepeatNumBp", {"num": 3}, default=[b(2, "Carry"), b(3, "Work", {"seconds": 0.05})]),
        b(4, "ParallelFlowBp", default=[b(5, "Press"), b(6, "Carry"), b(7, "SerialFlowBp", default=[b(8, "Press")])]),
        inputs=NUMBER,
        outputs={"ok": "blocks.b2.carried && blocks.b6.carried"},
    )  # fmt: skip


def halt() -> Any:
    """To be canceled: it cleans up."""
    return plan(
        "halt",
        b(1, "TryCatchBp", {"ignoreAbort": False},
          try_=[b(2, "Work"), b(3, "GetIdleSiteBp", {"groupName": "C", "lock": True}),
                b(4, "DelayBp", {"timeMillis": 3_600_000})],
          catch=[b(5, "Note", {"value": "cleaned"})]),
        inputs=NUMBER,
    )  # fmt: skip


Expected = Callable[[int], dict[str, Any]]
FLOWS: dict[str, tuple[Callable[[], Any], Expected | None, int]] = {
    "child": (child, lambda n: {"square": n * n}, 0),
    "loops": (loops, lambda n: {"sum": 55 + 900 + n, "turns": 2}, 5),
    "wide": (wide, lambda n: {"a": n, "x": 1, "five": "5"}, 5),
    "store": (store, lambda n: {"n": n, "got": True}, 5),
    "parent": (parent, lambda n: {"sum": n * n + (n + 1) * (n + 1)}, 4),
    "again": (again, lambda n: {"attempt": 3, "error": "The run failed: no oil", "n": n}, 4),
    "orders": (orders, lambda n: {"ok": True}, 4),
    "halt": (halt, None, 1),
}
"""Definition, outputs by number (None: it is canceled), and its share of what is submitted."""
RETRY = {"max_attempts": 3, "delay_s": 0.3, "factor": 1, "jitter": 0}


def wanted(count: int) -> list[tuple[str, int]]:
    """(flow, number) of ``count`` runs, mixed."""
    cycle = [name for name, (_, _, share) in FLOWS.items() for _ in range(share)]
    return [(cycle[(i * 11) % len(cycle)], i) for i in range(count)]
