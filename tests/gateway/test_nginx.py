"""The gateway beside nginx: the same bytes to both, in front of one origin, and the same comes of it at both ends.

What may differ is in the tables below, each with its reason; anything else is a mistake of ours, or news.
``NGINX_EXAMPLES=20000`` looks longer. Without nginx on the machine the test is skipped.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
from collections import Counter
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass

import pytest
from hypothesis import given, settings
from tests.figure import FIGURES
from tests.gateway.ask import CASES, Ask, Case
from tests.gateway.origin import Gate, Origin, body, config, gate, origin
from tests.service import Server, ServiceUnavailable

from flatwater.bounded import Ledger

EXAMPLES = int(os.environ.get("NGINX_EXAMPLES", "120"))
WAIT_S = 30.0

NGINX = """\
daemon off; master_process off; pid {folder}/pid; error_log {folder}/error.log crit;
events {{ worker_connections 256; }}
http {{
  access_log off; default_type ""; server_tokens off; underscores_in_headers on; ignore_invalid_headers off;
  client_body_temp_path {folder}/a; proxy_temp_path {folder}/b; fastcgi_temp_path {folder}/c;
  uwsgi_temp_path {folder}/d; scgi_temp_path {folder}/e;
  upstream origin {{ server 127.0.0.1:{origin}; keepalive 4; }}
  server {{
    listen 127.0.0.1:{port}; merge_slashes off; client_max_body_size 1g; large_client_header_buffers 4 32k;
    location / {{
      proxy_pass http://origin; proxy_http_version 1.1;
      proxy_set_header Host $http_host; proxy_set_header Connection "";
      proxy_request_buffering off; proxy_next_upstream off; proxy_pass_header Date; proxy_pass_header Server;
      proxy_buffer_size 64k; proxy_buffers 8 64k; proxy_busy_buffers_size 128k;
    }}
  }}
}}
"""

ODD = re.compile(rb"[^!-~]|[#\\]|\.\.")
ABSOLUTE = re.compile(rb"(?i)https?://([^/?]*)")

REFUSED: dict[str, Callable[[Ask], bool]] = {
    # llhttp knows 1.0 and 1.1 only, and the methods of the registry (RFC 9110, 16.1)
    "bad_request": lambda ask: (
        ask.method in (b"FOO", b"get")
        or ask.version == b"0.9"
        or bool(ODD.search(ask.target))
        or sum(name in (b"X-Request-Id", b"Upgrade") for name, _ in ask.fields) > 1
        or (ask.framing == "chunked" and b"Length" in ask.trailer)  # nginx drops trailers unread
    ),
    "bad_version": lambda ask: ask.version not in (b"1.0", b"1.1"),
    "bad_method": lambda ask: ask.method in (b"CONNECT", b"TRACE"),
    # nginx checks less of Host than RFC 9110, 7.2 asks for
    "bad_host": lambda ask: bool(ask.hosts[0].translate(None, b"abcdefghijklmnopqrstuvwxyzG0123456789.:[]_-")),
    # characters that RFC 3986 knows in no target, and ".." (the service was chosen by the prefix)
    "bad_target": lambda ask: ODD.search(plain(ask.target)) is not None or ask.target.startswith(b"ftp:"),
    "target_too_long": lambda ask: len(ask.target) > 8192,
    # the gateway forwards no trailers that would frame, nginx none at all
    "bad_framing": lambda ask: ask.version == b"1.0" and ask.framing == "chunked",
}
"""Reasons for which the gateway refuses what nginx forwards, and when they are right."""

TOLERATED = (
    lambda ask: b"\t" in ask.space,  # nginx takes tabs around values for part of them (RFC 9110, 5.6.3)
    lambda ask: (
        bool(ABSOLUTE.match(ask.target)) and ask.hosts == (b"",)
    ),  # the target's authority counts (RFC 9112, 3.2.2)
    lambda ask: len({name for name, _ in ask.fields}) < len(ask.fields),  # nginx knows fields that come once
)
"""What nginx refuses and the gateway forwards."""

OURS = frozenset((b"via x-request-id x-name forwarded x-forwarded-for x-forwarded-proto x-forwarded-host").split())
"""Fields that the gateway adds or replaces (RFC 9110, 7.6.3; RFC 7239)."""

HOP = frozenset(
    b"connection keep-alive te trailer transfer-encoding upgrade proxy-connection proxy-authorization".split()
)
"""Fields of one connection: the gateway drops them all, and those that Connection names (RFC 9110, 7.6.1); nginx some.
"""


@dataclass(frozen=True)
class Seen:
    """A request as the origin got it."""

    line: bytes
    fields: list[tuple[bytes, bytes]]
    body: bytes
    chunked: bool


@dataclass(frozen=True)
class Got:
    """An answer as the client got it. ``whole``: as long as it was announced; ``ours``: made by the proxy."""

    status: int
    fields: list[tuple[bytes, bytes]]
    body: bytes
    whole: bool
    ends: bool


class Stage:
    """The origin, nginx and the gateway, and what the origin sees."""

    def __init__(self, nginx: int, front: Gate) -> None:
        self.nginx = nginx
        self.front = front
        self.case = Case([], 1, 1.0)
        self.serial = 0
        self.seen: dict[int, Seen] = {}


def parsed(head: bytes) -> tuple[bytes, list[tuple[bytes, bytes]]]:
    line, *lines = head[:-4].split(b"\r\n")
    pairs = (line.partition(b":") for line in lines)
    return line, [(name.lower(), value.strip(b" \t")) for name, _, value in pairs]


@contextlib.asynccontextmanager
async def staged() -> AsyncIterator[Stage]:
    """Raises ServiceUnavailable without nginx."""
    stage: Stage

    async def answer(found: Origin, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            head = await found.head(reader)
            line, fields = parsed(head)
            serial, _, number = dict(fields)[b"x-name"].partition(b".")
            if int(serial) != stage.serial:  # of a client that left
                return
            coded = b"transfer-encoding: chunked" in head.lower()
            stage.seen[int(number)] = Seen(line, fields, await body(reader, head), coded)
            ask = stage.case.asks[int(number)]
            writer.write(ask.raw_answer())
            await writer.drain()
            if ask.ends:
                return

    async with origin(answer) as upstream, contextlib.AsyncExitStack() as stack:
        server = Server("nginx")
        stack.callback(server.stop)
        (server.folder / "nginx.conf").write_text(
            NGINX.format(folder=server.folder, origin=upstream.port, port=server.port)
        )
        await asyncio.to_thread(
            server.start, "-p", str(server.folder), "-c", "nginx.conf", "-e", str(server.folder / "error.log")
        )
        more = 'path = "/"\nretry = { attempts = 1 }\nejection = { failures = 1000000 }'
        front = await stack.enter_async_context(gate(config(upstream.port, more), Ledger()))
        stage = Stage(server.port, front)
        yield stage


async def talk(stage: Stage, port: int, case: Case) -> tuple[list[Got], dict[int, Seen]]:
    """Send a case; return what came back and what the origin saw."""
    stage.case, stage.seen = case, {}
    stage.serial += 1
    reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=2**20)
    got: list[Got] = []
    try:
        async with asyncio.timeout(WAIT_S):
            sending = asyncio.create_task(send(writer, case, str(stage.serial)))
            try:
                if case.leaves == 1:
                    for ask in case.asks:
                        got.append(await receive(reader, ask))
                        if got[-1].ends or not got[-1].whole:
                            break
            finally:
                if got:
                    sending.cancel()
                with contextlib.suppress(asyncio.CancelledError, ConnectionError):
                    await sending
    finally:
        writer.transport.abort() if case.leaves < 1 else writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()
    return got, stage.seen


async def send(writer: asyncio.StreamWriter, case: Case, name: str) -> None:
    data = case.raw(name)
    data = data[: int(len(data) * case.leaves)]
    size = len(data) // case.pieces + 1
    for at in range(0, len(data), size):
        writer.write(data[at : at + size])
        await writer.drain()
        await asyncio.sleep(0)


async def receive(reader: asyncio.StreamReader, ask: Ask) -> Got:
    try:
        head = await reader.readuntil(b"\r\n\r\n")
        while head.startswith(b"HTTP/1.1 1"):
            head = await reader.readuntil(b"\r\n\r\n")
    except (asyncio.IncompleteReadError, ConnectionResetError):
        return Got(0, [], b"", False, True)
    line, fields = parsed(head)
    status = int(line.split(b" ")[1])
    names = dict(fields)
    ends = names.get(b"connection", b"") == b"close"
    data, whole = b"", True
    if ask.method != b"HEAD" and status not in (204, 304):
        try:
            if b"content-length" in names or b"transfer-encoding" in names:
                data = await body(reader, head)
            else:
                data, ends = await reader.read(-1), True
        except asyncio.IncompleteReadError as error:
            data, whole = error.partial, False
        except ConnectionResetError:
            whole = False
    return Got(status, fields, data, whole, ends)


async def compare(stage: Stage, case: Case, counts: Counter[str]) -> list[str]:
    """What differs beyond what may."""
    ours, seen = await talk(stage, stage.front.port, case)
    theirs, seen_theirs = await talk(stage, stage.nginx, case)
    if case.leaves < 1:
        counts["left"] += 1
        await stage.front.at_rest()
        return []
    for number, ask in enumerate(case.asks):
        if number >= len(ours) or number >= len(theirs):
            return [f"answers: {len(ours)} and {len(theirs)}"]
        mine, his = ours[number], theirs[number]
        if ask.method == b"OPTIONS" and ask.target == b"*":  # ours to answer
            assert mine.status == 200
            return []
        if number not in seen:
            return refusals(ask, mine, his, number in seen_theirs, counts)
        if number not in seen_theirs:
            counts["laxer"] += 1
            return (
                []
                if any(told(ask) for told in TOLERATED)
                else [f"only nginx refuses, with {his.status}: {ask.target!r}"]
            )
        if found := [*requests(ask, seen[number], seen_theirs[number]), *answers(ask, mine, his)]:
            return found
        counts["same"] += 1
        if not mine.whole or mine.ends or his.ends:
            return []
    return []


def refusals(ask: Ask, mine: Got, his: Got, forwarded: bool, counts: Counter[str]) -> list[str]:
    reason = dict(mine.fields).get(b"x-flatwater-reason", b"").decode()
    if not reason or not 400 <= mine.status < 600:
        return [f"no reason for {mine.status}"]
    if not forwarded:
        counts["both refuse"] += 1
        return []
    counts[f"stricter: {reason}"] += 1
    return [] if reason in REFUSED and REFUSED[reason](ask) else [f"only we refuse: {reason}"]


def plain(target: bytes) -> bytes:
    return target.lower().replace(b"%2e", b".").replace(b"%2f", b"/")


def kept(fields: list[tuple[bytes, bytes]]) -> Counter[tuple[bytes, bytes]]:
    """But for what may differ."""
    named = {name.strip() for field, value in fields if field == b"connection" for name in value.lower().split(b",")}
    drop = OURS | HOP | named
    return Counter(item for item in fields if item[0] not in drop and item != (b"content-length", b"0"))


def requests(ask: Ask, mine: Seen, his: Seen) -> list[str]:
    found = []
    if mine.line != his.line:
        found.append(f"line: {mine.line!r} {his.line!r}")
    if mine.body != his.body:
        found.append(f"request body: {len(mine.body)} {len(his.body)}")
    if mine.chunked != (ask.framing == "chunked"):  # nginx sends a length when it has read the end
        found.append(f"request chunked: {mine.chunked} {his.chunked}")
    a, b = kept(mine.fields), kept(his.fields)
    if ask.framing == "chunked":
        b -= Counter({(b"content-length", b"%d" % len(his.body)): 1})
    if absolute := ABSOLUTE.match(ask.target):  # nginx has been told to pass the field
        b = b - Counter({(b"host", ask.hosts[0]): 1}) + Counter({(b"host", absolute[1]): 1})
    if not ask.hosts:  # HTTP/1.0; what we send is HTTP/1.1 and must name one
        a = Counter({item: count for item, count in a.items() if item[0] != b"host"})
    named = {name.strip() for name, value in ask.fields if name == b"Connection" for name in value.lower().split(b",")}
    b = Counter({item: count for item, count in b.items() if item[0] not in named})
    return found + [f"request has {item}" for item in a - b] + [f"request lacks {item}" for item in b - a]


def answers(ask: Ask, mine: Got, his: Got) -> list[str]:
    if (mine.status, mine.whole) != (his.status, his.whole):
        return [f"answer: {mine.status} {mine.whole}, {his.status} {his.whole}"]
    if not mine.whole or b"x-flatwater-reason" in dict(mine.fields):
        return []
    found = []
    if mine.body != his.body:
        found.append(f"answer body: {mine.body[:40]!r} {his.body[:40]!r}")
    named = {value.lower() for name, value in ask.answer_fields if name == b"Connection"}
    a, b = (Counter({item: n for item, n in kept(side.fields).items() if item[0] not in named}) for side in (mine, his))
    if not any(name == b"Date" for name, _ in ask.answer_fields):
        a, b = (Counter({item: n for item, n in side.items() if item[0] != b"date"}) for side in (a, b))
    if sum(name == b"Content-Type" for name, _ in ask.answer_fields) > 1:  # nginx passes the last
        a = b = Counter()
    if b"date" not in dict(mine.fields):
        found.append("answer without a date")
    return found + [f"answer has {item}" for item in a - b] + [f"answer lacks {item}" for item in b - a]


def test_same_as_nginx(pytestconfig: pytest.Config) -> None:
    counts: Counter[str] = Counter()
    with asyncio.Runner() as runner:
        context = staged()
        try:
            stage = runner.run(context.__aenter__())
        except ServiceUnavailable as error:
            pytest.skip(str(error))
        try:

            @settings(max_examples=EXAMPLES, deadline=None)
            @given(CASES)
            def holds(case: Case) -> None:
                assert not runner.run(compare(stage, case, counts))

            holds()
        finally:
            runner.run(context.__aexit__(None, None, None))
    told = ", ".join(f"{count} {name}" for name, count in counts.most_common())
    pytestconfig.stash.setdefault(FIGURES, []).append(f"gateway beside nginx: {told}")
    assert counts["same"] > EXAMPLES // 4
