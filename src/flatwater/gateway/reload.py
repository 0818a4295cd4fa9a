"""A gateway goes over to what its file says now."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

import msgspec

from flatwater.errors import FlatwaterError
from flatwater.gateway.config import Config
from flatwater.gateway.document import load
from flatwater.gateway.gateway import Gateway

log = logging.getLogger(__name__)


class Reloaded(msgspec.Struct, frozen=True, kw_only=True):
    """``problem``: why the configuration was refused, empty when it is in force. ``restart``: sections whose changes
    take one."""

    problem: str = ""
    restart: list[str] = []


def reload(gateway: Gateway, path: Path, adapted: Callable[[Config], Config] = lambda config: config) -> Reloaded:
    """Load the file again, ``adapted`` to where the gateway runs; one that is refused changes nothing, and the log says
    why."""
    try:
        restart = gateway.reload(adapted(load(path)))
    except FlatwaterError as error:
        log.error("the configuration is refused, the one in force stays: %s", error)
        return Reloaded(problem=str(error))
    log.info("configuration loaded from %s", path)
    if restart:
        log.warning("changes of %s take a restart", ", ".join(f"[{section}]" for section in restart))
    return Reloaded(restart=restart)
