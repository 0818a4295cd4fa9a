"""Blocks with the signatures that the sample definitions use; they do nothing."""

from __future__ import annotations

from typing import Any

import msgspec

from flatwater.engine.block import Registry, block
from flatwater.engine.catalogue import FLOW_KINDS


class SiteId(msgspec.Struct, rename="camel"):
    site_id: str


class Found(msgspec.Struct):
    site: dict[str, Any] | None


@block("GetIdleSiteBp", family="site", camel=True, recovery="rerun")
async def get_idle_site(
    group_name: str = "",
    site_id: str = "",
    filled: bool | None = None,
    content: str | None = None,
    lock: bool = False,
    retry_period: int = 1000,
    retry_num: int | None = None,
) -> SiteId:
    return SiteId("A")


@block("QueryIdleSiteBp", family="site", camel=True)
async def query_idle_site(group_name: str = "", filled: bool | None = None) -> Found:
    return Found(None)


@block("CSelectAgvBp", family="robot", camel=True, branches=("default",), outputs=dict[str, str], recovery="reattach")
async def select_agv(priority: int = 0, vehicle: str = "", tag: str = "", group: str = "", key_route: str = "") -> None:
    return None


@block("CAgvOperationBp", family="robot", camel=True, recovery="operator")
async def operate(target_site_label: str, script_name: str = "", goods_id: str = "", **extra: Any) -> dict[str, str]:
    return {}


def _open(*names: str) -> list[Any]:
    """Blocks that take whatever they are given."""

    def declare(name: str) -> Any:
        async def anything(**extra: Any) -> dict[str, Any]:
            return extra

        return block(name, family="other")(anything)

    return [declare(name) for name in names]


OTHERS = _open(
    "TaskStateBp",
    "SetSiteEmptyBp",
    "SetSiteFilledBp",
    "SetSiteLockedBp",
    "SetSiteUnlockedBp",
    "SetTaskVariableBp",
    "PostBp",
    "HttpGetBp",
    "StringToJsonObjectBp",
    "PrintBp",
    "CreateUuidBp",
    "CacheDataBp",
)


def sample_registry() -> Registry:
    return Registry([*FLOW_KINDS, get_idle_site, query_idle_site, select_agv, operate, *OTHERS])
