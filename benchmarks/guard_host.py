"""What the price of the guard is measured on: tasks and requests of 1 ms in real workers, bare and guarded in turn.

``guard_overhead.py`` starts the workers. A block of tasks runs as if the guard had never been installed (no hook, no
wrapper), the next one with it, and so on: in one process, whose layout in memory alone would make a difference of one
or two percent between two processes, and so closely that both see the same neighbors on the machine.
"""

from __future__ import annotations

import json
import os
import statistics
import threading
from collections.abc import Awaitable, Callable
from time import thread_time
from typing import Any

import redis

KIND, URL, WORK = os.environ["BENCH_KIND"], os.environ["BENCH_REDIS"], int(os.environ["BENCH_WORK"])
FAR = 1 << 40  # a soft limit that is looked at and never reached
BLOCK, WARM = 20, 4  # tasks of a block, and how many of them come before those that count
mine = threading.local()


def work() -> None:
    began = thread_time()
    sum(range(WORK))
    mine.work = thread_time() - began


class Turns:
    """Which block a task belongs to, and what its thread used of a processor besides the 1 ms, by blocks.

    Two figures: of the execution of a task with all its hooks, whose differences are small and sure; and of all that
    the thread does from the end of a task to the end of the next (taking it, its result), which is what a task costs.
    """

    def __init__(self, turn: Callable[[bool], object] = lambda on: None) -> None:
        self._turn = turn
        self._count = 0
        self.on = False
        self._blocks: list[list[tuple[float, float]]] = [[]]

    def begin(self) -> bool:
        """Whether this task is guarded."""
        if self._count == BLOCK:
            self._count = 0
            self._blocks.append([])
            self.on = not self.on
            self._turn(self.on)
        self._count += 1
        mine.work = -1.0
        mine.began = thread_time()
        return self.on

    def end(self) -> None:
        now = thread_time()
        if mine.work > 0 and self._count > WARM and getattr(mine, "last", None) is not None:
            self._blocks[-1].append((now - mine.began - mine.work, now - mine.last - mine.work))
        mine.last = now

    def told(self) -> None:
        """Per two blocks the medians of the execution, bare and guarded, and of the whole, bare."""
        pairs = zip(self._blocks[0::2], self._blocks[1::2], strict=False)
        medians = [
            (
                *(statistics.median(inner for inner, _ in block) for block in pair),
                statistics.median(w for _, w in pair[0]),
            )
            for pair in pairs
            if min(len(block) for block in pair) > BLOCK // 2
        ]
        told(json.dumps(medians))
        self._blocks, self._count, self.on = [[]], 0, False
        self._turn(False)


def say_times() -> None:
    turns.told()


def told(word: str) -> None:
    redis.Redis.from_url(URL).rpush("told", word)


if KIND == "huey":
    from huey import RedisHuey

    from flatwater.guard.huey import install as install_huey

    huey = RedisHuey("bench", url=URL)
    guard = install_huey(huey, soft=FAR)
    hooks = huey._pre_execute, huey._post_execute
    saved = [dict(hook) for hook in hooks]

    def turn_huey(on: bool) -> None:
        for hook, full in zip(hooks, saved, strict=True):
            hook.clear()
            hook.update(full if on else {})

    turns = Turns(turn_huey)
    turn_huey(False)
    execute = huey.execute

    def execute_in_turn(*arguments: Any, **named: Any) -> Any:
        turns.begin()
        result = execute(*arguments, **named)
        turns.end()
        return result

    huey.execute = execute_in_turn
    one_ms, say = huey.task()(work), huey.task()(say_times)

elif KIND in ("prefork", "threads"):
    from billiard import pool
    from celery import Celery, signals
    from celery.app.trace import build_tracer

    from flatwater.guard.celery import install as install_celery

    app = Celery("bench", broker=URL)
    app.conf.update(task_ignore_result=True, worker_hijack_root_logger=False, broker_connection_retry_on_startup=True)
    guard = install_celery(app, soft=FAR)
    measures = {False: lambda: 1}  # what a pool asks after each task; 0 would be logged as an error
    runs: dict[bool, Callable[..., Any]] = {}

    def turn_celery(on: bool) -> None:
        pool.mem_rss = measures[on]
        app.tasks["guard_host.work"].run = runs[on]

    turns = Turns(turn_celery)

    @signals.worker_process_init.connect
    @signals.worker_ready.connect
    def trace_in_turn(**_: Any) -> None:
        task = app.tasks["guard_host.work"]
        measures[True] = pool.mem_rss
        runs.update({False: getattr(task.run, "__wrapped__", task.run), True: task.run})
        traces = {}
        for on, run in runs.items():  # a tracer may keep the function that it finds, or look for it each time
            task.run = run
            traces[on] = build_tracer(task.name, task, app.loader, None, app=app)

        def trace(*arguments: Any, **named: Any) -> Any:
            result = traces[turns.begin()](*arguments, **named)
            pool.mem_rss()  # the pool's own call is outside of what is measured
            turns.end()
            return result

        task.__trace__ = trace
        turn_celery(False)

    one_ms, say = (app.task(one).delay for one in (work, say_times))

else:
    from starlette.applications import Starlette
    from starlette.requests import Request
    from starlette.responses import PlainTextResponse, Response
    from starlette.routing import Route

    from flatwater.guard.asgi import install as install_asgi

    turns = Turns()

    async def request(_: Request) -> Response:
        work()
        return PlainTextResponse("done")

    async def request_told(request: Request) -> Response:
        turns.told()
        return PlainTextResponse("done")

    starlette = Starlette(routes=[Route("/work/{number}", request), Route("/told", request_told)])
    apps: dict[bool, Callable[..., Awaitable[None]]] = {False: starlette, True: install_asgi(starlette, soft=FAR)}

    async def asgi(scope: Any, receive: Any, send: Any) -> None:
        await apps[turns.begin()](scope, receive, send)  # the app awaits nothing but what is there
        turns.end()
