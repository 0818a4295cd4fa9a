"""Sites and robots."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from msgspec import UNSET, Meta, Raw, Struct, UnsetType

from flatwater.server.type.base import MAX_ITEMS, Id, Int32, Limit, Number, Paging, Text


class LockOwner(Struct, frozen=True):
    run: str
    path: str | None


class Site(Struct, frozen=True, kw_only=True):
    id: str
    group: str | None
    order_no: int
    enabled: bool
    filled: bool
    content: str | None
    locked_by: LockOwner | None
    locked_text: str | None
    lane: str | None
    depth: int | None
    mouths: int | None
    tags: tuple[str, ...]
    attrs: Raw
    map_id: str | None
    x: float | None
    y: float | None
    updated_at: float


class SiteQuery(Paging, frozen=True, kw_only=True):
    limit: Limit = MAX_ITEMS
    group: Text | None = None


class SiteList(Struct, frozen=True):
    """Sites in order; ``groups`` are the groups of these sites."""

    items: list[Site]
    groups: list[str]
    next: str | None = None


Tags = Annotated[tuple[Text, ...], Meta(max_length=100)]
Attrs = Annotated[dict[Text, Any], Meta(max_length=100)]


class SiteInput(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A site to create, or to change in the fields that are given."""

    id: Id
    group: Text | UnsetType | None = UNSET
    order_no: Int32 | UnsetType = UNSET
    enabled: bool | UnsetType = UNSET
    filled: bool | UnsetType = UNSET
    content: Text | UnsetType | None = UNSET
    lane: Text | UnsetType | None = UNSET
    depth: Annotated[int, Meta(ge=0, le=10_000)] | UnsetType | None = UNSET
    mouths: Literal[1, 2] | UnsetType | None = UNSET
    tags: Tags | UnsetType = UNSET
    attrs: Attrs | UnsetType = UNSET
    map_id: Text | UnsetType | None = UNSET
    x: Number | UnsetType | None = UNSET
    y: Number | UnsetType | None = UNSET


class Imported(Struct, frozen=True):
    saved: int


class SiteChange(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Only what is given changes. ``locked: false`` takes the lock away from whoever has it."""

    filled: bool | UnsetType = UNSET
    content: Text | UnsetType | None = UNSET
    enabled: bool | UnsetType = UNSET
    locked: Literal[False] | UnsetType = UNSET
    tags: Tags | UnsetType = UNSET
    attrs: Attrs | UnsetType = UNSET


class SiteChangeQuery(Paging, frozen=True, kw_only=True):
    site: Id | None = None


class SiteChanged(Struct, frozen=True):
    """What a block (``run_id``, ``path``) or a person (neither) changed."""

    id: int
    at: float
    site_id: str
    run_id: str | None
    path: str | None
    change: Raw


class Robot(Struct, frozen=True, kw_only=True):
    """A robot now: ``run`` and ``path`` name the block that holds it; ``waypoints`` are ``[at, x, y]`` of its way."""

    id: str
    state: str
    available: bool
    battery: float | None
    station: str | None
    last_station: str | None
    x: float | None
    y: float | None
    tags: tuple[str, ...]
    groups: tuple[str, ...]
    run: str | None
    path: str | None
    order_id: str | None
    operation: str | None
    target: str | None
    carrying: str | None
    waypoints: tuple[tuple[float, float, float], ...]
    error: str | None


class RobotList(Struct, frozen=True):
    items: list[Robot]
