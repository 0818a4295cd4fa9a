"""The Modbus devices that blocks may use: configured by name, each behind few connections, one unless said otherwise.

Many devices take a single connection and answer one request after the other. So requests to a device queue here for
its connection; one that goes wrong in the middle closes it, since a late answer must not be taken for the next one's.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from time import monotonic
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Self, TypeVar
from urllib.parse import urlsplit

from msgspec import Struct

from flatwater.bounded.ledger import Ledger, Usage, check_bound
from flatwater.engine.modbus_value import BITS, MAX_READ, MAX_WRITE, Place, Value, check, decoded, encoded
from flatwater.errors import ClosedError, InputError, RunError, SettingError

if TYPE_CHECKING:
    from pymodbus.client import AsyncModbusTcpClient
    from pymodbus.pdu import ModbusPDU

    Send = Callable[[AsyncModbusTcpClient], Awaitable[ModbusPDU]]

T = TypeVar("T")
EXCEPTIONS: Final = {
    1: "illegal function",
    2: "illegal data address",
    3: "illegal data value",
    4: "server device failure",
    5: "acknowledge",
    6: "server device busy",
    7: "negative acknowledge",
    8: "memory parity error",
    10: "gateway path unavailable",
    11: "gateway target device failed to respond",
}
"""The exceptions of the specification, by code."""
_LASTING: Final = {
    1: "the device has no such function for this table",
    2: "the device has no such address; addresses count from 0: what manuals call 40001 is 0 of table holding",
    3: "the device takes no such value, or not so many at once",
}
"""What asking again does not change, and what to do about it."""
_READ: Final = {
    "coil": "read_coils",
    "discrete": "read_discrete_inputs",
    "holding": "read_holding_registers",
    "input": "read_input_registers",
}
MAX_NAME_CHARS: Final = 64
DEFAULT_PORT: Final = 502
INSTALL: Final = "pip install 'flatwater[modbus]'"


class ModbusError(RunError, code="modbus"):
    """The Modbus device did not do what was asked.

    ``exception`` is the code that the device answered, 0 when it did not answer. ``transient`` tells that the same
    request may succeed later.
    """

    def __init__(self, detail: str, *, where: str, hint: str = "", exception: int = 0) -> None:
        super().__init__(detail, where=where, hint=hint)
        self.exception = exception

    @property
    def transient(self) -> bool:
        return self.exception not in _LASTING


class Address(Struct, frozen=True):
    """Where a device answers; ``framer`` is how its messages are packed, in the words of pymodbus."""

    host: str
    port: int
    framer: str

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def address(name: str, url: str) -> Address:
    """Read ``tcp://host:port``, or ``rtu+tcp://…`` for serial lines behind a plain converter. Raises `SettingError`."""
    where, hint = f"[modbus] {name}", "write tcp://host:502, or rtu+tcp://host:port"
    if not 0 < len(name) <= MAX_NAME_CHARS:
        raise SettingError(f"a name has 1 to {MAX_NAME_CHARS} characters", where=where)
    try:
        parts = urlsplit(url)
        port = parts.port or DEFAULT_PORT
    except ValueError as error:
        raise SettingError(f"{url!r} is no address: {error}", where=where, hint=hint) from None
    framer = {"tcp": "socket", "rtu+tcp": "rtu"}.get(parts.scheme)
    if framer is None or not parts.hostname or parts.path.strip("/") or parts.query or parts.username:
        raise SettingError(f"{url!r} is no address of a Modbus device", where=where, hint=hint)
    return Address(parts.hostname, port, framer)


class ModbusStatistics(Usage, frozen=True, kw_only=True):
    """``size`` connections are open, of ``bound`` allowed; the rest counts since the start."""

    requests: int
    failed: int


