"""``/openapi.json``, generated from the route table: the same types that decode requests and encode answers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import msgspec

from flatwater import __version__
from flatwater.server.problem import ErrorAnswer
from flatwater.server.reply import JSON
from flatwater.server.request import lists
from flatwater.server.route import Route

REFS = "#/components/schemas/{name}"
_REASONS = {
    200: "Done",
    201: "Created",
    204: "Done, nothing to say",
    400: "The body is not JSON",
    401: "A token is needed",
    403: "Wrong host or origin",
    404: "There is no such thing",
    408: "The body came too slowly",
    409: "The present state does not allow this",
    413: "The body is too large",
    415: "The body is not of type application/json",
    422: "A value is not of its type, or the definition is not valid",
    429: "A limit was reached",
    503: "Not now: starting, stopping, full or without database; see Retry-After",
    504: "It took too long",
}
_ENVELOPE = {
    "type": "object",
    "properties": {"code": {"type": "integer"}, "msg": {"type": "string"}, "data": {"type": "null"}},
    "required": ["code", "msg"],
}
_ALWAYS = (401, 403, 429, 503, 504)
_WITH_BODY = (400, 408, 413, 415, 422)


def document(routes: Sequence[Route]) -> dict[str, Any]:
    """The OpenAPI 3.1 document of these routes."""
    types = [ErrorAnswer, *(kind for route in routes for kind in _types(route))]
    unique = list(dict.fromkeys(types))
    schemas, components = msgspec.json.schema_components(unique, ref_template=REFS)
    schema_of = dict(zip(unique, schemas, strict=True))
    paths: dict[str, dict[str, Any]] = {}
    for route in routes:
        paths.setdefault(route.template, {})[route.method.lower()] = _operation(route, schema_of)
    return {
        "openapi": "3.1.0",
        "info": {"title": "Flatwater", "version": __version__, "description": _DESCRIPTION},
        "paths": paths,
        "components": {
            "schemas": components,
            "responses": _refusals(),
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
        },
        "tags": [{"name": tag} for tag in dict.fromkeys(route.tag for route in routes)],
    }


_DESCRIPTION = (
    "Durable block flows. Times are seconds since the epoch (UTC). Lists are pages: pass `next` as `cursor`. "
    "Unknown query parameters and fields are refused. A token is needed unless the server listens on loopback."
)


def _types(route: Route) -> Iterator[Any]:
    if _described(route):
        yield route.answer
    if route.body is not None:
        yield route.body
    yield from route.params.values()
    for struct in (route.query, route.headers):
        if struct is not None:
            yield from (field.type for field in msgspec.structs.fields(struct))


def _operation(route: Route, schema_of: dict[Any, Any]) -> dict[str, Any]:
    operation: dict[str, Any] = {
        "operationId": f"{route.tag}_{route.handler.__name__}",
        "tags": [route.tag],
        "summary": route.summary,
        "parameters": list(_parameters(route, schema_of)),
        "responses": {str(status): answer for status, answer in _answers(route, schema_of)},
        "security": [{}] if route.public else [{"token": []}, {}],
    }
    if route.description:
        operation["description"] = route.description
    if route.body is not None:
        operation["requestBody"] = {"required": True, "content": {JSON: {"schema": schema_of[route.body]}}}
    return operation


def _answers(route: Route, schema_of: dict[Any, Any]) -> Iterator[tuple[int, dict[str, Any]]]:
    good = (route.status, *route.also)
    for status in good:
        answer: dict[str, Any] = {"description": _REASONS[status]}
        if status != 204:
            answer["content"] = {route.media: {"schema": schema_of[route.answer]} if _described(route) else {}}
        yield status, answer
    bad = {*route.errors, *(() if route.public else _ALWAYS), *(_WITH_BODY if route.body is not None else ())}
    if route.params or route.query is not None or route.headers is not None:
        bad.add(422)
    for status in sorted(bad - set(good)):
        yield status, {"$ref": f"#/components/responses/{_name(status, route.enveloped)}"}


def _refusals() -> dict[str, Any]:
    """The error answers, shared by all operations."""
    error = {"$ref": REFS.format(name=ErrorAnswer.__name__)}
    return {
        _name(status, enveloped): {
            "description": reason,
            "content": {JSON: {"schema": _ENVELOPE if enveloped else error}},
        }
        for status, reason in _REASONS.items()
        if status >= 400
        for enveloped in (False, True)
    }


def _name(status: int, enveloped: bool) -> str:
    return f"{'Envelope' if enveloped else 'Error'}{status}"


def _described(route: Route) -> bool:
    """Whether the answer is JSON of a declared type."""
    return not route.raw and route.media == JSON and route.status != 204


def _parameters(route: Route, schema_of: dict[Any, Any]) -> Iterator[dict[str, Any]]:
    for name, kind in route.params.items():
        yield {"name": name, "in": "path", "required": True, "schema": schema_of[kind]}
    for place, struct in (("query", route.query), ("header", route.headers)):
        for field in () if struct is None else msgspec.structs.fields(struct):
            parameter = {
                "name": field.encode_name,
                "in": place,
                "required": field.required,
                "schema": _given(schema_of[field.type]),
            }
            if lists(field.type):
                parameter |= {"style": "form", "explode": False}
            yield parameter


def _given(schema: dict[str, Any]) -> dict[str, Any]:
    """The schema of a parameter that is there: one that is null is left out."""
    choices = [choice for choice in schema.get("anyOf", ()) if choice != {"type": "null"}]
    return choices[0] if len(choices) == 1 else schema
