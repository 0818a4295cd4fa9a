"""Sites as the store hands them out and takes them in."""

from __future__ import annotations

from typing import Literal

import msgspec
from msgspec import UNSET, UnsetType


class Site(msgspec.Struct, frozen=True):
    """A place for one load. `depth` counts from the lane's mouth 1, beginning with 1; with 2 `mouths` loads leave at
    the other end. `locked_mouth` is the mouth that the owner of a lock made by lane rules is using."""

    id: str
    group_name: str | None
    order_no: int
    sort_key: str
    enabled: bool
    filled: bool
    content: str | None
    locked_run: str | None
    locked_path: str | None
    locked_text: str | None
    locked_at: float | None
    locked_mouth: int | None
    lane: str | None
    depth: int | None
    mouths: int | None
    tags: tuple[str, ...]
    attrs: str | None
    map_id: str | None
    x: float | None
    y: float | None
    updated_at: float

    @property
    def order(self) -> tuple[int, str]:
        """Explicit order number first, then natural order of ids (A_2 before A_10)."""
        return self.order_no, self.sort_key


class SiteSpec(msgspec.Struct, frozen=True, kw_only=True):
    """A site to be inserted, or to be changed in all fields that are set. `attrs` is JSON text."""

    id: str
    group_name: str | UnsetType | None = UNSET
    order_no: int | UnsetType = UNSET
    enabled: bool | UnsetType = UNSET
    filled: bool | UnsetType = UNSET
    content: str | UnsetType | None = UNSET
    lane: str | UnsetType | None = UNSET
    depth: int | UnsetType | None = UNSET
    mouths: int | UnsetType | None = UNSET
    tags: tuple[str, ...] | UnsetType = UNSET
    attrs: str | UnsetType | None = UNSET
    map_id: str | UnsetType | None = UNSET
    x: float | UnsetType | None = UNSET
    y: float | UnsetType | None = UNSET


class Change(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What to set; fields left out stay. `attrs` is JSON text."""

    filled: bool | UnsetType = UNSET
    content: str | UnsetType | None = UNSET
    enabled: bool | UnsetType = UNSET
    tags: tuple[str, ...] | UnsetType = UNSET
    attrs: str | UnsetType | None = UNSET


class Want(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Which site will do. None and () mean any.

    dense: True = by the rules of lanes; False = outside lanes; None = any, a cell of a lane like another site.
    locked: False = idle ones only. None and True (also locked ones, only locked ones) can merely look, never lock.
    tags: the site has all of them. text: what the lock shall show (`lockedId`).
    """

    site_id: str | None = None
    groups: tuple[str, ...] = ()
    filled: bool | None = None
    content: str | None = None
    dense: bool | None = None
    tags: tuple[str, ...] = ()
    map_id: str | None = None
    order: Literal["asc", "desc"] = "asc"
    lock: bool = True
    locked: bool | None = False
    text: str | None = None

    @property
    def claims(self) -> bool:
        return self.lock and self.locked is False


class SiteChange(msgspec.Struct, frozen=True):
    """`change` is a JSON object of the fields that were set."""

    id: int
    at: float
    site_id: str
    run_id: str | None
    path: str | None
    change: str
