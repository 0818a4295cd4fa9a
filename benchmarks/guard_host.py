"""What the price of the guard is measured on: tasks and requests of 1 ms in real workers, with a switch.

``guard_overhead.py`` starts the workers and turns the switch by a task or a request. Off means as if the guard had
never been installed: no hook, no wrapper, no watching thread. So both are measured in one process, whose layout in
memory alone would make a difference of one or two percent between two processes.
"""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Awaitable, Callable
from time import thread_time
from typing import Any

import redis

KIND, URL, WORK = os.environ["BENCH_KIND"], os.environ["BENCH_REDIS"], int(os.environ["BENCH_WORK"])
FAR = 1 << 40  # a soft limit that is looked at and never reached
turn: Callable[[bool], object]
mine = threading.local()  # what the task itself used of a processor
times: list[float] = []  # what its execution used around it


def work() -> None:
    began = thread_time()
    sum(range(WORK))
    mine.s = thread_time() - began


def clocked(execute: Callable[..., Any]) -> Callable[..., Any]:
    """The host's own execution of a task, its hooks included, with a clock that stands still while others run."""

    def execute_clocked(*arguments: Any, **named: Any) -> Any:
        mine.s = -1.0
        began = thread_time()
        result = execute(*arguments, **named)
        took = thread_time() - began
        if mine.s > 0:
            times.append(took - mine.s)
        return result

    return execute_clocked


def told(word: str) -> None:
    redis.Redis.from_url(URL).rpush("told", word)


def switch(on: bool) -> None:
    turn(on)
    times.clear()
    told("switched")


def tell_times() -> None:
    told(json.dumps(times))
    times.clear()


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
        if not on:
            guard.close()

    turn = turn_huey
    huey.execute = clocked(huey.execute)
    one_ms, say, set_guard = huey.task()(work), huey.task()(tell_times), huey.task()(switch)

elif KIND in ("prefork", "threads"):
    from billiard import pool
    from celery import Celery, signals
    from celery.app.trace import build_tracer

    from flatwater.guard.celery import install as install_celery

    app = Celery("bench", broker=URL)
    app.conf.update(task_ignore_result=True, worker_hijack_root_logger=False, broker_connection_retry_on_startup=True)
    guard = install_celery(app, soft=FAR)
    measures: dict[bool, Any] = {}

    def turn_celery(on: bool) -> None:
        measures.setdefault(True, pool.mem_rss)
        task = app.tasks["guard_host.work"]
        task.run = saved_run if on else getattr(saved_run, "__wrapped__", saved_run)
        task.__trace__ = clocked(build_tracer(task.name, task, app.loader, None, app=app))
        pool.mem_rss = measures[True] if on else int
        if not on:
            guard.close()

    @signals.worker_process_init.connect
    @signals.worker_ready.connect
    def note_run(**_: Any) -> None:
        global saved_run
        saved_run = app.tasks["guard_host.work"].run

    turn = turn_celery
    one_ms, say, set_guard = (app.task(one).delay for one in (work, tell_times, switch))

else:
    from starlette.applications import Starlette
    from starlette.requests import Request
    from starlette.responses import PlainTextResponse, Response
    from starlette.routing import Route

    from flatwater.guard.asgi import install as install_asgi

    async def request(_: Request) -> Response:
        work()
        return PlainTextResponse("done")

    async def request_switch(request: Request) -> Response:
        global chosen
        on = bool(int(request.path_params["on"]))
        chosen = guarded if on else starlette
        if not on:
            guarded.worker.close()
        told("switched")
        return PlainTextResponse("done")

    async def request_times(_: Request) -> Response:
        tell_times()
        return PlainTextResponse("done")

    routes = [Route("/work/{number}", request), Route("/switch/{on}", request_switch), Route("/times", request_times)]
    starlette = Starlette(routes=routes)
    guarded = install_asgi(starlette, soft=FAR)
    chosen: Callable[..., Awaitable[None]] = guarded

    async def asgi(scope: Any, receive: Any, send: Any) -> None:
        mine.s = -1.0
        began = thread_time()
        await chosen(scope, receive, send)  # the app awaits nothing but what is there
        took = thread_time() - began
        if mine.s > 0:
            times.append(took - mine.s)
