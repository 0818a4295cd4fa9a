"""Spans for OpenTelemetry where the program has configured it, and nothing at all where it has not.

A run is in memory for short times only, perhaps days apart and in several processes, and a span must end where it
began. So each such time is a span of its own, with those of the blocks that were at work in it as children; all are
children of the span of the submission, whose trace context is stored with the run. A block that waits ends its span,
with the outcome WAITING, and has another when its run goes on.

Nothing is kept here: a span lives as long as the ``with`` around what it tells of.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Final, Self

import msgspec

from flatwater.engine.signal import BlockFailed, LoopBroken, OperatorNeeded, Parked, RunReturned
from flatwater.store.state import State

if TYPE_CHECKING:
    from opentelemetry.context import Context
    from opentelemetry.trace import Span, Tracer

    from flatwater.engine.definition import Node
    from flatwater.engine.submission import Origin, Submission
    from flatwater.engine.web import Request
    from flatwater.store.run import Claimed

MAX_STATE_CHARS: Final = 512
"""Of ``tracestate``; what is longer is not stored, as the specification allows."""


class Silence:
    """No span."""

    __slots__ = ()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        return None

    def ended(self, state: State, error: str | None) -> None:
        """Say what came of it, when no exception will."""


_SILENCE: Final = Silence()


class Spans:
    """Makes no spans: nobody has asked for them."""

    def submitted(self, origin: Origin, wish: Submission) -> Submission:
        """The wish with the trace context that is to be stored with the run."""
        return wish if wish.trace is None else msgspec.structs.replace(wish, trace=None)

    def run(self, row: Claimed) -> Silence:
        """Around an activation."""
        return _SILENCE

    def block(self, row: Claimed, node: Node, path: str) -> Silence:
        """Around a block."""
        return _SILENCE

    def outgoing(self, request: Request) -> Request:
        """A request as it is sent: with the trace context of the block that sends it."""
        return request


def configured() -> Spans:
    """What makes spans if the program has set a tracer provider before, else what makes none."""
    if "opentelemetry.trace" not in sys.modules:
        return Spans()  # whoever has set one has imported this
    from opentelemetry import trace

    provider = trace.get_tracer_provider()
    if isinstance(provider, trace.ProxyTracerProvider | trace.NoOpTracerProvider):
        return Spans()
    return Recorder(provider.get_tracer("flatwater"))


class Recorder(Spans):
    """Makes spans with the program's tracer provider."""

    def __init__(self, tracer: Tracer) -> None:
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        self._tracer = tracer
        self._stored = TraceContextTextMapPropagator()

    def submitted(self, origin: Origin, wish: Submission) -> Submission:
        from opentelemetry import trace

        context = None  # the current one: a block, or what the program has around the submission
        if wish.trace and not trace.get_current_span().get_span_context().is_valid:
            context = self._context(wish.trace)
        span = self._tracer.start_span(
            f"submit {origin.label}",
            context=context,
            kind=trace.SpanKind.PRODUCER,
            attributes={"flatwater.definition": origin.id},
        )
        carrier: dict[str, str] = {}
        self._stored.inject(carrier, trace.set_span_in_context(span))
        span.end()
        if len(carrier.get("tracestate", "")) > MAX_STATE_CHARS:
            del carrier["tracestate"]
        return msgspec.structs.replace(wish, trace=carrier)

    def run(self, row: Claimed) -> Silence:
        from opentelemetry import trace

        policy = msgspec.json.decode(row.policy) if row.policy else {}
        context = self._context(policy.get("trace") or {})
        span = self._tracer.start_span(
            f"run {row.label}",
            context=context,
            kind=trace.SpanKind.CONSUMER,
            attributes={
                "flatwater.run.id": row.id,
                "flatwater.run.attempt": row.attempt,
                "flatwater.run.activation": row.epoch,
                "flatwater.definition": row.definition_id or row.label,
                "flatwater.definition.version": row.version,
            },
        )
        return Told(span, trace.set_span_in_context(span, context))

    def block(self, row: Claimed, node: Node, path: str) -> Silence:
        if path == "-1":
            return _SILENCE  # the root is the run
        from opentelemetry import trace

        span = self._tracer.start_span(
            node.type,
            attributes={
                "flatwater.run.id": row.id,
                "flatwater.definition": row.definition_id or row.label,
                "flatwater.block.name": node.name,
                "flatwater.block.path": path,
            },
        )
        return Told(span, trace.set_span_in_context(span))

    def outgoing(self, request: Request) -> Request:
        if any(name.lower() == "traceparent" for name in request.headers):
            return request
        from opentelemetry import propagate

        carrier = dict(request.headers)
        propagate.inject(carrier)
        return msgspec.structs.replace(request, headers=carrier)

    def _context(self, carrier: Mapping[str, str]) -> Context:
        """That of another process, without anything of this one's. What is malformed begins a new trace."""
        from opentelemetry.context import Context

        return self._stored.extract(carrier, Context())


class Told(Silence):
    """A span that is the current one inside the ``with``, and ends with it."""

    __slots__ = ("_context", "_error", "_span", "_state", "_token")

    def __init__(self, span: Span, context: Context) -> None:
        self._span = span
        self._context = context
        self._state: State | None = None
        self._error: str | None = None

    def __enter__(self) -> Self:
        from opentelemetry.context import attach

        self._token = attach(self._context)
        return self

    def ended(self, state: State, error: str | None) -> None:
        self._state, self._error = state, error

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        from opentelemetry.context import detach
        from opentelemetry.trace import Status, StatusCode

        detach(self._token)
        state = self._state or outcome_of(error)
        self._span.set_attribute("flatwater.outcome", str(state))
        if state in (State.FAILED, State.NEEDS_OPERATOR):
            self._span.set_status(Status(StatusCode.ERROR, self._error or str(error)))
        self._span.end()


def outcome_of(error: BaseException | None) -> State:
    """What came of a block that was left like this."""
    if error is None or isinstance(error, LoopBroken | RunReturned):
        return State.SUCCEEDED
    if isinstance(error, Parked):
        return State.WAITING
    if isinstance(error, OperatorNeeded):
        return State.NEEDS_OPERATOR
    return State.FAILED if isinstance(error, BlockFailed) else State.CANCELED
