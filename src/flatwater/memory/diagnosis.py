"""From a process to an answer: does it grow, what grows, who holds it, who made it, what to do.

:func:`diagnose` composes the instruments over a :class:`~flatwater.memory.target.Target`. It watches for two thirds of
the window, asks a snapshot's graph who the owners are, and traces the rest of the window. No value of the process's
data is in a :class:`Diagnosis`: types, names, sizes and counts only, unless ``values`` was asked for.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import msgspec

from flatwater.memory import anchor, evidence, growth, suspect
from flatwater.memory import target as targets
from flatwater.memory.advice import Advice, Facts, advise
from flatwater.memory.anchor import Outline
from flatwater.memory.evidence import Ends, Outside, Room
from flatwater.memory.growth import Growing, GrowingType, Observation
from flatwater.memory.heap_graph import Graph
from flatwater.memory.heap_model import Census, Edge, HeapError, TypeGrowth, census_diff
from flatwater.memory.heap_path import Path
from flatwater.memory.holder import Holder, holders
from flatwater.memory.per_work import Course, company, per
from flatwater.memory.signature import signature
from flatwater.memory.suspect import Suspect
from flatwater.memory.target import Target
from flatwater.memory.verdict import MIN_PYTHON, PAYLOAD, Evidence, Part, Verdict, idle_collector, judge
from flatwater.quantity import size

LOOK_SHARE = 0.65
"""Part of the window in which nothing but looking happens; tracing, which itself takes memory, has the rest."""
MAX_WATCHED = 12
MAX_CENSUS_BLOCKS = 6_000_000
"""Above this many blocks the two full censuses would stop the process too long."""
TYPES_ASKED = 3
SWELLING = 128 << 10
"""Bytes that a buffer must gain in the window to be a suspect."""
INSTANCES = 16
BLOCK = 48
"""Bytes of a small object."""
FILLING_SHARE = 0.05
"""Of the memory that is left, what a container with a bound may still take without being a leak."""
FOREIGN = 0.2
"""Objects of C extensions for each entry of a container from which it may own native memory."""
EXPLAINED = 0.3
"""The share of the growth below which the suspects do not explain it: then two snapshots are compared …"""
ANCHOR_SHARE = 0.2
"""… that are this part of the window apart."""

Progress = Callable[[str, float], None]


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """A suspect with all that is known of it; ``makers`` is its row of ``watch`` or ``types_made``."""

    suspect: Suspect
    makers: dict[str, Any]
    per: dict[str, Any] | None
    advice: Advice | None
    signature: str


class Diagnosis(msgspec.Struct, frozen=True, kw_only=True):
    """The answer. ``holders`` are given when nothing grows; ``notes`` say what could not be seen; ``took_s`` counts
    from attached to answered. ``goes_with`` is the unit and name of the work with which memory grows, if one does."""

    pid: int
    name: str
    python: str
    window_s: float
    took_s: float
    paused_s: float
    verdict: Verdict
    findings: tuple[Finding, ...]
    advice: Advice | None
    signature: str
    holders: tuple[Holder, ...] = ()
    notes: tuple[str, ...] = ()
    trimmed: tuple[int, int] | None = None
    pools: tuple[dict[str, Any], ...] = ()
    goes_with: tuple[str, str] | None = None

    @property
    def command(self) -> str:
        """What runs the same diagnosis again."""
        return f"flatwater diagnose {self.pid} --for {self.window_s:g}s"


def diagnose(
    target: Target,
    seconds: float = 10.0,
    *,
    trace: bool = True,
    trim: bool = False,
    values: bool = False,
    max_suspects: int = 5,
    progress: Progress | None = None,
) -> Diagnosis:
    """Diagnose a process. Blocks for ``seconds`` and for what the graph takes (2 s at a million objects).

    ``trace=False`` leaves out who made the items; ``trim`` lets malloc give back what is free and says how much that
    was; ``values`` shows dict keys in paths. ``progress`` hears a phase and the part of the work that is done.
    Raises FlatwaterError or HeapError with the remedy, among them that the process has ended.
    """
    return _Diagnosing(target, seconds, trace, trim, values, max_suspects, progress or (lambda phase, part: None)).run()


class _Diagnosing:
    def __init__(
        self,
        target: Target,
        seconds: float,
        trace: bool,
        trim: bool,
        values: bool,
        max_suspects: int,
        progress: Progress,
    ) -> None:
        self.target, self.seconds, self.progress = target, seconds, progress
        self.trace, self.trim, self.values, self.max_suspects = trace, trim, values, max_suspects
        self.notes: list[str] = []
        self.outline: Outline | None = None
        self.gained = 0
        self.still_per_s = 0.0

    def run(self) -> Diagnosis:
        began = time.monotonic()
        who = self.target.ask("hello")
        course = Course(self.target)
        self.progress("watching it grow", 0.05)
        self._warm_up()
        begin = self._end()
        with Outside(self.target.pid) as outside:
            seconds = self.seconds * (LOOK_SHARE if self.trace else 1.0)
            seen = growth.observe(self.target, seconds, on_look=course.look)
        end = self._end()
        course.end()
        rows, kinds = growth.growing(seen), growth.growing_types(seen)
        self.progress("asking who holds it", 0.65)
        found, garbage = self._owners(rows, kinds, seen, begin, end)
        found, self.facts = self._facts(found, garbage, seen, outside, begin, end)
        verdict = judge(self.facts)
        if verdict.kind == "python-objects" and self.outline is not None:
            found = self._anchored(found, self.outline, begin, end, kinds)
            if not found:
                self.facts = self._still_growing(self.facts)
                verdict = judge(self.facts)
        found = self._relevant(found, verdict)
        self.progress("tracing who makes it", 0.75)
        makers = self._makers(found)
        findings = tuple(self._finding(one, makers.get(at, {}), verdict, course, seen) for at, one in enumerate(found))
        holding = () if verdict.growing else self._holders()
        trimmed = self._trim() if self.trim else None
        advice = _verdict_advice(verdict, self.facts)
        self.progress("done", 1.0)
        if seen.missing:
            self.notes.append(seen.missing)
        return Diagnosis(
            pid=self.target.pid,
            name=evidence.name_of(self.target.pid),
            python=who["python"],
            window_s=self.seconds,
            took_s=time.monotonic() - began,
            paused_s=seen.paused_s,
            verdict=verdict,
            findings=findings,
            advice=advice,
            signature=findings[0].signature if findings else signature(verdict.kind, "", "", ""),
            holders=holding,
            notes=tuple(self.notes),
            trimmed=trimmed,
            goes_with=self._goes_with(verdict, findings, course, seen),
        )

    def _facts(
        self,
        found: list[Suspect],
        garbage: tuple[int, int],
        seen: Observation,
        outside: Outside,
        begin: Ends,
        end: Ends,
    ) -> tuple[list[Suspect], Evidence]:
        """The suspects that count, and what the verdict rests on."""
        room = Room(self.target.pid)
        found, filling = self._unbounded(found, room)
        return found, evidence.assemble(
            outside.points,
            seen,
            begin,
            end,
            [one for one in found if not one.unreachable],
            room,
            container_per_s=sum(one.bytes_per_s for one in found if not one.weak and not one.unreachable),
            payload_per_s=sum(
                one.bytes_per_s for one in found if not one.weak and one.bytes_per_s >= PAYLOAD * one.per_s > 0
            ),
            filling_per_s=filling,
            foreign=any(one.foreign >= FOREIGN * one.length > 0 for one in found if not one.weak),
            garbage=garbage,
        )

    def _warm_up(self) -> None:
        """The first look grows the process by the agent's own rows (some MB): before the window, or it would be growth.

        In a huge heap it would be dear, and its rows are lost in the rest.
        """
        if self.target.ask("usage", shares=False)["blocks"] <= MAX_CENSUS_BLOCKS:
            self.target.ask("sample")

    def _end(self) -> Ends:
        usage = self.target.ask("usage", shares=False)
        census: Census | None = None
        if usage["blocks"] <= MAX_CENSUS_BLOCKS:
            census = targets.census(self.target, scope="all")
            if census.missing:
                self.notes.append(census.missing)
                self.notes = list(dict.fromkeys(self.notes))
        return evidence.ends(self.target.pid, census, usage)

    def _goes_with(
        self, verdict: Verdict, findings: tuple[Finding, ...], course: Course, seen: Observation
    ) -> tuple[str, str] | None:
        """The work with which memory grows: by the first suspect that tells; where there is none, by the RSS."""
        told = [(one.per["unit"], one.per["name"]) for one in findings if one.per is not None and one.per["goes_with"]]
        if told or findings or not verdict.growing:
            return told[0] if told else None
        cause = course.goes_with([(at, usage["memory"]["rss"]) for at, usage in seen.usage])
        return None if cause is None else (cause.unit, cause.name)

    def _owners(
        self, rows: list[Growing], kinds: list[GrowingType], seen: Observation, begin: Ends, end: Ends
    ) -> tuple[list[Suspect], tuple[int, int]]:
        """Suspects with their owners, and the garbage, from one snapshot; nothing is asked when nothing grows."""
        blocks = [usage["blocks"] for _, usage in seen.usage]
        idle = not end.usage["collector"]["enabled"] or end.usage["collector"]["frozen"] > 0
        swelling = None
        if begin.census is not None and end.census is not None:
            swelling = suspect.swelling(begin.census, end.census, SWELLING)
        if not rows and not kinds and not idle and swelling is None and blocks[-1] <= blocks[0]:
            return [], (0, 0)
        asked = self._instances(kinds)
        try:
            with targets.graph(self.target, values=self.values) as graph:
                found = suspect.suspects(graph, rows, seconds=seen.seconds, max_suspects=self.max_suspects)
                found = self._types(graph, kinds, asked, found, {row.address for row in rows})
                if not found and swelling is not None:
                    buffer = suspect.swollen(graph, swelling, end.at - begin.at)
                    found += [] if buffer is None else [buffer]
                explained = sum(one.bytes_per_s for one in found) * seen.seconds
                self.gained = _gained(begin, end, seen)
                if explained < EXPLAINED * self.gained:
                    self.outline = anchor.outline(graph, time.monotonic())
                waste = graph.garbage()
                return found, (waste.bytes, waste.count)
        except HeapError as error:
            self.notes.append(f"no owners: {error}")
            return [], (0, 0)

    def _unbounded(self, found: list[Suspect], room: Room) -> tuple[list[Suspect], float]:
        """The suspects without those that are filling up to a bound which is near, and what these gain each second."""
        asked = [one for one in found if one.what == "container" and one.merged == 1 and one.path is not None]
        pairs = [suspect.bounded_by(one) for one in asked]
        if not pairs:
            return found, 0.0
        full: list[Suspect] = []
        for one, bound in zip(asked, self.target.ask("bounds", pairs=pairs), strict=True):
            if bound is None or not one.length <= bound:
                continue
            more = one.retained / max(one.length, 1) * (bound - one.length)
            if more <= FILLING_SHARE * (room.headroom or 0):
                full.append(one)
                self.notes.append(
                    f"not counted as growth: {one.owner} fills up to its bound of {bound:,} entries, {size(more)} more"
                )
        return [one for one in found if one not in full], sum(one.bytes_per_s for one in full)

    def _anchored(
        self, found: list[Suspect], before: Outline, begin: Ends, end: Ends, kinds: list[GrowingType]
    ) -> list[Suspect]:
        """The suspects, and who holds the growth that they do not explain, by comparing with a second snapshot."""
        self.progress("comparing who held it", 0.7)
        time.sleep(max(0.0, before.at + max(1.0, ANCHOR_SHARE * self.seconds) - time.monotonic()))
        try:
            with targets.graph(self.target, values=self.values) as graph:
                after = anchor.outline(graph, time.monotonic())
                self.still_per_s = (after.bytes - before.bytes) / (after.at - before.at)
                holder = anchor.find(graph, before, after)
        except HeapError as error:
            self.notes.append(f"no second snapshot: {error}")
            return found
        if holder is None or any(mark in str(holder.path) for mark in suspect.NOISE):
            return found
        seconds = end.at - begin.at
        if holder.gained / holder.seconds < EXPLAINED * self.gained / seconds:
            return found
        if begin.census is not None and end.census is not None:
            grown = census_diff(begin.census, end.census)
        else:
            grown = tuple(
                TypeGrowth(row.type, round(row.growth_per_s * seconds), round(row.bytes_per_s * seconds))
                for row in kinds
            )
        made = anchor.suspect(holder, grown, seconds)
        same = [one for one in found if one.path is not None and holder.node.address in _addresses(one.path)]
        if same:
            return [replace(one, bytes_per_s=made.bytes_per_s) if one is same[0] else one for one in found]
        return [made, *found]

    def _still_growing(self, facts: Evidence) -> Evidence:
        """No holder was found: what grew between the snapshots counts, for the growth before may have ended."""
        begin, end = facts.object_bytes
        later = begin + round(self.still_per_s * facts.window_s)
        return msgspec.structs.replace(facts, sought=True, object_bytes=(begin, min(end, later)))

    def _instances(self, kinds: list[GrowingType]) -> dict[str, list[int]]:
        named = [row for row in kinds if row.type not in _ATOMS][:TYPES_ASKED]
        return {row.type: self.target.ask("instances", type=row.type, limit=INSTANCES) for row in named}

    def _types(
        self,
        graph: Graph,
        kinds: list[GrowingType],
        asked: dict[str, list[int]],
        found: list[Suspect],
        growing: set[int],
    ) -> list[Suspect]:
        """The suspects, and types that no suspect's container explains."""
        explained: dict[str, int] = {}
        for one in found:
            for name, count in (*one.holdings, *one.items.types):
                explained[name] = max(explained.get(name, 0), count)
            explained[one.items.type] = max(explained.get(one.items.type, 0), one.items.count)
        made: list[Suspect] = []
        for row in kinds:
            if row.type not in asked or explained.get(row.type, 0) >= 0.2 * row.count or len(made) >= TYPES_ASKED:
                continue
            rates = (row.growth_per_s, row.low, row.high, row.bytes_per_s)
            one, through = suspect.by_type(graph, row.type, rates, row.count, asked[row.type], growing, found)
            if through:
                found = suspect.credited(found, through, one.bytes_per_s)
            elif one.path is not None and (not found or one.bytes_per_s > found[0].bytes_per_s):
                made.append(one)
        return found + made

    def _relevant(self, found: list[Suspect], verdict: Verdict) -> list[Suspect]:
        if verdict.kind == "plateau":
            return []
        kept = [one for one in found if not one.weak] or found
        if verdict.kind == "thread-stacks":
            return kept[:2]
        least = 0.02 * max((one.bytes_per_s for one in kept), default=0.0)
        kept = [one for one in kept if one.bytes_per_s >= least]
        return sorted(kept, key=lambda one: -one.bytes_per_s)[: self.max_suspects]

    def _makers(self, found: list[Suspect]) -> dict[int, dict[str, Any]]:
        """By suspect's place: its row of ``watch``, or of ``types_made`` for a type."""
        if not self.trace or not found:
            return {}
        seconds = self.seconds * (1 - LOOK_SHARE)
        addresses = {one.addresses[0]: at for at, one in reversed(tuple(enumerate(found))) if one.addresses}
        share = max(1, MAX_WATCHED // len(found))
        inner = {extra: at for at, one in enumerate(found) for extra in one.addresses[1:share]}
        wanted = list({**inner, **addresses}.items())[-MAX_WATCHED:]
        slots = [
            (at, slot) for at, one in enumerate(found) if one.what != "container" for slot in suspect.slots(one.path)
        ]
        made: dict[int, dict[str, Any]] = {}
        try:
            if wanted or slots:
                told = self.target.ask(
                    "watch",
                    addresses=[address for address, _ in wanted],
                    slots=[slot for _, slot in slots],
                    seconds=seconds,
                )
                places = [at for _, at in wanted] + [at for at, _ in slots]
                for at, row in zip(places, told["containers"], strict=True):
                    if row.get("grew", 0) > made.get(at, {}).get("grew", -1):
                        made[at] = row
            types = {one.type: at for at, one in enumerate(found) if one.what == "type"}
            if types:
                told = self.target.ask("types_made", seconds=min(seconds, 3.0), types=list(types))
                for row in told["types"]:
                    made[types[row["type"]]] = _joined(made.get(types[row["type"]], {}), row)
        except HeapError as error:
            self.notes.append(f"makers unknown: {error}")
        return made

    def _finding(
        self, one: Suspect, makers: dict[str, Any], verdict: Verdict, course: Course, seen: Observation
    ) -> Finding:
        inserted = makers.get("inserted_at") or makers.get("allocated_at") or []
        function = inserted[0]["function"] if inserted else ""
        return Finding(
            suspect=one,
            makers={key: value for key, value in makers.items() if key != "address"},
            per=per(one, course.completed, seen.seconds, course.goes_with(company(one, seen))),
            advice=_verdict_advice(verdict, self.facts)
            if one.unreachable or (verdict.kind == "thread-stacks" and one.owner.startswith("threading."))
            else advise(_facts(one, makers)),
            signature=signature(
                "cyclic-garbage" if one.unreachable else "python-objects", one.owner, one.items.type, function
            ),
        )

    def _holders(self) -> tuple[Holder, ...]:
        """Nothing grows: who holds what there is."""
        self.progress("asking who holds what there is", 0.9)
        try:
            with targets.graph(self.target, values=self.values) as graph:
                return holders(graph)
        except HeapError as error:
            self.notes.append(f"no holders: {error}")
            return ()

    def _trim(self) -> tuple[int, int]:
        told = self.target.ask("trim")
        return told["before"], told["after"]


def _gained(begin: Ends, end: Ends, seen: Observation) -> int:
    """Bytes by which all objects became more, by their number where nobody counted bytes; 0 when it is nothing."""
    if begin.census is not None and end.census is not None:
        gain = end.census.bytes - begin.census.bytes
    else:
        gain = BLOCK * (seen.usage[-1][1]["blocks"] - seen.usage[0][1]["blocks"])
    return gain if gain >= MIN_PYTHON else 0


def _addresses(path: Path) -> set[int]:
    return {node.address for node in path.nodes}


def _joined(watched: dict[str, Any], made: dict[str, Any]) -> dict[str, Any]:
    """What a watched slot told, and first of all what the making of the objects themselves did."""
    rows = made.get("allocated_at", [])
    known = {(row["file"], row["line"]) for row in rows}
    more = [row for row in watched.get("allocated_at", []) if (row["file"], row["line"]) not in known]
    return made | {key: value for key, value in watched.items() if value} | {"allocated_at": rows + more}


_ATOMS = ("str", "bytes", "int", "float", "tuple", "dict", "list", "set", "cell", "frame", "type", "object")


def _facts(one: Suspect, makers: dict[str, Any]) -> Facts:
    steps = one.path.steps if one.path is not None else ()
    places = [*(makers.get("inserted_at") or []), *(makers.get("allocated_at") or [])]
    return Facts(
        kind="python-objects",
        owner=one.owner,
        names=tuple(step.edge.name for step in steps if isinstance(step.edge, Edge) and step.edge.name),
        types=tuple(step.node.type for step in steps if hasattr(step.node, "type")),
        container=one.type,
        items=one.items.type,
        item_types=tuple(name for name, _ in one.items.types),
        holdings=dict(one.holdings),
        length=one.length,
        coroutines=tuple(row["name"] for row in makers.get("coroutines") or []),
        functions=tuple(place["function"] for place in places),
        removes=makers.get("shrank", 0) > makers.get("grew", 0) / 2,
    )


def _verdict_advice(verdict: Verdict, facts: Evidence) -> Advice | None:
    if verdict.kind in ("plateau", "python-objects"):
        return None
    frozen = facts.inner[-1].frozen if facts.inner else 0
    return advise(Facts(kind=verdict.kind, collector=facts.collector, frozen=frozen))


__all__ = ["Diagnosis", "Finding", "Part", "diagnose", "idle_collector"]
