"""The handlers, by noun. Each module has one table of routes; :func:`tables` lists them all."""

from __future__ import annotations

from flatwater.server.route import Route


def routes(*, compatibility: bool = True) -> list[Route]:
    """Every route of the server, in the order in which paths are matched."""
    from flatwater.server.api import definition, robot, run, site, system, trigger

    modules = [system, definition, run, site, robot, trigger]
    found = [route for module in modules for route in module.table.routes]
    if compatibility:
        from flatwater.server import compat

        found += compat.table.routes
    return found
