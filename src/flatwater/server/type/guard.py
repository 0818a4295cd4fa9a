"""The guards of this machine."""

from __future__ import annotations

from msgspec import Struct

from flatwater.guard.view import Guarded
from flatwater.server.type.base import Id


class Guards(Struct, frozen=True):
    items: list[Guarded]


class Release(Struct, frozen=True):
    """The name of a quarantined task."""

    task: Id


class Released(Struct, frozen=True):
    task: str
