"""Endpoints that are worse than their peers, over sockets: those that fail now and then, those that are slow."""

from __future__ import annotations

import asyncio
import random
from itertools import count

import pytest
from tests.gateway.origin import OK, Gate, Handler, Origin, gate, origin

from flatwater.bounded import Ledger
from flatwater.gateway import Config, parse

FAILED = b"HTTP/1.1 500 No\r\ncontent-length: 0\r\n\r\n"


def given(*ports: int, more: str = "") -> Config:
    urls = ", ".join(f'"http://127.0.0.1:{port}"' for port in ports)
    rules = f"ejection = {{ window_s = 0.3, min_requests = 10, eject_s = 600, max_eject_s = 900{more} }}"
    return parse(f'[services.api]\nendpoints = [{urls}]\nbalance = "round_robin"\n{rules}\n')


def failing(share: float) -> Handler:
    """Fails this share of its requests at random, but never four in a row."""
    chance, row = random.Random(1), count()

    async def handle(origin: Origin, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal row
        while True:
            await origin.request(reader)
            fails = chance.random() < share and next(row) < 3
            if not fails:
                row = count()
            writer.write(FAILED if fails else OK)
            await writer.drain()

    return handle


async def every_second(origin: Origin, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while True:
        await origin.request(reader)
        writer.write(FAILED if len(origin.heads) % 2 else OK)
        await writer.drain()


def late(seconds: float) -> Handler:
    async def handle(origin: Origin, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            await origin.request(reader)
            await asyncio.sleep(seconds)
            writer.write(OK)
            await writer.drain()

    return handle


async def ask_until(front: Gate, state: str, place: int) -> None:
    async with asyncio.timeout(60):
        while states(front)[place] != state:
            await asyncio.gather(*(front.get() for _ in range(4)))


def states(front: Gate) -> list[str]:
    return [endpoint.state for endpoint in front.gateway.statistics().services[0].endpoints]


async def test_one_that_fails_now_and_then_is_put_out(ledger: Ledger) -> None:
    async with (
        origin(OK) as first,
        origin(failing(0.5)) as second,
        origin(OK) as third,
        gate(given(first.port, second.port, third.port), ledger) as front,
    ):
        await ask_until(front, "ejected", 1)
        assert states(front) == ["up", "ejected", "up"]
        assert front.gateway.statistics().services[0].endpoints[1].ejected_for == {"failure_ratio": 1}
        before = len(second.heads)
        assert {(await front.get()).status for _ in range(12)} == {200}
        assert len(second.heads) == before
        await front.at_rest()


@pytest.mark.parametrize("express", [True, False])
async def test_one_that_is_slow_is_put_out(express: bool, ledger: Ledger) -> None:
    more = ", slow_factor = 5, slow_s = 0.05"
    async with (
        origin(OK) as first,
        origin(late(0.15)) as second,
        gate(given(first.port, second.port, more=more), ledger, express=express) as front,
    ):
        await ask_until(front, "ejected", 1)
        assert states(front) == ["up", "ejected"]
        assert front.gateway.statistics().services[0].endpoints[1].ejected_for == {"latency": 1}
        await front.at_rest()


async def test_when_all_fail_all_stay(ledger: Ledger) -> None:
    now = 100.0
    async with (
        origin(every_second) as first,
        origin(every_second) as second,
        gate(given(first.port, second.port), ledger, clock=lambda: now) as front,
    ):
        statuses = [(await front.get()).status for _ in range(60)]
        assert statuses.count(500) == 30
        now += 1.0
        front.gateway.services()["api"].sweep(now)
        assert states(front) == ["up", "up"]
        await front.at_rest()


async def test_only_a_share_is_put_out_the_worst_first(ledger: Ledger) -> None:
    now = 100.0
    config = given(1, 2, 3, 4, more=", max_ejected_percent = 25.0")
    async with gate(config, ledger, clock=lambda: now) as front:
        service = front.gateway.services()["api"]
        for backend, failures in zip(service.backends, (0, 3, 4, 0), strict=True):
            for number in range(100):
                service.answered(backend, 500 if number % 10 < failures else 200)
        now += 1.0
        service.sweep(now)
        assert states(front) == ["up", "up", "ejected", "up"]
