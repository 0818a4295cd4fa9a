"""SQLAlchemy's connection pools in this process: found without being told of, never touched. Standard library only."""

from __future__ import annotations

import gc
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Pool:
    """A pool: connections it keeps idle (``idle``), gave out (``checked_out``), and what bounds them.

    ``size`` connections stay open, ``overflow`` more are open now, of ``max_overflow`` that may be (-1: without bound).
    None for figures that a kind of pool does not have. ``database`` is the URL without user and password.
    """

    kind: str
    database: str
    size: int | None
    checked_out: int | None
    idle: int | None
    overflow: int | None
    max_overflow: int | None
    recycle_s: float | None
    timeout_s: float | None


def pools() -> tuple[Pool, ...]:
    """Every SQLAlchemy pool that lives here; empty when SQLAlchemy is not loaded.

    Walks what the collector tracks once: about as long as a full collection. Pools that are frozen
    (``gc.freeze``) are not found.
    """
    module = sys.modules.get("sqlalchemy.pool.base")
    if module is None:
        return ()
    kinds = list(_kinds(module.Pool))
    # Instances refer to their class, so asking who refers to the classes needs no list of all objects.
    found = {id(item): item for item in gc.get_referrers(*kinds) if type(item) in kinds}
    databases = _databases({id(item) for item in found.values()})
    return tuple(_pool(item, databases.get(key, "")) for key, item in found.items())


def _kinds(kind: type) -> Iterator[type]:
    yield kind
    children: list[type] = kind.__subclasses__()
    for child in children:
        yield from _kinds(child)


def _databases(wanted: set[int]) -> dict[int, str]:
    """URLs by pool: a pool does not know its database, its engine does."""
    module = sys.modules.get("sqlalchemy.engine.base")
    if module is None:
        return {}
    engines = [item for item in gc.get_referrers(module.Engine) if type(item) is module.Engine]
    return {id(engine.pool): _url(engine.url) for engine in engines if id(engine.pool) in wanted}


def _url(url: Any) -> str:
    place = f"{url.host or ''}{f':{url.port}' if url.port else ''}"
    return f"{url.get_backend_name()}://{place}/{url.database or ''}"


def _pool(item: Any, database: str) -> Pool:
    checked_out = _figure(item, "checkedout")
    overflow = _figure(item, "overflow")
    return Pool(
        kind=type(item).__name__,
        database=database,
        size=_figure(item, "size"),
        checked_out=checked_out,
        idle=_figure(item, "checkedin"),
        overflow=None if overflow is None else max(0, overflow),  # below zero until the pool has been full once
        max_overflow=getattr(item, "_max_overflow", None),
        recycle_s=_seconds(getattr(item, "_recycle", None)),
        timeout_s=_seconds(getattr(item, "_timeout", None)),
    )


def _figure(item: Any, name: str) -> int | None:
    method = getattr(item, name, None)
    found = method() if callable(method) else None
    return found if isinstance(found, int) else None


def _seconds(value: Any) -> float | None:
    return float(value) if isinstance(value, (int, float)) and value >= 0 else None
