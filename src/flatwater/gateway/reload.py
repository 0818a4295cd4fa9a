"""A gateway goes over to what its file says now."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

from flatwater.errors import FlatwaterError
from flatwater.gateway.config import Config
from flatwater.gateway.document import load
from flatwater.gateway.gateway import Gateway

log = logging.getLogger(__name__)


def reload(gateway: Gateway, path: Path, adapted: Callable[[Config], Config] = lambda config: config) -> bool:
    """Load the file again, ``adapted`` to where the gateway runs; False when it is refused, and the log says why."""
    try:
        restart = gateway.reload(adapted(load(path)))
    except FlatwaterError as error:
        log.error("the configuration is refused, the one in force stays: %s", error)
        return False
    log.info("configuration loaded from %s", path)
    if restart:
        log.warning("changes of %s take a restart", ", ".join(f"[{section}]" for section in restart))
    return True
