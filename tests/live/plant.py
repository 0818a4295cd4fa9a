"""A process that runs flows of every sort until it is killed; its driver is `test_kill.py`.

    python -m tests.live.plant FOLDER INCARNATION COUNT

It brings the number of accepted runs to COUNT and then ends what is open. What outlives a kill:
``accepted`` (key and run id of every acknowledged submission), ``marks`` (every execution of a block
named Mark), and ``orders/``, the outside: one file for each order id that was sent.
"""

from __future__ import annotations

import asyncio
import os
import sys
import time
from pathlib import Path
from typing import Any

from flatwater.engine import Engine, EngineOptions, Registry, block
from flatwater.engine.block import BlockCall
from flatwater.engine.blocks import builtin
from flatwater.store import Store
from flatwater.store import run as runs
from flatwater.store import site as sites
from flatwater.store.run import RunFilter
from flatwater.store.site import SiteSpec
from flatwater.store.state import ENDED, State
from tests.engine.plan import b, plan

FOLDER, INCARNATION, COUNT = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
OPEN = 400
SITES = 12


def append(name: str, line: str) -> None:
    """One line, by one write: it is there whole or not at all, whenever the process dies."""
    descriptor = os.open(FOLDER / name, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(descriptor, f"{line}\n".encode())
    os.close(descriptor)


def send(order_id: str) -> None:
    """The outside takes each order once; a second one is held against us."""
    try:
        os.close(os.open(FOLDER / "orders" / order_id, os.O_CREAT | os.O_EXCL))
    except FileExistsError:
        append("violations", f"order {order_id} was sent twice")


@block("Mark", family="test")
async def mark(value: Any = None, pause_s: float = 0.002, *, call: BlockCall) -> Any:
    append("marks", f"{INCARNATION} {call.run_id} {call.path}")
    await asyncio.sleep(pause_s)
    return {"value": value}


@block("Ship", family="test", recovery="reattach")
async def ship(*, call: BlockCall) -> dict[str, str]:
    if not (call.replayed and (FOLDER / "orders" / call.order_id).exists()):
        send(call.order_id)
    await asyncio.sleep(0.01)
    return {"order": call.order_id}


@block("Post", family="test", recovery="operator")
async def post(*, call: BlockCall) -> dict[str, str]:
    send(call.order_id)
    await asyncio.sleep(0.01)
    return {"order": call.order_id}


@block("Fail", family="test")
async def fail(times: int, *, call: BlockCall) -> dict[str, int]:
    if call.attempt <= times:
        raise ValueError("not yet")
    return {"attempt": call.attempt}


AGAIN = {"maxAttempts": 5, "delayMs": 30, "factor": 1, "jitter": 0}
NUMBER = [("n", "Long")]
PLANS = [
    plan("leaf", b(1, "Mark", {"value": "=taskInputs.n"}), b(2, "Ship"), inputs=NUMBER,
         outputs={"y": "blocks.b1.value"}),
    plan(
        "wide",
        b(1, "ParallelFlowBp", default=[b(10 + i, "Mark", {"pause_s": 0.02}) for i in range(12)]),
        b(2, "Mark", {"value": "=taskInputs.n"}),
        inputs=NUMBER,
        outputs={"y": "blocks.b2.value"},
    ),
    plan(
        "loop",
        b(1, "SetTaskVariableBp", {"varName": "sum", "varValue": "=0"}),
        b(
            2, "RepeatNumBp", {"num": 8},
            default=[
                b(3, "Mark", {"value": "=blocks.b2.index"}),
                b(4, "SetTaskVariableBp", {"varName": "sum", "varValue": "=task.variables.sum + blocks.b3.value"}),
                b(5, "DelayBp", {"timeMillis": 10}),
            ],
        ),
        inputs=NUMBER,
        outputs={"y": "task.variables.sum - 28 + taskInputs.n"},
    ),
    plan(
        "site",
        b(1, "GetIdleSiteBp", {"groupName": "S", "lock": True}, name="get"),
        b(2, "Mark", {"pause_s": 0.02}),
        b(3, "Ship"),
        b(4, "Mark", {"value": "=taskInputs.n"}),
        inputs=NUMBER,
        outputs={"y": "blocks.b4.value"},
    ),
    plan(
        "parent",
        b(1, "SubTask::leaf", {"n": "=taskInputs.n"}, name="child"),
        b(2, "Mark", {"value": "=taskInputs.n"}),
        inputs=NUMBER,
        outputs={"y": "blocks.b2.value"},
    ),
    plan(
        "retry",
        b(1, "Mark"),
        b(2, "Fail", {"times": 3}, retry=AGAIN),
        b(3, "TryCatchBp", {"swallowError": True},
          try_=[b(4, "ThrowExceptionBp", {"message": "x"})], catch=[b(5, "Mark", {"value": "=taskInputs.n"})]),
        inputs=NUMBER,
        outputs={"y": "blocks.b5.value"},
    ),
    plan("sleep", b(1, "DelayBp", {"timeMillis": 1500}), b(2, "Mark", {"value": "=taskInputs.n"}), inputs=NUMBER,
         outputs={"y": "blocks.b2.value"}),
    plan("post", b(1, "Mark", {"value": "=taskInputs.n"}), b(2, "Post"), inputs=NUMBER,
         outputs={"y": "blocks.b1.value"}),
]  # fmt: skip
LABELS = [str(each["label"]) for each in PLANS]


def registry() -> Registry:
    found = builtin()
    for kind in (mark, ship, post, fail):
        found.register(kind)
    return found


async def decide(engine: Engine) -> None:
    """What an operator does: look whether the outside got the order, and say so."""
    page = await engine.store.read(runs.page, RunFilter(states=(State.NEEDS_OPERATOR,)), None, 200)
    for row in page.items:
        order = str(row.wait).rpartition("order ")[2][:26]
        if (FOLDER / "orders" / order).exists():
            await engine.resume(row.id)
        else:
            await engine.retry(row.id)


async def accept(engine: Engine, n: int) -> None:
    run_id = await engine.submit(LABELS[n % len(LABELS)], {"n": n}, idempotency_key=f"key-{n}")
    append("accepted", f"{n} {run_id}")


async def main() -> None:
    (FOLDER / "orders").mkdir(exist_ok=True)
    accepted = FOLDER / "accepted"
    known = {int(line.split()[0]) for line in accepted.read_text().splitlines()} if accepted.exists() else set()
    number = next(n for n in range(COUNT + 1) if n not in known)  # those behind it get their old runs again
    async with (
        Store.open(f"sqlite:///{FOLDER}/plant.db") as store,
        Engine(store, registry=registry(), options=EngineOptions(park_after_s=0.1)) as engine,
    ):
        await store.writer.call(sites.save, [SiteSpec(id=f"S-{i}", group_name="S") for i in range(SITES)], time.time())
        for each in PLANS:
            await engine.save(each)
        print("ready", flush=True)
        while True:
            counts = await store.read(runs.count)
            still = sum(count for state, count in counts.items() if state not in ENDED)
            if number >= COUNT and not still:
                break
            batch = range(number, min(COUNT, number + max(0, OPEN - still)))
            await asyncio.gather(*(accept(engine, n) for n in batch))
            number += len(batch)
            counts = await store.read(runs.count)
            append("busy", str(sum(count for state, count in counts.items() if state not in ENDED)))
            await decide(engine)
            await asyncio.sleep(0.05)


if __name__ == "__main__":
    asyncio.run(main())
