"""Definitions of the imported JSON format → `Flow`. Reports everything that is wrong, each with its place."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from sys import intern
from types import MappingProxyType
from typing import Any, Final

import msgspec

from flatwater.engine.binding import Binder, Reading
from flatwater.engine.block import RECOVERIES, SUB_TASK, Kind, Recovery, Registry, Shape
from flatwater.engine.catalogue import REFUSED
from flatwater.engine.document import Document, Fields, Problems, decode, escape
from flatwater.engine.expression.operation import kind as name_of
from flatwater.engine.liveness import Entry, Outline, analyse
from flatwater.engine.member import inputs, one_of, outputs, release, retry, seconds
from flatwater.engine.node import Flow, InputParam, Limits, Node, Retry
from flatwater.engine.parameter import CompiledParams
from flatwater.engine.signature import output_names

ROOT: Final = "RootBp"
ROOT_ID: Final = -1
MAX_PARALLEL: Final = 10_000


@dataclass(slots=True, kw_only=True)
class Draft:
    """A block on its way to a `Node`; ``parent`` and ``last`` are places in pre-order."""

    id: int
    name: str
    path: str
    kind: Kind
    parent: int
    branch: str
    last: int
    params: CompiledParams
    readings: list[Reading]
    timeout_s: float | None
    retry: Retry | None
    recovery: Recovery
    disabled: bool
    sub_task: str | None
    branches: dict[str, list[int]] = field(default_factory=dict)

    @property
    def label(self) -> str:
        return f"{self.name} ({self.kind.type}, id {self.id})"


def compile_definition(
    data: Document, registry: Registry, known: Mapping[str, Sequence[InputParam]] | None, limits: Limits
) -> Flow:
    """Raises `DefinitionError` with all problems."""
    return _Compiler(decode(data, limits), registry, known, limits).flow()


class _Compiler:
    def __init__(
        self,
        raw: dict[str, Any],
        registry: Registry,
        known: Mapping[str, Sequence[InputParam]] | None,
        limits: Limits,
    ) -> None:
        self._raw = raw
        self._registry = registry
        self._known = known
        self._limits = limits
        self._problems = Problems(limits.max_problems)
        self._warnings = Problems(limits.max_problems)
        self._binder = Binder(self._problems, self._warnings, limits, registry.functions.items)
        self._drafts: list[Draft] = []
        self._ids: dict[int, str] = {}
        self._names: dict[str, str] = {}
        self._full = False
        self._depth = 0

    def flow(self) -> Flow:
        fields = Fields(self._raw, "", self._problems)
        label = fields.text("label", most=self._limits.max_name_chars)
        self._root()
        results, readings = self._binder.outputs(outputs(fields))
        declared = inputs(fields)
        facts = _facts(fields)
        self._check_references(readings, declared)
        self._problems.raise_any(label)
        nodes, live = self._nodes(results)
        return Flow(
            hash=hashlib.sha256(msgspec.json.encode(self._raw, order="sorted")).hexdigest(),
            label=label,
            root=nodes[0],
            nodes=nodes,
            depth=self._depth,
            inputs=declared,
            outputs=results,
            live_names=live,
            sub_tasks=frozenset(draft.sub_task for draft in self._drafts if draft.sub_task is not None),
            warnings=self._warnings.listed(),
            **facts,
        )

    # ---- blocks ---------------------------------------------------------------------------------

    def _root(self) -> None:
        raw = self._raw.get("rootBlock")
        if raw is None:
            self._problems.add("/rootBlock", "a definition needs a rootBlock", f"a {ROOT} with the id {ROOT_ID}")
        else:
            self._block(raw, "/rootBlock", -1, "", ())

    def _block(self, raw: Any, path: str, parent: int, branch: str, around: tuple[Shape, ...]) -> int | None:
        """Compile one block and all in it; its place in pre-order, None if it cannot have one."""
        if not isinstance(raw, dict):
            self._problems.add(path, f"a block is a JSON object, not {name_of(raw)}")
            return None
        if not self._room(path, len(around)):
            return None
        fields = Fields(raw, path, self._problems)
        draft = self._draft(fields, parent, branch)
        index = len(self._drafts)
        self._drafts.append(draft)
        self._check_place(draft, around)
        self._children(fields, draft, index, (*around, draft.kind.shape))
        draft.last = len(self._drafts) - 1
        return index

    def _room(self, path: str, depth: int) -> bool:
        """Whether another block at this depth is within the limits; says so once when it is not."""
        self._depth = max(self._depth, depth + 1)
        if depth >= self._limits.max_depth:
            hint = f"at most {self._limits.max_depth} levels are allowed; move parts into sub-tasks"
            self._problems.add(path, "the blocks are nested too deeply", hint)
            return False
        if len(self._drafts) >= self._limits.max_nodes and not self._full:
            self._full = True
            hint = "move parts into sub-tasks"
            self._problems.add(path, f"the definition has more than {self._limits.max_nodes:,} blocks", hint)
        return not self._full

    def _draft(self, fields: Fields, parent: int, branch: str) -> Draft:
        id_, name = self._identity(fields)
        stated = fields.text("blockType", most=self._limits.max_name_chars * 2)
        owner = f"{name} ({stated[:100] or 'no type'}, id {id_ if id_ >= ROOT_ID else '?'})"
        fields = Fields(fields.raw, fields.path, self._problems, owner)
        kind, sub_task, inputs = self._kind(fields, stated)
        raw_params = fields.object("inputParams")
        params, readings = (
            self._binder.bind(raw_params, kind, f"{fields.path}/inputParams", owner, inputs)
            if kind is not None
            else (CompiledParams(owner, {}), [])
        )
        return Draft(
            id=id_,
            name=name,
            path=fields.path,
            kind=kind or _UNKNOWN,
            parent=parent,
            branch=branch,
            last=0,
            params=params,
            readings=readings,
            timeout_s=seconds(fields, "timeoutMs"),
            retry=retry(fields),
            recovery=one_of(fields, "recovery", RECOVERIES) or (kind or _UNKNOWN).recovery,  # type: ignore[arg-type]
            disabled=fields.flag("disabled"),
            sub_task=sub_task,
        )

    def _identity(self, fields: Fields) -> tuple[int, str]:
        """The block's id and name, both its own."""
        id_ = fields.raw.get("id")
        valid = isinstance(id_, int) and not isinstance(id_, bool) and id_ >= ROOT_ID
        if not isinstance(id_, int) or not valid:
            fields.wrong("id", f"must be a whole number from 0, not {name_of(id_)}")
            id_ = -2 - len(self._drafts)  # a stand-in that clashes with nothing
        elif id_ in self._ids:
            fields.wrong("id", f"{id_} is also the id of {self._ids[id_]}", "ids are unique in a definition")
        name = fields.text("name", most=self._limits.max_name_chars) or (
            f"b{id_}" if valid else f"#{len(self._drafts)}"
        )
        name = intern(name)  # the expressions that read it hold the same text
        if name in self._names:
            fields.wrong("name", f"{name!r} is also the name of {self._names[name]}", "names are unique")
        self._ids.setdefault(id_, fields.path)
        self._names.setdefault(name, fields.path)
        return id_, name

    def _kind(self, fields: Fields, stated: str) -> tuple[Kind | None, str | None, Sequence[InputParam] | None]:
        """The block's kind, and for a sub-task the definition it starts and that one's inputs."""
        kind = self._registry.get(stated)
        if stated in REFUSED:
            fields.wrong("blockType", f"{stated} is not supported", REFUSED[stated])
        elif not stated:
            if not fields.raw.get("blockType"):
                fields.wrong("blockType", "is missing")
        elif kind is None:
            fields.wrong("blockType", f"{stated[:100]!r} is unknown", self._registry.suggest(stated))
        elif kind.type == SUB_TASK:
            return kind, *self._sub_task(fields, stated)
        return None if stated in REFUSED else kind, None, None

    def _sub_task(self, fields: Fields, stated: str) -> tuple[str | None, Sequence[InputParam] | None]:
        reference = stated.partition("::")[2] or fields.raw.get("refTaskDefId")
        if isinstance(reference, int) and not isinstance(reference, bool):
            reference = str(reference)
        if not isinstance(reference, str) or not reference:
            fields.wrong("blockType", "does not say which definition to start", f"write {SUB_TASK}::<definition id>")
            return None, None
        if self._known is None:
            return reference, None
        if reference not in self._known:
            near = get_close_matches(reference, self._known, 1)
            hint = f"did you mean {near[0]}?" if near else "save that definition first"
            fields.wrong("blockType", f"there is no definition {reference[:100]!r}", hint)
            return reference, None
        return reference, self._known[reference]

    def _check_place(self, draft: Draft, around: tuple[Shape, ...]) -> None:
        if (draft.kind.type == ROOT) != (not around):
            where = "must be the root block" if around else f"must be {ROOT}"
            self._problems.add(f"{draft.path}/blockType", f"{draft.label}: blockType {where}")
        if not around and draft.id != ROOT_ID:
            self._problems.add(f"{draft.path}/id", f"{draft.label}: the root's id must be {ROOT_ID}, not {draft.id}")
        needs = draft.kind.needs
        if needs and not any(shape in needs for shape in around):
            what = {Shape.LOOP: "a loop", Shape.PARALLEL: "a parallel block"}[needs[0]]
            self._problems.add(draft.path, f"{draft.label}: {draft.kind.type} must be inside {what}")

    def _children(self, fields: Fields, draft: Draft, index: int, around: tuple[Shape, ...]) -> None:
        for branch, blocks in fields.object("children").items():
            path = f"{fields.path}/children/{escape(branch)}"
            if not isinstance(blocks, list):
                self._problems.add(path, f"{draft.label}: a branch is a JSON array, not {name_of(blocks)}")
                continue
            if blocks and branch not in draft.kind.branches and draft.kind is not _UNKNOWN:
                allowed = ", ".join(draft.kind.branches)
                hint = f"its branches: {allowed}" if allowed else "it has no branches"
                self._problems.add(path, f"{draft.label}: {draft.kind.type} has no branch {branch[:100]!r}", hint)
            places = [
                self._block(raw, f"{path}/{place}", index, branch, around)
                for place, raw in enumerate(blocks)
                if not self._full
            ]
            draft.branches[branch] = [place for place in places if place is not None]

    # ---- references -----------------------------------------------------------------------------

    def _check_references(self, outputs: list[Reading], inputs: tuple[InputParam, ...]) -> None:
        places = {draft.name: index for index, draft in enumerate(self._drafts)}
        outline = Outline(self._entries())
        declared = {each.name for each in inputs}
        readers = [(index, each) for index, draft in enumerate(self._drafts) for each in draft.readings]
        for index, reading in (*readers, *((None, each) for each in outputs)):
            for path in sorted(reading.names):
                if path[0] == "blocks" and len(path) > 1:
                    self._check_block(reading, path, index, places, outline)
                elif path[0] == "taskInputs" and len(path) > 1 and declared and path[1] not in declared:
                    hint = _near(path[1], declared)
                    text = f"{reading.label} reads taskInputs.{path[1][:100]}, which inputParams does not declare"
                    self._warnings.add(reading.path, text, hint)

    def _check_block(
        self, reading: Reading, path: tuple[str, ...], reader: int | None, places: dict[str, int], outline: Outline
    ) -> None:
        name = path[1]
        place = places.get(name)
        if place is None:
            text = f"{reading.label} reads blocks.{name[:100]}, but there is no block of that name"
            self._problems.add(reading.path, text, _near(name, places))
            return
        if reader is not None and not outline.may_precede(place, reader):
            text = f"{reading.label} reads blocks.{name}, which cannot have run before it: the value is null"
            self._warnings.add(reading.path, text)
        known = output_names(self._drafts[place].kind.outputs) if len(path) > 2 else None
        if known is not None and path[2] not in known:
            kind = self._drafts[place].kind.type
            text = f"{reading.label} reads blocks.{name}.{path[2][:100]}, which {kind} never gives"
            self._warnings.add(reading.path, text, f"it gives {', '.join(sorted(known)) or 'nothing'}")

    # ---- result ---------------------------------------------------------------------------------

    def _entries(self) -> list[Entry]:
        return [
            Entry(
                name=draft.name,
                parent=draft.parent,
                last=draft.last,
                branch=draft.branch,
                shape=draft.kind.shape,
                reads=frozenset() if self._is_off(draft) else draft.params.names,
                retried=draft.retry is not None,
            )
            for draft in self._drafts
        ]

    def _is_off(self, draft: Draft) -> bool:
        """Whether the block, or one around it, is disabled."""
        while not draft.disabled and draft.parent >= 0:
            draft = self._drafts[draft.parent]
        return draft.disabled

    def _nodes(self, outputs: CompiledParams) -> tuple[tuple[Node, ...], frozenset[str]]:
        """The nodes in pre-order and the names that are read, made from the leaves up."""
        live = analyse(self._entries(), outputs.names)
        nodes: dict[int, Node] = {}
        same: dict[frozenset[str] | None, frozenset[str] | None] = {}  # most blocks keep one of a few sets of keys
        for index in range(len(self._drafts) - 1, -1, -1):
            draft = self._drafts[index]
            keeps = live.keeps.get(draft.name, frozenset())
            nodes[index] = Node(
                id=draft.id,
                name=draft.name,
                kind=draft.kind,
                params=draft.params,
                branches={name: tuple(nodes[each] for each in places) for name, places in draft.branches.items()}
                or _NO_BRANCHES,
                index=index,
                timeout_s=draft.timeout_s,
                retry=draft.retry,
                recovery=draft.recovery,
                disabled=draft.disabled,
                sub_task=draft.sub_task,
                releases=live.releases.get(index, ()),
                keeps=same.setdefault(keeps, keeps),
            )
        return tuple(nodes[index] for index in range(len(nodes))), frozenset(live.keeps)


def _facts(fields: Fields) -> dict[str, Any]:
    """What a definition says of all of its blocks together."""
    parallel = fields.number("maxParallel", 1, MAX_PARALLEL, whole=True)
    version = fields.raw.get("version")
    return {
        "version": "" if version is None else str(version)[:100],
        "remark": fields.text("remark"),
        "timeout_s": seconds(fields, "timeoutMs"),
        "retry": retry(fields),
        "max_parallel": None if parallel is None else int(parallel),
        "release": release(fields),
    }


_NO_BRANCHES: Final[Mapping[str, tuple[Node, ...]]] = MappingProxyType({})
_UNKNOWN: Final = Kind(type="?")
"""Stands for a kind that does not exist, so that what is inside is checked as well."""


def _near(name: str, known: Any) -> str:
    near = get_close_matches(name[:100], known, 1)
    return f"did you mean {near[0]}?" if near else ""
