"""A real Modbus server on loopback: in this loop, where tests see and change what it does, or as a process to kill."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from pymodbus import FramerType
from pymodbus.constants import ExcCodes
from pymodbus.server import ModbusTcpServer
from pymodbus.simulator import DataType, SimData, SimDevice

CODES = {"coil": 15, "discrete": 2, "holding": 16, "input": 4}
WRITES = (5, 6, 15, 16)
SIZE = 200
"""Registers, and bits, that it has of each kind."""


class Plc:
    """``seen`` are (function, address, count) of the requests; ``fault`` is answered to all of them."""

    def __init__(self) -> None:
        self.seen: list[tuple[int, int, int]] = []
        self.fault: ExcCodes | None = None
        self.answers = asyncio.Event()
        self.answers.set()
        self.at_once = self.most_at_once = 0
        self.connections = 0
        self._quiet = False
        self._server: ModbusTcpServer | None = None
        self.port = 0

    @property
    def url(self) -> str:
        return f"tcp://127.0.0.1:{self.port}"

    async def start(self, framer: FramerType = FramerType.SOCKET) -> None:
        bits = [SimData(0, values=[False] * SIZE, datatype=DataType.BITS)]
        registers = [SimData(0, count=SIZE, values=0, datatype=DataType.REGISTERS)]
        device = SimDevice(0, simdata=(bits, bits, registers, registers), action=self._act)
        self._server = ModbusTcpServer(
            device, framer=framer, address=("127.0.0.1", self.port), trace_connect=self._connected
        )
        await self._server.serve_forever(background=True)
        self.port = self._server.transport.sockets[0].getsockname()[1]  # type: ignore[attr-defined]

    async def stop(self) -> None:
        if self._server is not None:
            await self._server.shutdown()
            self._server = None

    async def set(self, table: str, address: int, *values: Any) -> None:
        self._quiet = True
        assert self._server is not None
        try:
            refused = await self._server.context.async_setValues(1, CODES[table], address, list(values))
        finally:
            self._quiet = False
        assert refused is None

    def _connected(self, connected: bool) -> None:
        self.connections += connected

    async def _act(self, function: int, _start: int, address: int, count: int, _now: Any, new: Any) -> ExcCodes | None:
        if self._quiet or (function in WRITES and new is None):  # the server reads what it wrote
            return None
        self.seen.append((function, address, count))
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        try:
            await self.answers.wait()
            await asyncio.sleep(0)
        finally:
            self.at_once -= 1
        return self.fault


PROGRAM = """
import asyncio, sys
from pymodbus.server import ModbusTcpServer
from pymodbus.simulator import DataType, SimData, SimDevice

async def main(port, value):
    device = SimDevice(0, simdata=[SimData(0, count=10, values=value, datatype=DataType.REGISTERS)])
    server = ModbusTcpServer(device, address=("127.0.0.1", port))
    await server.serve_forever(background=True)
    print(server.transport.sockets[0].getsockname()[1], flush=True)
    await server.serving

asyncio.run(main(int(sys.argv[1]), int(sys.argv[2])))
"""


@asynccontextmanager
async def process(port: int, value: int) -> AsyncIterator[tuple[asyncio.subprocess.Process, int]]:
    """A server of its own process, all of whose registers are ``value``; killed at the end, and its port."""
    command = [sys.executable, "-c", PROGRAM, str(port), str(value)]
    server = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
    try:
        assert server.stdout is not None
        yield server, int(await server.stdout.readline())
    finally:
        if server.returncode is None:
            server.kill()
        await server.wait()
