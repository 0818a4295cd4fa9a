"""A server that grows with one of two sorts of its work, and diagnoses itself: prints the report as JSON.

``python -m tests.memory.work_program huey|asgi|engine FOLDER``. In a process of its own, as own_diagnosis.py.
"""

from __future__ import annotations

import asyncio
import http.client
import random
import socket
import sys
import threading
import time
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

from tests.engine.plan import b, plan

from flatwater.memory import report_json
from flatwater.memory.diagnosis import diagnose
from flatwater.memory.target import Here

SECONDS = 5.0
TRIES = 5  # on a machine that is busy with other things a window may have too few looks to tell
KEPT: list[dict[str, str]] = []


def leak() -> None:
    KEPT.extend({"number": "n" * 50} for _ in range(3))


def mixed(calls: list[Callable[[], object]], leave: threading.Event) -> None:
    """Calls one or the other, in a mixture that changes all the time."""
    while not leave.is_set():
        share = random.choice([0.05, 0.95])
        until = time.monotonic() + random.uniform(0.2, 0.6)
        while time.monotonic() < until and not leave.is_set():
            calls[random.random() < share]()
            time.sleep(0.002)


def watched(calls: list[Callable[[], object]]) -> None:
    leave = threading.Event()
    thread = threading.Thread(target=mixed, args=[calls, leave])
    thread.start()
    try:
        with Here() as here:
            for _ in range(TRIES):
                found = diagnose(here, SECONDS)
                if found.goes_with is not None:
                    break
    finally:
        leave.set()
        thread.join()
    sys.stdout.buffer.write(report_json.encode(found))


def huey(folder: Path) -> None:
    import huey as hueys

    from flatwater.guard.huey import install

    queue = hueys.SqliteHuey("work", filename=str(folder / "huey.db"), fsync=False)
    install(queue)
    grow, calm = queue.task(name="grow")(leak), queue.task(name="calm")(lambda: None)
    consumer = queue.create_consumer(workers=1, periodic=False, initial_delay=0.005, max_delay=0.01)
    consumer.start()
    try:
        watched([calm, grow])
    finally:
        consumer.stop(graceful=True)


def asgi(folder: Path) -> None:
    import uvicorn

    from flatwater.guard.asgi import install

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http":
            if scope["path"].startswith("/leak"):
                leak()
            await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"0")]})
            await send({"type": "http.response.body", "body": b""})

    listener = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(install(app), lifespan="off", log_level="error"))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    client = http.client.HTTPConnection("127.0.0.1", listener.getsockname()[1], timeout=90)

    def ask(path: str) -> None:
        client.request("GET", path)
        client.getresponse().read()

    try:
        watched([lambda: ask("/calm"), lambda: ask(f"/leak/{random.randrange(1000)}")])
    finally:
        server.should_exit = True
        thread.join()


def engine(folder: Path) -> None:
    from flatwater.engine.block import block
    from flatwater.engine.blocks import builtin
    from flatwater.engine.engine import Engine
    from flatwater.store import Store

    registry = builtin()

    @block("Leak", family="test")
    async def leaking() -> None:
        leak()

    @block("Calm", family="test")
    async def calm() -> None: ...

    registry.register(leaking)
    registry.register(calm)

    async def main() -> None:
        async with (
            Store.open(f"sqlite:///{folder}/flatwater.db") as store,
            Engine(store, registry=registry) as one,
        ):
            await one.save(plan("grow", b(1, "Leak")))
            await one.save(plan("calm", b(1, "Calm")))
            loop = asyncio.get_running_loop()

            def run(name: str) -> None:
                done: Coroutine[Any, Any, Any] = ended(name)
                asyncio.run_coroutine_threadsafe(done, loop).result(60)

            async def ended(name: str) -> None:
                await one.result(await one.submit(name), 60)

            await asyncio.to_thread(watched, [lambda: run("calm"), lambda: run("grow")])

    asyncio.run(main())


if __name__ == "__main__":
    {"huey": huey, "asgi": asgi, "engine": engine}[sys.argv[1]](Path(sys.argv[2]))
