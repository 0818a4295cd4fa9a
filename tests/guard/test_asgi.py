"""ASGI apps under the real uvicorn and gunicorn: routes told apart, processes replaced, each request answered."""

from __future__ import annotations

import asyncio
import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from flatwater.errors import SettingError
from flatwater.guard.asgi import GuardMiddleware, install
from flatwater.guard.route import Names, fold, label

HERE = Path(__file__).parent
GUARD = [sys.executable, "-m", "flatwater.cli", "guard", "--record"]


class Served:
    """A server in a process of its own, and what one asks it."""

    def __init__(self, log: Path, port: int, process: subprocess.Popen[bytes]) -> None:
        self.log, self.port, self.process = log, port, process

    def get(self, path: str) -> tuple[int, str]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=90)
        try:
            connection.request("GET", path)
            answer = connection.getresponse()
            return answer.status, answer.read().decode()
        finally:
            connection.close()

    def table(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.get("/table")[1])
        return found

    def wait(self, what: Callable[[], object], timeout_s: float = 100) -> None:
        deadline = time.monotonic() + timeout_s
        while not what():
            assert time.monotonic() < deadline, self.log.read_text()[-3000:]
            time.sleep(0.05)

    def up(self) -> bool:
        try:
            self.get("/table")
        except OSError:
            return False
        return True


