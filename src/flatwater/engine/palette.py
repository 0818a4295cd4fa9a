"""The palette: every kind of block with its parameters and outputs as JSON schema, for forms and documents."""

from __future__ import annotations

from types import NoneType
from typing import TYPE_CHECKING, Any, Final

import msgspec

from flatwater.engine.parameter import NEEDED, ParamType
from flatwater.engine.signature import classify, strip

if TYPE_CHECKING:
    from flatwater.engine.block import Kind
    from flatwater.engine.expression.function import Function

_SCHEMAS: Final[dict[ParamType, dict[str, Any]]] = {
    ParamType.STRING: {"type": "string"},
    ParamType.BOOLEAN: {"type": "boolean"},
    ParamType.LONG: {"type": "integer"},
    ParamType.DOUBLE: {"type": "number"},
    ParamType.OBJECT: {"type": "object"},
    ParamType.ARRAY: {"type": "array"},
    ParamType.ANY: {},
}


def describe(kind: Kind) -> dict[str, Any]:
    """The palette's entry of ``kind``."""
    return {
        "type": kind.type,
        "family": kind.family,
        "description": kind.description,
        "aliases": list(kind.aliases),
        "branches": list(kind.branches),
        "shape": kind.shape.value,
        "recovery": kind.recovery,
        "params": _params_schema(kind),
        "outputs": _outputs_schema(kind.outputs),
    }


def describe_function(function: Function) -> dict[str, Any]:
    """A function of expressions: how many arguments it takes, an example, who declared it."""
    return {
        "least": function.least,
        "most": function.most,
        "description": function.description,
        "example": function.example,
        "origin": function.origin,
    }


def _params_schema(kind: Kind) -> dict[str, Any]:
    annotated = [param.annotation for param in kind.params if param.annotation is not None]
    found, components = msgspec.json.schema_components(annotated, ref_template="#/$defs/{name}")
    schemas = iter(found)
    properties: dict[str, Any] = {}
    for param in kind.params:
        schema = dict(next(schemas)) if param.annotation is not None else dict(_SCHEMAS[param.type])
        schema["x-type"] = param.type.value
        if param.description:
            schema["description"] = param.description
        if param.default is not NEEDED and param.default is not None:
            schema["default"] = msgspec.to_builtins(param.default)
        properties[param.name] = schema
    required = [param.name for param in kind.params if param.required]
    return _object(properties, components, required=required, additionalProperties=kind.open)


def _outputs_schema(outputs: Any) -> dict[str, Any]:
    if outputs is None or outputs is NoneType:
        return _object({}, {})
    bare = strip(outputs)
    if bare in (Any, object):
        return _object({}, {}, additionalProperties=True)
    (schema,), components = msgspec.json.schema_components([bare], ref_template="#/$defs/{name}")
    if classify(bare)[0] is not ParamType.OBJECT:
        return _object({"result": schema}, components)
    name = schema.get("$ref", "").rpartition("/")[2]
    return {**(components.pop(name) if name else schema), **({"$defs": components} if components else {})}


def _object(properties: dict[str, Any], components: dict[str, Any], **rest: Any) -> dict[str, Any]:
    definitions = {"$defs": components} if components else {}
    return {"type": "object", "properties": properties, **rest, **definitions}
