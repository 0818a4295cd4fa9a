"""Short ways to write definitions in tests."""

from __future__ import annotations

import json
from typing import Any

Block = dict[str, Any]


def b(id: int, kind: str, params: dict[str, Any] | None = None, name: str = "", **children: Any) -> Block:
    """A block; a parameter that starts with ``=`` is an expression, keyword lists are branches."""
    extra = {key: children.pop(key) for key in ("retry", "timeoutMs", "recovery", "disabled") if key in children}
    return {
        "id": id,
        "name": name or f"b{id}",
        "blockType": kind,
        "children": {key.rstrip("_"): value for key, value in children.items()},
        "inputParams": {key: param(value) for key, value in (params or {}).items()},
        **extra,
    }


def param(value: Any) -> dict[str, Any]:
    if isinstance(value, str) and value.startswith("="):
        return {"type": "Expression", "value": value[1:], "required": False}
    text = value if isinstance(value, str) else json.dumps(value)
    return {"type": "Simple", "value": text, "required": False}


def plan(label: str, *blocks: Block, inputs: Any = (), outputs: dict[str, str] | None = None, **extra: Any) -> Block:
    """A definition; ``outputs`` maps names to expressions."""
    return {
        "label": label,
        "version": 1,
        "inputParams": [{"name": name, "type": kind, "required": False} for name, kind in inputs],
        "outputParams": [
            {"name": name, "type": "Any", "value": f"={source}"} for name, source in (outputs or {}).items()
        ],
        "rootBlock": {
            "id": -1, "name": "root", "blockType": "RootBp", "children": {"default": list(blocks)}, "inputParams": {},
        },
        **extra,
    }  # fmt: skip
