"""Blocks of the servers in `tests/live/test_two_servers.py`: each tells which process executes it."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import Any

from flatwater.engine.block import block
from tests.live.inferiors.outside import Log, lines

LOG = Log(Path(os.environ["SHOP_FOLDER"]) / "did")


@block("ShopWork", family="shop")
async def shop_work(seconds: float = 0.0, *, call: Any) -> None:
    """Tells that it begins, then takes its time; not again when a process that died has begun it."""
    again = any(words[1:] == [call.run_id, call.path] for words in lines(LOG.path))
    LOG.add(os.getpid(), call.run_id, call.path)
    if not again:
        await asyncio.sleep(seconds)
