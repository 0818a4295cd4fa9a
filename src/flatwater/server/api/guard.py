"""The guards of this machine. Always behind the instruments' token."""

from __future__ import annotations

import asyncio

from flatwater.guard import view
from flatwater.server.route import Table
from flatwater.server.service import Service
from flatwater.server.type.guard import Guards, Release, Released

table = Table("guard")


@table.add("GET", "/api/guard")
async def guards(service: Service) -> Guards:
    """The guards that run on this machine as the server's user: workers, running tasks, and what their records say."""
    return Guards(await asyncio.to_thread(view.guarded))


@table.add("POST", "/api/guard/{pid}/release", errors=(404,))
async def release(service: Service, pid: int, body: Release) -> Released:
    """Let a quarantined task run again; the guard tells its workers within a second."""
    await asyncio.to_thread(view.release, pid, body.task)
    return Released(body.task)
