"""The gateway inside the server, for operators."""

from __future__ import annotations

from typing import Any

import msgspec

from flatwater.gateway.admin import view
from flatwater.server.problem import RequestError
from flatwater.server.route import Table
from flatwater.server.service import Service
from flatwater.server.type.base import Limit

table = Table("gateway")


class Records(msgspec.Struct, frozen=True):
    """How many of the newest requests are listed."""

    limit: Limit = 100


@table.add("GET", "/api/gateway", errors=(404,))
async def gateway(service: Service, query: Records) -> dict[str, Any]:
    """Services with their endpoints, cache, overload, managed work, and the newest requests.

    The same document as `flatwater gateway` gives on its admin listener; 404 when this server has no gateway.
    """
    if service.gateway is None:
        hint = "set gateway.config to a file of services"
        raise RequestError(404, "not_found", "this server has no gateway", hint=hint)
    found: dict[str, Any] = msgspec.to_builtins(view(service.gateway, limit=query.limit), enc_hook=repr)
    return found
