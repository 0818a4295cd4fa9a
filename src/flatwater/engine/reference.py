"""The page ``docs/reference/blocks.md``, written from the palette: ``python -m flatwater.engine.reference``."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

import msgspec

from flatwater.engine.block import SUB_TASK, Registry
from flatwater.engine.blocks import builtin
from flatwater.engine.example import EXAMPLES, SUB_TASK_ID

FAMILIES: Final = {
    "flow": "Flow",
    "site": "Sites",
    "robot": "Robots",
    "task": "Tasks",
    "data": "Data",
    "http": "HTTP",
    "sql": "SQL",
    "modbus": "Modbus",
}
RECOVERIES: Final = {
    "rerun": "executed again",
    "reattach": "looks up what it had begun and goes on with that",
    "operator": "the run waits for a person, who says whether the call had happened",
}
_HEAD: Final = """# Blocks

Written from the block functions (`python -m flatwater.engine.reference` prints it; a test compares).

A block is `{"id", "name", "blockType", "inputParams", "children"}`. A parameter is `{"type", "value"}`: `Simple` is a
literal, `Expression` is computed each time the block runs, `Key-Value` is a list of rows `[key, value, type]`. A blank
value and null mean the default. Outputs are read as `blocks.<name>.<output>`.

Any block may also have `timeoutMs`, `retry` (`maxAttempts`, `delayMs`, `factor`, `maxDelayMs`, `jitter`), `disabled`
and `recovery`, which says what happens to it when the server died while it was executing:

"""


def reference(registry: Registry | None = None) -> str:
    """The text of the page."""
    palette = (registry or builtin()).palette()
    lines = [f"- `{name}`: {meaning}." for name, meaning in RECOVERIES.items()]
    parts = [_HEAD + "\n".join(lines), _contents(palette)]
    for family, title in FAMILIES.items():
        entries = [entry for entry in palette if entry["family"] == family]
        parts += [f"## {title}", *map(_entry, entries)]
    return "\n\n".join(parts) + "\n"


def _contents(palette: list[dict[str, Any]]) -> str:
    rows = []
    for family, title in FAMILIES.items():
        types = [f"[{entry['type']}](#{entry['type'].lower()})" for entry in palette if entry["family"] == family]
        rows.append(f"- {title}: {' · '.join(types)}")
    return "\n".join(rows)


def _entry(entry: dict[str, Any]) -> str:
    facts = [f"Recovery: `{entry['recovery']}`."]
    if entry["aliases"]:
        facts.insert(0, f"Also named {', '.join(f'`{alias}`' for alias in entry['aliases'])}.")
    if entry["branches"]:
        facts.insert(0, f"Children: {', '.join(f'`{branch}`' for branch in entry['branches'])}.")
    parts = [f"### {entry['type']}", f"{entry['description']} {' '.join(facts)}"]
    if rows := list(_params(entry["params"])):
        parts.append("\n".join(["| parameter | type | default | meaning |", "|---|---|---|---|", *rows]))
    if outputs := list(_outputs(entry["outputs"])):
        parts.append(f"Outputs: {', '.join(outputs)}.")
    return "\n\n".join([*parts, f"```json\n{example(entry)}\n```"])


def _params(schema: dict[str, Any]) -> Iterable[str]:
    for name, param in schema["properties"].items():
        default = "required" if name in schema["required"] else _literal(param.get("default"))
        yield f"| `{name}` | {param['x-type']} | {default} | {param.get('description', '')} |"
    if schema["additionalProperties"]:
        yield "| any other | Any | | passed on |"


def _literal(value: Any) -> str:
    return "" if value is None else f"`{msgspec.json.encode(value).decode()}`"


def _outputs(schema: dict[str, Any]) -> Iterable[str]:
    if "properties" not in schema:
        yield "an object"
    for name, output in schema.get("properties", {}).items():
        kinds = output.get("anyOf", [output])
        names = [each.get("type") or each.get("$ref", "any").rpartition("/")[2] for each in kinds]
        inner = next((schema["$defs"][each] for each in names if each in schema.get("$defs", {})), None)
        shown = [
            f"object {{{', '.join(inner['properties'])}}}" if inner and each not in _PLAIN else each for each in names
        ]
        yield f"`{name}` ({' or '.join(shown)})"


_PLAIN: Final = ("null", "string", "integer", "number", "boolean", "array", "object", "any")


# ---- examples ---------------------------------------------------------------------------------------


def example(entry: dict[str, Any]) -> str:
    """A block of this type as JSON text, a parameter a line."""
    type_ = entry["type"] if entry["type"] != SUB_TASK else f"{SUB_TASK}::{SUB_TASK_ID}"
    root = entry["type"] == "RootBp"
    identity = {"id": -1 if root else 1, "name": "root" if root else "b1", "blockType": type_}
    lines = [_json(identity)[:-1]]
    params = [f"  {_json(name)}: {_json(param(value))}" for name, value in EXAMPLES[entry["type"]].items()]
    if params:
        lines = [lines[0] + ', "inputParams": {', ",\n".join(params), "}"]
    if entry["branches"]:
        children = [f"  {_json(branch)}: [{_json(child(i))}]" for i, branch in enumerate(entry["branches"], 2)]
        lines[-1] += ', "children": {'
        lines += [",\n".join(children), "}"]
    return "\n".join(lines) + "}"


def param(value: Any) -> dict[str, str]:
    """A parameter as definitions hold it: every literal is text."""
    if isinstance(value, str):
        return (
            {"type": "Expression", "value": value[1:]} if value.startswith("=") else {"type": "Simple", "value": value}
        )
    return {"type": "Simple", "value": msgspec.json.encode(value).decode()}


def child(id_: int) -> dict[str, Any]:
    """A block to stand in a branch."""
    return {
        "id": id_,
        "name": f"b{id_}",
        "blockType": "PrintBp",
        "inputParams": {"message": param(f"branch {id_ - 1}")},
    }


def _json(value: Any) -> str:
    return msgspec.json.format(msgspec.json.encode(value), indent=0).decode()


if __name__ == "__main__":
    print(reference(), end="")  # noqa: T201
