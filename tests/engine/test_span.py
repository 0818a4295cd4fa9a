"""Spans of runs and blocks, with the SDK that a user would configure; and none where nobody has."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from flatwater.engine.span import Recorder, Spans, Told
from flatwater.store import run as runs
from flatwater.store.state import State
from tests.engine.blocks.upstream import serve
from tests.engine.conftest import Open
from tests.engine.plan import b, plan
from tests.server.harness import definition, running, saved

pytest.importorskip("opentelemetry.sdk", reason="the lock has not been installed anew (make install)")

from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
TRACE_ID, SPAN_ID = int(PARENT[3:35], 16), int(PARENT[36:52], 16)


class Seen:
    """What has been exported, by name."""

    def __init__(self, exporter: InMemorySpanExporter) -> None:
        self._exporter = exporter

    def all(self) -> list[ReadableSpan]:
        return list(self._exporter.get_finished_spans())

    def named(self, name: str) -> list[ReadableSpan]:
        return [span for span in self.all() if span.name == name]

    def one(self, name: str) -> ReadableSpan:
        [span] = self.named(name)
        return span


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> Iterator[Seen]:
    """A tracer provider, as `trace.set_tracer_provider` sets it, for the time of the test."""
    exporter = InMemorySpanExporter()
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    monkeypatch.setattr(trace, "_TRACER_PROVIDER", provider)
    yield Seen(exporter)
    provider.shutdown()


def parent_of(span: ReadableSpan) -> int:
    return span.parent.span_id if span.parent is not None else 0


def facts(span: ReadableSpan) -> dict[str, Any]:
    return {name.removeprefix("flatwater."): value for name, value in (span.attributes or {}).items()}


def id_of(span: ReadableSpan) -> int:
    assert span.context is not None
    return span.context.span_id


async def run(engine: Any, *blocks: Any, **wish: Any) -> str:
    saved = await engine.save(plan("traced", *blocks), "d")
    run_id = str(await engine.submit(saved.id, **wish))
    await engine.result(run_id, 60)
    return run_id


async def test_a_run_is_a_span_with_those_of_its_blocks_below(open_engine: Open, seen: Seen) -> None:
    async with open_engine() as engine:
        both = [b(11, "Note", name="left"), b(12, "Work", {"seconds": 0.01}, name="right")]
        run_id = await run(
            engine, b(1, "ParallelFlowBp", default=both, name="side by side"), trace={"traceparent": PARENT}
        )
    submitted, run_span, flow = seen.one("submit traced"), seen.one("run traced"), seen.one("ParallelFlowBp")
    assert {span.context.trace_id for span in seen.all() if span.context} == {TRACE_ID}
    assert parent_of(submitted) == SPAN_ID
    assert parent_of(run_span) == id_of(submitted)
    assert parent_of(flow) == id_of(run_span)
    assert {parent_of(seen.one(name)) for name in ("Note", "Work")} == {id_of(flow)}
    assert len(seen.all()) == 5
    assert facts(run_span) == {
        "run.id": run_id, "run.attempt": 1, "run.activation": 1, "definition": "d", "definition.version": 1,
        "outcome": "SUCCEEDED",
    }  # fmt: skip
    assert facts(seen.one("Note")) == {
        "run.id": run_id, "definition": "d", "block.name": "left", "block.path": "-1/1/11", "outcome": "SUCCEEDED",
    }  # fmt: skip


async def test_a_failure_is_an_error_where_it_was_and_of_the_run(open_engine: Open, seen: Seen) -> None:
    async with open_engine() as engine:
        caught = b(1, "TryCatchBp", {"swallowError": True}, try_=[b(2, "Fail", {"message": "first"})])
        await run(engine, caught, b(3, "Fail", {"message": "second"}))
    outcomes = [(facts(span)["outcome"], span.status.description) for span in seen.named("Fail")]
    assert outcomes == [("FAILED", "ValueError: first"), ("FAILED", "ValueError: second")]
    assert (facts(seen.one("TryCatchBp"))["outcome"], seen.one("TryCatchBp").status.is_ok) == ("SUCCEEDED", True)
    assert facts(seen.one("run traced"))["outcome"] == "FAILED"
    assert "second" in str(seen.one("run traced").status.description)


async def test_a_run_that_left_memory_goes_on_in_the_same_trace(open_engine: Open, seen: Seen) -> None:
    """Also after a restart: the trace is on record with the run."""
    blocks = b(1, "Note"), b(2, "Await", {"event": "door"})
    async with open_engine(park_after_s=0.02) as engine:
        await engine.save(plan("traced", *blocks), "d")
        run_id = await engine.submit("d")
        async with asyncio.timeout(60):
            while (await engine.store.read(runs.get, run_id)).state != State.WAITING or engine.scheduler.active:
                await asyncio.sleep(0.01)
    assert [facts(span)["outcome"] for span in (seen.one("run traced"), seen.one("Await"))] == ["WAITING", "WAITING"]
    async with open_engine(park_after_s=0.02) as engine:
        await engine.publish("door")
        await engine.result(run_id, 60)
    first, second = seen.named("run traced")
    assert parent_of(first) == parent_of(second) == id_of(seen.one("submit traced"))
    assert (facts(second)["outcome"], facts(second)["run.activation"]) == ("SUCCEEDED", 2)
    assert [facts(span)["outcome"] for span in seen.named("Await")] == ["WAITING", "SUCCEEDED"]
    assert parent_of(seen.named("Await")[1]) == id_of(second)
    assert len(seen.named("Note")) == 1  # what is done is not done again
    assert len({span.context.trace_id for span in seen.all() if span.context}) == 1


async def test_sub_tasks_and_http_requests_are_in_the_trace_of_their_block(open_engine: Open, seen: Seen) -> None:
    async with serve() as upstream, open_engine() as engine:
        mine = {"url": f"{upstream.url}/echo", "header": {"Traceparent": PARENT}}
        await engine.save(plan("child", b(1, "PostBp", {"url": f"{upstream.url}/echo"}), b(2, "GetBp", mine)), "child")
        await run(engine, b(1, "SubTask::child"))
        sent, own = ([v for k, v in each.headers.items() if k.lower() == "traceparent"] for each in upstream.seen)
    post, called = seen.one("PostBp"), seen.one("submit child")
    assert post.context is not None
    assert [each[:-3] for each in sent] == [f"00-{post.context.trace_id:032x}-{post.context.span_id:016x}"]
    assert own == [PARENT]
    assert parent_of(called) == id_of(seen.one("SubTask"))
    assert parent_of(seen.one("run child")) == id_of(called)


async def test_the_trace_comes_with_the_http_request(tmp_path: Path, seen: Seen) -> None:
    headers = {"traceparent": PARENT, "tracestate": "vendor=1"}
    async with running(tmp_path) as client:
        note = {"id": 1, "name": "n", "blockType": "CreateUuidBp", "children": {}, "inputParams": {}}
        await saved(client, definition("quick", note))
        for number, (path, body) in enumerate(
            (("/api/runs", {"definition": "quick"}), ("/api/set-order", {"taskLabel": "quick"}))
        ):
            answer = await client.post(path, body, headers=headers)
            assert answer.status in (200, 201), answer.body
            assert parent_of(seen.named("submit quick")[number]) == SPAN_ID
        answer = await client.post("/api/runs", {"definition": "quick"}, headers={"traceparent": "00-nonsense"})
        assert answer.status == 201
        async with asyncio.timeout(60):
            while len(seen.named("CreateUuidBp")) < 3:
                await asyncio.sleep(0.01)
    traces = [span.context.trace_id for span in seen.named("run quick") if span.context]
    assert sorted(trace_id == TRACE_ID for trace_id in traces) == [False, True, True]
    states = [span.context.trace_state.to_header() for span in seen.named("run quick") if span.context]
    assert sorted(states) == ["", "vendor=1", "vendor=1"]


async def test_nothing_of_the_spans_stays(open_engine: Open, seen: Seen) -> None:
    async with open_engine() as engine:
        assert type(engine.services.spans) is Recorder
        for _ in range(30):
            await run(engine, b(1, "Note"), b(2, "ThrowExceptionBp", {"message": "on purpose"}))
        async with asyncio.timeout(90):
            while engine.scheduler.active:
                await asyncio.sleep(0.01)
        assert engine.statistics().contexts.live == 0
        assert [each for each in gc.get_objects() if type(each) is Told] == []


async def test_without_a_provider_there_is_no_span_and_no_header(open_engine: Open) -> None:
    async with serve() as upstream, open_engine() as engine:
        assert type(engine.services.spans) is Spans
        run_id = await run(engine, b(1, "GetBp", {"url": f"{upstream.url}/echo"}), trace={"traceparent": PARENT})
        assert "traceparent" not in {name.lower() for name in upstream.seen[0].headers}
        assert "trace" not in ((await engine.store.read(runs.get, run_id)).policy or "")