@contextmanager
def serving(folder: Path, *words: str, **variables: object) -> Iterator[Served]:
    """``{port}`` in the words is a free port."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    environment = {key: value for key, value in os.environ.items() if not key.startswith("FLATWATER")}
    environment |= {"PYTHONPATH": str(HERE), "PYTHONWARNINGS": "ignore"}
    environment |= {f"INFERIOR_{key.upper()}": str(value) for key, value in variables.items()}
    log = folder / "log"
    with log.open("wb") as output:
        command = [word.format(port=port) for word in words]
        process = subprocess.Popen(command, env=environment, cwd=folder, stdout=output, stderr=output)
    served = Served(log, port, process)
    try:
        served.wait(served.up)
        yield served
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(90)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def uvicorn(*more: str) -> list[str]:
    words = ["-m", "uvicorn", "asgi_inferior:app", "--port", "{port}", "--no-access-log", *more]
    return [sys.executable, *words]


def gunicorn(workers: int) -> list[str]:
    words = ["-m", "gunicorn", "asgi_inferior:app", "-k", "uvicorn.workers.UvicornWorker", "-b", "127.0.0.1:{port}"]
    return [sys.executable, *words, "-w", str(workers)]


class Load:
    """Threads that ask over connections kept open, and count what came of it. Only a refusal is tried again."""

    def __init__(self, served: Served, threads: int, requests: int, path: str) -> None:
        self._served, self._requests, self._path = served, requests, path
        self.answers: Counter[str] = Counter()
        self.lost: list[str] = []
        self.refused = 0
        self._threads = [threading.Thread(target=self._ask, args=(number,)) for number in range(threads)]

    def run(self) -> None:
        for thread in self._threads:
            thread.start()
        for thread in self._threads:
            thread.join()

    def _ask(self, number: int) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", self._served.port, timeout=90)
        for at in range(self._requests):
            try:
                self._once(connection)
            except (OSError, http.client.HTTPException) as error:
                self.lost.append(f"thread {number}, request {at}: {error!r}")
                connection.close()
            if (at + number) % 20 == 0:
                time.sleep(0.3)  # an idle connection, which the server may want to close
        connection.close()

    def _once(self, connection: http.client.HTTPConnection) -> None:
        deadline = time.monotonic() + 90
        while True:
            try:
                connection.request("GET", self._path)
                break
            except ConnectionRefusedError:
                connection.close()
                self.refused += 1
                assert time.monotonic() < deadline
                time.sleep(0.02)
        answer = connection.getresponse()
        body = answer.read().decode()
        assert answer.status == 200, body
        self.answers[body] += 1


def test_the_leaking_route_is_named_with_its_growth_per_request(tmp_path: Path) -> None:
    with serving(tmp_path, *uvicorn()) as served:
        lost = []
        for leaking, plain in [(200, 50), (50, 200)]:  # what is always called alike often cannot be told apart
            both = [Load(served, 2, leaking, "/leak/100"), Load(served, 2, plain, "/api/v1/plain/77")]
            threads = [threading.Thread(target=one.run) for one in both]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            lost += [row for one in both for row in one.lost]
        served.get("/nowhere/to/be/found")
        assert served.get("/broken")[0] == 500
        told = served.table()
    assert not lost
    assert told["size"] == 1, "the request for the table itself"
    rows = told["rows"]
    assert rows["GET /leak/{kib}"][0] == rows["GET /api/v1/plain/{number}"][0] == 500
    assert rows["GET /leak/{kib}"][1] == pytest.approx(100 << 10, rel=0.5)
    assert rows["GET /leak/{kib}"][2] > 0
    assert abs(rows["GET /api/v1/plain/{number}"][1]) < 50 << 10
    assert rows["GET (not found)"][0] == 1
    assert rows["GET /broken"][3] == 1


def test_two_gunicorn_workers_are_recycled_and_no_request_is_lost_or_refused(tmp_path: Path) -> None:
    with serving(tmp_path, *gunicorn(2), soft=90) as served:
        load = Load(served, 6, 120, "/leak/300")
        load.run()
        log = served.log.read_text()
    assert load.lost == []
    assert load.refused == 0
    assert sum(load.answers.values()) == 720
    assert len(load.answers) >= 4, load.answers
    assert log.count("above the soft limit") >= 2, log[-3000:]


def test_one_uvicorn_under_the_guard_is_replaced_and_only_refuses(tmp_path: Path) -> None:
    # Five seconds: no client here is idle so long, on a busy machine either. After one, uvicorn itself loses requests.
    command = [*GUARD, str(tmp_path / "guard.db"), "--", *uvicorn("--timeout-keep-alive", "5")]
    with serving(tmp_path, *command, soft=90) as served:
        load = Load(served, 4, 100, "/leak/300")
        load.run()
        log = served.log.read_text()
    assert load.lost == [], log[-3000:]
    assert sum(load.answers.values()) == 400
    assert len(load.answers) >= 2, log[-3000:]
    report = [sys.executable, "-m", "flatwater.cli", "guard", "report", str(tmp_path / "guard.db")]
    told = subprocess.run(report, capture_output=True, text=True, check=False, timeout=60)
    assert "GET /leak/{kib}" in told.stdout, told


def test_a_request_that_the_app_keeps_is_reported_with_its_path(tmp_path: Path) -> None:
    with serving(tmp_path, *uvicorn()) as served:
        for number in range(3):
            served.get(f"/keep/{number}")
            time.sleep(0.02)
        served.wait(lambda: served.table()["kept"])
        ((name, path, _),) = served.table()["kept"]
    assert name == "the request of GET /keep/{number}"
    assert "REQUESTS" in path


def test_memory_is_given_back_between_requests(tmp_path: Path) -> None:
    with serving(tmp_path, *uvicorn()) as served:
        served.get("/table")
        served.get("/garbage/60")
        served.wait(lambda: served.table()["trims"])
        told = served.table()
    assert told["trimmed"] > 40 << 20, told


def test_a_route_that_is_quarantined_is_answered_503(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "quarantine.json").write_text('["GET /poison/{}"]')
    monkeypatch.setenv("FLATWATER_GUARD", str(tmp_path / "socket"))
    sent: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})

    async def send(message: Any) -> None:
        sent.append(message.get("status"))

    async def ask(guarded: GuardMiddleware, *paths: str) -> None:
        for path in paths:
            scope = {"type": "http", "http_version": "1.1", "method": "GET", "path": path}
            await guarded(scope, None, send)  # type: ignore[arg-type]

    for quarantine in (True, False):
        guarded = install(app, quarantine=quarantine)
        asyncio.run(ask(guarded, "/poison/1", "/other"))
        guarded.worker.close()
    assert sent == [503, None, 200, 200, 200], "off unless it is asked for"


def test_requests_that_overlap_are_not_alone() -> None:
    gates: dict[str, asyncio.Event] = {}

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await gates[scope["path"]].wait()

    async def play(guarded: GuardMiddleware) -> None:
        gates.update({path: asyncio.Event() for path in ("/a", "/b", "/c")})

        def ask(path: str) -> asyncio.Future[None]:
            scope = {"type": "http", "http_version": "1.1", "method": "GET", "path": path}
            return asyncio.ensure_future(guarded(scope, None, None))  # type: ignore[arg-type]

        a, b = ask("/a"), ask("/b")
        await asyncio.sleep(0)
        assert guarded.worker.statistics().size == 2
        gates["/a"].set()
        await a
        gates["/b"].set()
        await b
        gates["/c"].set()
        await ask("/c")

    guarded = install(lambda *_: app(*_))
    asyncio.run(play(guarded))
    alone = {row.name: row.alone for row in guarded.worker.rows()}
    guarded.worker.close()
    assert alone == {"GET /a": 0, "GET /b": 0, "GET /c": 1}
    assert guarded.worker.statistics().size == 0


def test_names_are_folded_and_bounded() -> None:
    assert fold("/orders/4711/lines/0198c1f2-7d3a-7000-8000-00aa11bb22cc") == "/orders/{}/lines/{}"
    assert fold("/a/b/c/d/e/f") == "/a/b/c/d/…"
    assert fold("/feedback/v2/") == "/feedback/v2/"
    assert label("GET /x/1?") == "GET /x/1?", "an id is a whole segment"
    names = Names()
    assert names.learn("GET", "/x", {"path": "/x"}, 404) == "GET (not found)"
    assert names.learn("GET", "/x/7", {"path": "/x/7"}, 200) == "GET /x/{}"
    for number in range(3000):
        for path, fixed in ((f"/things/{number}", False), ("/" + "x" * (number % 30) + "y" * (number // 30), True)):
            route = SimpleNamespace(path=path if fixed else "/things/{thing}")
            assert names.learn("GET", path, {"path": path, "route": route}, 404) == f"GET {route.path}"
    assert "GET /things/7" not in names.fixed, "paths with ids would fill it"
    assert "GET /xx" in names.fixed
    assert len(names.fixed) <= 1024


def test_other_scopes_pass_and_limits_are_checked() -> None:
    seen: list[str] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        seen.append(scope["type"])

    guarded = install(app)
    assert isinstance(guarded, GuardMiddleware)

    async def call(scope: dict[str, Any]) -> None:
        await guarded(scope, None, None)  # type: ignore[arg-type]

    asyncio.run(call({"type": "websocket", "path": "/talk/7"}))
    asyncio.run(call({"type": "lifespan"}))
    assert [row.name for row in guarded.worker.rows()] == ["WS /talk/{}"]
    guarded.worker.close()
    assert seen == ["websocket", "lifespan"]
    with pytest.raises(SettingError):
        install(app, soft=2, hard=1)
