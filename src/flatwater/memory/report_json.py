"""A diagnosis as JSON: the form that ``docs/reference/diagnosis.schema.json`` describes."""

from __future__ import annotations

from typing import Any

import msgspec

from flatwater.memory.diagnosis import Diagnosis, Finding
from flatwater.memory.suspect import path_json
from flatwater.memory.verdict import Verdict

FORMAT = 1
"""Raised when a field changes its meaning or goes; new fields do not raise it."""


def document(diagnosis: Diagnosis) -> dict[str, Any]:
    """JSON values only."""
    return {
        "format": FORMAT,
        "process": {"pid": diagnosis.pid, "name": diagnosis.name, "python": diagnosis.python},
        "window_s": diagnosis.window_s,
        "took_s": round(diagnosis.took_s, 3),
        "paused_s": round(diagnosis.paused_s, 4),
        "verdict": _verdict(diagnosis.verdict, diagnosis),
        "suspects": [_suspect(one) for one in diagnosis.findings],
        "holders": msgspec.to_builtins(diagnosis.holders),
        "trim": _trim(diagnosis.trimmed),
        "notes": list(diagnosis.notes),
        "command": diagnosis.command,
    }


def encode(diagnosis: Diagnosis) -> bytes:
    """Indented UTF-8 with a newline at its end."""
    return msgspec.json.format(msgspec.json.encode(document(diagnosis)), indent=2) + b"\n"


def _verdict(verdict: Verdict, diagnosis: Diagnosis) -> dict[str, Any]:
    return {
        "kind": verdict.kind,
        "growing": verdict.growing,
        "slope_bytes_per_s": verdict.slope_bytes_per_s,
        "ci": list(verdict.ci),
        "confidence": 0.95,
        "measured": verdict.measured,
        "reason": verdict.reason,
        "goes_with": None
        if diagnosis.goes_with is None
        else dict(zip(("unit", "name"), diagnosis.goes_with, strict=True)),
        "rss_bytes": verdict.rss,
        "limit": {"bytes": verdict.limit, "of": verdict.limit_of, "reached_in_s": verdict.limit_in_s},
        "others": [
            {"kind": part.kind, "bytes_per_s": part.per_s, "bytes": part.bytes, "reason": part.reason}
            for part in verdict.others
        ],
        "figures": [msgspec.to_builtins(figure) for figure in verdict.figures],
        "advice": msgspec.to_builtins(diagnosis.advice),
        "signature": diagnosis.signature,
    }


def _suspect(found: Finding) -> dict[str, Any]:
    one, makers = found.suspect, found.makers
    return {
        "what": one.what,
        "container": {
            "path": one.owner,
            "type": one.type,
            "size": one.length,
            "growth_per_s": one.per_s,
            "ci": [one.low, one.high],
            "bytes_per_s": one.bytes_per_s,
            "retained_bytes": one.retained,
            "merged": one.merged,
            "retaining_path": path_json(one),
        },
        "items": {
            "type": one.items.type,
            "count": one.items.count,
            "retained_bytes": one.items.retained,
            "types": [{"type": name, "sampled": count} for name, count in one.items.types],
        },
        "allocated_at": makers.get("allocated_at") or [],
        "inserted_at": makers.get("inserted_at") or [],
        "removed_at": makers.get("removed_at") or [],
        "coroutines": makers.get("coroutines") or [],
        "per": found.per,
        "advice": msgspec.to_builtins(found.advice),
        "signature": found.signature,
    }


def _trim(trimmed: tuple[int, int] | None) -> dict[str, int] | None:
    return None if trimmed is None else {"before_bytes": trimmed[0], "after_bytes": trimmed[1]}
