"""Definitions: saved by id with versions, compiled once, found by the hash that a run refers to."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from time import time
from typing import TYPE_CHECKING, Any

import msgspec

from flatwater.bounded import Usage
from flatwater.engine.block import Kind, Registry
from flatwater.engine.definition import Flow, InputParam, canonical, content_hash, parse, sub_task_cycle
from flatwater.engine.document import Document
from flatwater.errors import DefinitionError, NotFoundError, Problem
from flatwater.store import definition as definitions

if TYPE_CHECKING:
    from flatwater.store.definition import Definition
    from flatwater.store.store import Store

CALL = "call:"
"""Prefix of the definition id, and hash, of a run that is a single block."""
CALL_BLOCK = "call"
"""The name of that block; its outputs are the run's."""
MAX_ID = 200


LARGE = 32 * 1024
"""Bytes of a definition that is compiled in a thread, so that the loop goes on meanwhile."""


class Library:
    """Compiles definitions and keeps those used last: ``max_flows``, with ``max_nodes`` blocks together."""

    kind = "cache"
    name = "definitions"

    def __init__(self, store: Store, registry: Registry, max_flows: int, max_nodes: int) -> None:
        self._store = store
        self._registry = registry
        self._max_flows = max_flows
        self._max_nodes = max_nodes
        self._nodes = 0
        self._evictions = 0
        self._flows: OrderedDict[str, Flow] = OrderedDict()
        self._reading = asyncio.Lock()
        self._current: OrderedDict[str, tuple[float, Definition]] = OrderedDict()

    # ---- saving ---------------------------------------------------------------------------------

    async def save(self, data: Document, id: str | None = None) -> Definition:
        """Check and store a definition; a new content makes a new version.

        Raises ``DefinitionError`` with every problem, and then stores nothing.
        """
        flow, known = await self.check(data)
        name = id or definition_id(data) or flow.label
        if not name or len(name) > MAX_ID or name.startswith(CALL):
            raise DefinitionError(
                [Problem("/id", f"{name!r} cannot be an id", f"1 to {MAX_ID} characters, not {CALL}…")]
            )
        cycle = sub_task_cycle({**known, name: flow.sub_tasks})
        if cycle is not None:
            raise DefinitionError([Problem("", f"sub-tasks go round: {' → '.join(cycle)}", "break the cycle")])
        body = canonical(data).decode()
        saved = await self._store.writer.call(definitions.save, name, flow.label, body, flow.remark, time())
        self._current.pop(name, None)
        self._keep(saved.hash, flow)
        return saved

    async def check(self, data: Document) -> tuple[Flow, dict[str, frozenset[str]]]:
        """Compile without storing; with it what each sub-task starts in its turn."""
        flow = await self._parse(data)
        known: dict[str, frozenset[str]] = {}
        inputs = {}
        waiting = sorted(flow.sub_tasks)
        own = definition_id(data) or flow.label
        while waiting:
            name = waiting.pop()
            if name in known or name == own:
                continue
            try:
                child = await self.current(name)
            except NotFoundError:
                continue
            sub = await self.flow(child.hash)
            known[name] = sub.sub_tasks
            inputs[name] = sub.inputs
            waiting.extend(sub.sub_tasks)
        if flow.sub_tasks:
            if own in flow.sub_tasks:
                inputs[own] = flow.inputs
            flow = await self._parse(data, inputs)
        return flow, known

    # ---- finding --------------------------------------------------------------------------------

    async def current(self, id: str, max_age_s: float = 1.0) -> Definition:
        """The latest version under ``id``, as known at most ``max_age_s`` seconds ago."""
        known = self._recent(id, max_age_s)
        if known is not None:
            return known
        async with self._reading:  # one reads, the crowd behind it finds what it read
            known = self._recent(id, max_age_s)
            if known is not None:
                return known
            found = await self._store.read(definitions.get, id)
            self._current[id] = (time(), found)
        self._current.move_to_end(id)
        while len(self._current) > self._max_flows:
            self._current.popitem(last=False)
        return found

    def _recent(self, id: str, max_age_s: float) -> Definition | None:
        entry = self._current.get(id)
        return entry[1] if entry is not None and entry[0] > time() - max_age_s else None

    def forget(self, id: str) -> None:
        self._current.pop(id, None)

    def cached(self, hash: str) -> Flow | None:
        flow = self._flows.get(hash)
        if flow is not None:
            self._flows.move_to_end(hash)
        return flow

    async def flow(self, hash: str) -> Flow:
        """The compiled definition that a run refers to."""
        flow = self.cached(hash)
        if flow is not None:
            return flow
        if hash.startswith(CALL):
            flow = self.call_flow(self._registry.require(hash.removeprefix(CALL)))
        else:
            flow = await self._parse(await self._store.read(definitions.body, hash))
        return self._keep(hash, flow)

    def call_flow(self, kind: Kind) -> Flow:
        """A definition whose only block is ``kind``, its parameters the run's inputs."""
        hash = CALL + kind.type
        known = self.cached(hash)
        return known if known is not None else self._keep(hash, parse(call_definition(kind), self._registry))

    def _keep(self, hash: str, flow: Flow) -> Flow:
        if hash not in self._flows:
            self._flows[hash] = flow
            self._nodes += len(flow.nodes)
        self._flows.move_to_end(hash)
        while len(self._flows) > 1 and (len(self._flows) > self._max_flows or self._nodes > self._max_nodes):
            _, gone = self._flows.popitem(last=False)
            self._nodes -= len(gone.nodes)
            self._evictions += 1
        return flow

    async def _parse(self, data: Document, known: Mapping[str, Sequence[InputParam]] | None = None) -> Flow:
        if not isinstance(data, bytes | str) or len(data) < LARGE:
            return parse(data, self._registry, known_definitions=known)
        return await asyncio.to_thread(parse, data, self._registry, known_definitions=known)

    def statistics(self) -> Usage:
        """``size`` compiled definitions are kept, of ``bound``."""
        return Usage(size=len(self._flows), bound=self._max_flows, evictions=self._evictions)

    def __len__(self) -> int:
        return len(self._flows)


def definition_id(data: Document) -> str | None:
    """The ``id`` (or ``defId``) that a definition names itself by."""
    if not isinstance(data, Mapping):
        try:
            data = msgspec.json.decode(data)
        except msgspec.MsgspecError:
            return None
    found = data.get("id", data.get("defId")) if isinstance(data, Mapping) else None
    return str(found) if isinstance(found, str | int) and not isinstance(found, bool) else None


def call_definition(kind: Kind) -> dict[str, Any]:
    params = {
        param.name: {"type": "Expression", "value": f"taskInputs.{param.name}", "required": param.required}
        for param in kind.params
    }
    block = {"id": 1, "name": CALL_BLOCK, "blockType": kind.type, "children": {}, "inputParams": params}
    outputs = [{"name": "result", "type": "JSONObject", "value": f"=blocks.{CALL_BLOCK}"}]
    root = {"id": -1, "name": "root", "blockType": "RootBp", "children": {"default": [block]}, "inputParams": {}}
    return {"label": kind.type, "version": 1, "inputParams": [], "outputParams": outputs, "rootBlock": root}


__all__ = ["Library", "content_hash"]
