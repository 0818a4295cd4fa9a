"""Definitions: save, check, read, delete; and the palette of blocks that they are made of."""

from __future__ import annotations

from typing import Any

import msgspec

from flatwater.errors import DefinitionError
from flatwater.server.route import Table
from flatwater.server.service import Service
from flatwater.server.type.base import Id, Page, Paging, page_of
from flatwater.server.type.definition import Definition, DefinitionDetail, FlowInfo, Palette, Verdict
from flatwater.store import definition as definitions

table = Table("definitions")


@table.add("GET", "/api/definitions")
async def list_definitions(service: Service, query: Paging) -> Page[Definition]:
    """The definitions, by id."""
    found = await service.store.read(definitions.page, query.cursor or "", query.limit + 1)
    return page_of(found, query.limit, _info, lambda item: item.id)


@table.add("POST", "/api/definitions", status=201)
async def save_definition(service: Service, body: dict[str, Any]) -> Definition:
    """Check and store a definition; a new content makes a new version.

    The id is its `id`, `defId` or `label`. With problems (422, all of them listed) nothing is stored.
    """
    return _info(await service.engine.save(body))


@table.add("PUT", "/api/definitions", status=201)
async def put_definition(service: Service, body: dict[str, Any]) -> Definition:
    """The same as POST."""
    return _info(await service.engine.save(body))


@table.add("POST", "/api/definitions/validate")
async def validate_definition(service: Service, body: dict[str, Any]) -> Verdict:
    """Check a definition without storing it."""
    try:
        flow, _ = await service.engine.library.check(body)
    except DefinitionError as error:
        return Verdict(False, list(error.problems))
    inputs = [msgspec.to_builtins(param) for param in flow.inputs]
    return Verdict(True, [], FlowInfo(len(flow.nodes), flow.depth, inputs, list(flow.warnings)))


@table.add("GET", "/api/definitions/blocks")
async def list_blocks(service: Service) -> Palette:
    """The kinds of blocks, with JSON schemas of their parameters and outputs."""
    registry = service.engine.registry
    return Palette(registry.palette(), registry.function_palette(), registry.trigger_palette())


@table.add("GET", "/api/definitions/{definition_id}", errors=(404,))
async def get_definition(service: Service, definition_id: Id) -> DefinitionDetail:
    """The latest version of a definition, with its content."""
    found = await service.store.read(definitions.get, definition_id)
    body = await service.store.read(definitions.body, found.hash)
    return DefinitionDetail(**msgspec.structs.asdict(_info(found)), definition=msgspec.Raw(body.encode()))


@table.add("DELETE", "/api/definitions/{definition_id}", status=204, errors=(404, 409))
async def delete_definition(service: Service, definition_id: Id) -> None:
    """Delete a definition that no run uses any more."""
    await service.store.writer.call(definitions.delete, definition_id)
    service.engine.library.forget(definition_id)


def _info(found: definitions.Definition) -> Definition:
    return Definition(
        id=found.id,
        label=found.label,
        version=found.version,
        hash=found.hash,
        remark=found.remark,
        enabled=bool(found.enabled),
        created_at=found.created_at,
        updated_at=found.updated_at,
    )
