"""The handlers, by noun. Each module has one table of routes; ``routes`` lists them all."""

from __future__ import annotations

from flatwater.server import compat
from flatwater.server.api import definition, gateway, guard, memory, robot, run, site, system, trigger
from flatwater.server.route import Route

_TABLES = (
    system.table,
    definition.table,
    run.table,
    site.table,
    robot.table,
    trigger.table,
    memory.table,
    gateway.table,
    guard.table,
)


def routes(*, compatibility: bool = True) -> list[Route]:
    """Every route of the server, in the order in which paths are matched."""
    tables = (*_TABLES, compat.table) if compatibility else _TABLES
    return [route for table in tables for route in table.routes]