class Modbus:
    """Devices by name. Used as ``async with``; a connection is opened with its first request."""

    kind = "modbus connections"

    def __init__(
        self,
        urls: Mapping[str, str],
        *,
        max_connections: int = 1,
        idle_s: float = 15.0,
        ledger: Ledger | None = None,
        name: str = "modbus devices of blocks",
    ) -> None:
        check_bound("max_connections", max_connections, where=name)
        self.name = name
        self._max_connections = max_connections
        self._devices = {
            device: Device(device, address(device, url), max_connections, idle_s) for device, url in urls.items()
        }
        self._open = False
        self._requests = self._failed = 0
        if ledger is not None:
            ledger.register(self)

    async def __aenter__(self) -> Self:
        if self._devices and find_spec("pymodbus") is None:
            raise SettingError("Modbus needs the package pymodbus", where="[modbus]", hint=INSTALL)
        self._open = True
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._open = False
        for device in self._devices.values():
            device.close()

    def statistics(self) -> ModbusStatistics:
        return ModbusStatistics(
            size=sum(device.size for device in self._devices.values()),
            bound=len(self._devices) * self._max_connections,
            requests=self._requests,
            failed=self._failed,
        )

    @property
    def devices(self) -> list[str]:
        return sorted(self._devices)

    def choose(self, name: str | None) -> str:
        """The device that ``name`` means; without a name the only one. Raises `InputError` with the known ones."""
        if name is None and len(self._devices) == 1:
            return next(iter(self._devices))
        if name is not None and name in self._devices:
            return name
        known = ", ".join(self.devices)
        what = f"there is no Modbus device {name!r}" if name else "which Modbus device is not said"
        hint = f"configured: {known}" if known else "none is configured: add it under [modbus]"
        raise InputError(what, where="device", hint=hint)

    async def read(self, place: Place, timeout_s: float) -> list[Value]:
        """The values of ``place``. Raises `ModbusError`, `InputError`."""
        check(place, MAX_READ)

        async def send(client: AsyncModbusTcpClient) -> ModbusPDU:
            reply: ModbusPDU = await getattr(client, _READ[place.table])(
                place.address, count=place.width, device_id=place.unit
            )
            return reply

        reply = await self._ask(place, send, timeout_s, again=True)
        raw: Sequence[Any] = reply.bits if place.table in BITS else reply.registers
        if len(raw) < place.width:
            raise ModbusError(f"{len(raw)} values came instead of {place.width}", where=str(place))
        return decoded(place, raw)

    async def write(self, place: Place, values: list[Any], timeout_s: float) -> None:
        """Write, with the function for one (5, 6) or for several (15, 16). Raises `ModbusError`, `InputError`."""
        check(place, MAX_WRITE)
        raw: list[Any] = encoded(place, values)
        one = len(raw) == 1

        async def send(client: AsyncModbusTcpClient) -> ModbusPDU:
            if place.table == "coil":
                if one:
                    return await client.write_coil(place.address, raw[0], device_id=place.unit)
                return await client.write_coils(place.address, raw, device_id=place.unit)
            if one:
                return await client.write_register(place.address, raw[0], device_id=place.unit)
            return await client.write_registers(place.address, raw, device_id=place.unit)

        await self._ask(place, send, timeout_s, again=False)

    async def _ask(self, place: Place, send: Send, timeout_s: float, *, again: bool) -> ModbusPDU:
        if not self._open:
            raise ClosedError("the Modbus connections are not open", where=self.name)
        self._requests += 1
        try:
            reply = await self._devices[place.device].ask(send, timeout_s, again=again)
            if reply.isError():
                raise _refusal(place, getattr(reply, "exception_code", 0))
        except BaseException:
            self._failed += 1
            raise
        return reply


def _refusal(place: Place, code: int) -> ModbusError:
    told = f"it answered exception {code}, {EXCEPTIONS.get(code, 'which the specification does not name')}"
    return ModbusError(told, where=str(place), hint=_LASTING.get(code, ""), exception=code)


