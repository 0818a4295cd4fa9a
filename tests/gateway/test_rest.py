"""What is left when nothing is under way: not even garbage that waits for the collector."""

from __future__ import annotations

import asyncio
import contextlib
import gc
from collections import Counter

import pytest
from tests.gateway.origin import OK, config, gate, origin

from flatwater.bounded import Ledger

LINES = (
    b"GET /api/ HTTP/1.1\r\nhost: gate\r\n\r\n",
    b"HEAD /api/ HTTP/1.0\r\nhost: gate\r\n\r\n",
    b"POST /api/ HTTP/1.1\r\nhost: gate\r\ncontent-length: 2\r\n\r\nhi",
    b"PUT /api/ HTTP/1.1\r\nhost: gate\r\ntransfer-encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n",
    b"GET /nowhere/ HTTP/1.1\r\nhost: gate\r\n\r\n",
    b"GET / HTTP/1.1\r\nhost: two\r\nhost: hosts\r\n\r\n",
    b"nonsense\r\n\r\n",
    b"GET /api/ HTTP/1.1\r\nhost: gate\r\n" + b"a: b\r\n" * 1000 + b"\r\n",
    b"GET /" + b"a" * 20_000 + b" HTTP/1.1\r\nhost: gate\r\n\r\n",
)


@pytest.mark.parametrize("cache", [False, True])
@pytest.mark.parametrize("express", [True, False])
async def test_requests_and_connections_leave_no_cycles(ledger: Ledger, express: bool, cache: bool) -> None:
    """Connections may come and go faster than the collector runs: each would keep some kilobytes."""
    more = "cache = { default_fresh_s = 60.0 }" if cache else ""
    async with origin(OK) as upstream, gate(config(upstream.port, more), ledger, express=express) as front:
        gc.collect()
        gc.disable()
        try:
            for line in LINES * 3:
                await front.ask(line)
            for cut in (5, 30, 60):  # clients that leave half-way
                _, writer = await asyncio.open_connection("127.0.0.1", front.port)
                writer.write(LINES[2][:cut])
                await writer.drain()
                writer.close()
                with contextlib.suppress(ConnectionError):
                    await writer.wait_closed()
            await front.at_rest()
            await asyncio.sleep(0)
            gc.set_debug(gc.DEBUG_SAVEALL)
            gc.collect()
            found = Counter(type(item).__qualname__ for item in gc.garbage if "flatwater.gateway" in _home(item))
        finally:
            gc.set_debug(0)
            gc.garbage.clear()
            gc.enable()
    assert not found


def _home(item: object) -> str:
    return str(getattr(type(item), "__module__", ""))
