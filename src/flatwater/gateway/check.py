"""Active checks: a request to each endpoint every now and then."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Sequence
from typing import Generic, Protocol, TypeVar

from flatwater.bounded import TaskGroup
from flatwater.gateway.client import Client
from flatwater.gateway.error import GatewayError
from flatwater.gateway.health import Check
from flatwater.gateway.message import RequestHead


class Checked(Protocol):
    @property
    def url(self) -> str: ...
    @property
    def authority(self) -> bytes: ...
    @property
    def client(self) -> Client: ...


E = TypeVar("E", bound=Checked)


class Checker(Generic[E]):
    """One background task for the endpoints of a service; ``report`` gets each result, an empty text for success."""

    def __init__(
        self, name: str, check: Check, endpoints: Sequence[E], tasks: TaskGroup, report: Callable[[E, str], None]
    ) -> None:
        self._name = name
        self._check = check
        self._endpoints = endpoints
        self._tasks = tasks
        self._report = report
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        self._task = self._tasks.start(self._run(), name=f"checks of {self._name}")

    def stop(self) -> None:
        if self._task is not None:
            self._task.cancel()
            self._task = None

    async def _run(self) -> None:
        while True:
            for (
                endpoint
            ) in self._endpoints:  # in turn: a service's endpoints are few, and each answer is awaited shortly
                self._report(endpoint, await self._ask(endpoint))
            await asyncio.sleep(self._check.every_s * random.uniform(0.9, 1.1))  # noqa: S311

    async def _ask(self, endpoint: E) -> str:
        check = self._check
        head = RequestHead(
            b"GET", check.path.encode(), [(b"host", endpoint.authority), (b"user-agent", b"flatwater-check")]
        )
        try:
            async with asyncio.timeout(check.timeout_s):
                exchange = await endpoint.client.begin(head, fresh=True)
                try:
                    status = (await exchange.head()).status
                    while await exchange.read():
                        pass
                finally:
                    exchange.release()
        except TimeoutError:
            return f"no answer within {check.timeout_s:g} s"
        except GatewayError as error:
            return str(error)
        return "" if check.min_status <= status <= check.max_status else f"status {status}"
