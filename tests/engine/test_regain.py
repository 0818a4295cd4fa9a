"""Retrying a run that had sites: it goes on with them, or not at all."""

from __future__ import annotations

import time

import pytest

from flatwater.engine.engine import Engine
from flatwater.errors import ConflictError
from flatwater.store import site as sites
from flatwater.store.site import Change, SiteSpec
from flatwater.store.state import State
from tests.engine.conftest import Trace
from tests.engine.plan import b, plan

TRANSPORT = plan(
    "transport",
    b(1, "GetIdleSiteBp", {"groupName": "A", "filled": False, "lock": True}, name="get"),
    b(2, "Fail", {"times": "=taskInputs.times"}),
    b(3, "Note", {"value": "=blocks.get.siteId"}),
    inputs=[("times", "Long")],
)


async def failed(engine: Engine) -> str:
    await engine.store.writer.call(sites.save, [SiteSpec(id="A-1", group_name="A")], time.time())
    saved = await engine.save(TRANSPORT)
    run_id = await engine.submit(saved.id, {"times": 1})
    assert (await engine.result(run_id, 60)).state == State.FAILED
    assert (await engine.store.read(sites.get, "A-1")).locked_run is None
    return run_id


async def test_a_retry_locks_what_the_run_had(engine: Engine, trace: Trace) -> None:
    run_id = await failed(engine)
    await engine.store.writer.call(sites.lock, "A-1", "somebody", None, None, time.time())
    with pytest.raises(ConflictError, match="'A-1', which the run had, is locked by somebody"):
        await engine.retry(run_id)
    assert (await engine.result(run_id, 1)).state == State.FAILED
    await engine.store.writer.call(sites.unlock, "A-1", "somebody", None, time.time(), True)
    await engine.retry(run_id)
    assert (await engine.result(run_id, 60)).state == State.FAILED  # Fail counts attempts within a run's attempt
    changes = await engine.store.read(sites.changes, "A-1")
    assert [change.run_id for change in changes if '"locked_run":"' in change.change].count(run_id) == 2


async def test_a_retry_is_refused_when_the_site_is_not_as_the_run_left_it(engine: Engine) -> None:
    run_id = await failed(engine)
    await engine.store.writer.call(sites.set, "A-1", Change(filled=True, content="bolts"), time.time())
    with pytest.raises(ConflictError, match="is filled with bolts, it was empty"):
        await engine.retry(run_id)
    assert (await engine.store.read(sites.get, "A-1")).locked_run is None
