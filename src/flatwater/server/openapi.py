"""``/openapi.json``, generated from the route table: the same types that decode requests and encode answers."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
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
_ALWAYS = (401, 403, 503, 504)
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
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
        },
        "tags": [{"name": tag} for tag in dict.fromkeys(route.tag for route in routes)],
    }


_DESCRIPTION = (
    "Durable block flows. Times are seconds since the epoch (UTC). Lists are pages: pass `next` as `cursor`. "
    "Unknown query parameters and fields are refused. A token is needed unless the server listens on loopback."
)


def _types(route: Route) -> Iterable[Any]:
    if not route.raw and route.media == JSON and route.status != 204:
        yield route.answer
    if route.body is not None:
        yield route.body
    yield from route.params.values()
    for struct in (route.query, route.headers):
        if struct is not None:
            yield from (field.type for field in msgspec.structs.fields(struct))


def _operation(route: Route, schema_of: dict[Any, Any]) -> dict[str, Any]:
    statuses = {route.status: True, **dict.fromkeys(route.also, True)}
    errors = {*route.errors, *(() if route.public else _ALWAYS), *(_WITH_BODY if route.body is not None else ())}
    if route.params or route.query is not None or route.headers is not None:
        errors.add(422)
    plain = route.raw or route.media != JSON or route.status == 204
    good = {} if plain else {"schema": schema_of[route.answer]}
    bad = {"content": {JSON: {"schema": _ENVELOPE if route.enveloped else schema_of[ErrorAnswer]}}}
    empty = route.status == 204
    operation: dict[str, Any] = {
        "operationId": f"{route.tag}_{route.handler.__name__}".replace(" ", "_"),
        "tags": [route.tag],
        "summary": route.summary,
        "parameters": list(_parameters(route, schema_of)),
        "responses": {
            **{
                str(status): {"description": _REASONS[status], **({} if empty else {"content": {route.media: good}})}
                for status in statuses
            },
            **{str(status): {"description": _REASONS[status], **bad} for status in sorted(errors - set(statuses))},
        },
        "security": [{}] if route.public else [{"token": []}, {}],
    }
    if route.description:
        operation["description"] = route.description
    if route.body is not None:
        operation["requestBody"] = {"required": True, "content": {JSON: {"schema": schema_of[route.body]}}}
    return operation


def _parameters(route: Route, schema_of: dict[Any, Any]) -> Iterable[dict[str, Any]]:
    for name, kind in route.params.items():
        yield {"name": name, "in": "path", "required": True, "schema": schema_of[kind]}
    for place, struct in (("query", route.query), ("header", route.headers)):
        if struct is None:
            continue
        for field in msgspec.structs.fields(struct):
            parameter = {
                "name": field.encode_name,
                "in": place,
                "required": field.required,
                "schema": schema_of[field.type],
            }
            if lists(field.type):
                parameter |= {"style": "form", "explode": False}
            yield parameter