class Device:
    """One device. Those who ask queue for a connection; what one of them learns of a dead device all of them learn."""

    def __init__(self, name: str, address: Address, max_connections: int, idle_s: float) -> None:
        self._name = name
        self._address = address
        self._idle_s = idle_s
        self._turn = asyncio.Semaphore(max_connections)
        self._idle: list[Line] = []
        self._busy = 0
        self._failure = ""
        self._failed_at = float("-inf")

    @property
    def size(self) -> int:
        return len(self._idle) + self._busy

    @property
    def _where(self) -> str:
        return f"{self._name}, {self._address}"

    def close(self) -> None:
        """Close the connections that nobody uses."""
        for line in self._idle:
            line.close()
        self._idle.clear()

    async def ask(self, send: Send, timeout_s: float, *, again: bool) -> ModbusPDU:
        """The answer to one request. ``timeout_s`` covers the queue, the connection and the answer.

        ``again``: the request may be sent once more when a connection that had been used before turns out to be gone.
        Raises `ModbusError`.
        """
        arrived = monotonic()
        doing = "others keep it busy"
        line: Line | None = None
        try:
            async with asyncio.timeout(timeout_s), self._turn:
                if self._failed_at >= arrived:
                    raise self._error(self._failure)
                with self._taken() as line:
                    doing = "no connection"
                    if not line.connected:
                        await self._connect(line)
                    doing = "no answer"
                    return await self._exchange(line, send, again=again)
        except TimeoutError:
            told = f"{doing} within {timeout_s:g} s"
            if doing == "no connection":
                self._learn(told)
            raise self._error(told) from None

    @contextmanager
    def _taken(self) -> Iterator[Line]:
        """A connection for one request: closed when anything goes wrong, else kept for the next."""
        line = self._idle.pop() if self._idle else Line(self._address)
        line.wake()
        self._busy += 1
        try:
            yield line
        except BaseException:
            line.close()
            raise
        finally:
            self._busy -= 1
        self._idle.append(line)
        line.rest(self._idle_s, self._forget)

    def _forget(self, line: Line) -> None:
        self._idle.remove(line)
        line.close()

    async def _exchange(self, line: Line, send: Send, *, again: bool) -> ModbusPDU:
        again = again and line.used
        try:
            return await line.ask(send)
        except LineLost as lost:
            if not again:
                raise self._error(str(lost)) from None
        line.close()
        await self._connect(line)
        try:
            return await line.ask(send)
        except LineLost as lost:
            raise self._error(str(lost)) from None

    async def _connect(self, line: Line) -> None:
        if not await line.connect():
            told = "no connection: refused, not reachable, or its name is unknown"
            self._learn(told)
            raise self._error(told)

    def _learn(self, failure: str) -> None:
        self._failure, self._failed_at = failure, monotonic()

    def _error(self, told: str) -> ModbusError:
        return ModbusError(told, where=self._where)


async def _heeding(work: Awaitable[T]) -> T:
    """Await, and heed a cancellation that came together with the result: ``wait_for`` of Python 3.11 swallows it, and
    pymodbus waits with that."""
    task = asyncio.current_task()
    before = task.cancelling() if task is not None else 0
    result = await work
    if task is not None and task.cancelling() > before:
        raise asyncio.CancelledError
    return result


class LineLost(Exception):
    """The connection ended, or what came is no answer."""


class Line:
    """One connection, for one request at a time. Its time limit is the caller's."""

    def __init__(self, address: Address) -> None:
        self._address = address
        self._client: AsyncModbusTcpClient | None = None
        self._request: asyncio.Timeout | None = None
        self._rest: asyncio.TimerHandle | None = None
        self.used = False

    @property
    def connected(self) -> bool:
        return self._client is not None and self._client.connected

    async def connect(self) -> bool:
        """False when there is no way to the device."""
        from pymodbus import FramerType
        from pymodbus.client import AsyncModbusTcpClient

        quiet = logging.getLogger("pymodbus.logging")
        if quiet.level == logging.NOTSET:
            quiet.setLevel(logging.CRITICAL)  # what it would say of each attempt, our errors say once
        self.used = False
        self._client = AsyncModbusTcpClient(
            self._address.host,
            port=self._address.port,
            framer=FramerType(self._address.framer),
            timeout=86_400,  # the caller has a time limit for all of it
            retries=0,
            reconnect_delay=0,
            trace_connect=self._changed,
        )
        return await _heeding(self._client.connect())

    async def ask(self, send: Send) -> ModbusPDU:
        """Raises `LineLost`."""
        from pymodbus.exceptions import ModbusException

        assert self._client is not None, "it was connected"
        try:
            async with asyncio.timeout(None) as self._request:
                reply = await _heeding(send(self._client))
        except TimeoutError:
            raise LineLost("the connection was closed before the answer") from None
        except ModbusException as error:
            raise LineLost(f"no valid answer: {error}") from None
        finally:
            self._request = None
        self.used = True
        return reply

    def _changed(self, connected: bool) -> None:
        """pymodbus would wait for the answer to the end of its time, on a connection that is gone."""
        if not connected and self._request is not None:
            self._request.reschedule(0)

    def rest(self, idle_s: float, forget: Callable[[Line], None]) -> None:
        """Nobody needs it now; after ``idle_s`` it goes, for the device may have room for one only."""
        self._rest = asyncio.get_running_loop().call_later(idle_s, forget, self)

    def wake(self) -> None:
        if self._rest is not None:
            self._rest.cancel()
            self._rest = None

    def close(self) -> None:
        self.wake()
        client, self._client = self._client, None
        if client is not None:
            client.close()
