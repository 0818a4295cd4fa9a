"""Advice: each rule on the facts it is for, and on facts that only look like it."""

import pytest

from flatwater.memory.advice import Facts, advise


def facts(container: str = "dict", items: str = "demo.Thing", *names: str, **more: object) -> Facts:
    owner = "demo.app → " + ".".join(("App", *names))
    return Facts(kind="python-objects", owner=owner, names=names, container=container, items=items, length=100, **more)  # type: ignore[arg-type]


CASES: list[tuple[str, Facts]] = [
    ("collector-frozen", Facts(kind="cyclic-garbage", frozen=100)),
    ("collector-off", Facts(kind="cyclic-garbage", collector=False, frozen=100)),
    ("thread-per-request", Facts(kind="thread-stacks")),
    ("malloc-free", Facts(kind="malloc-free")),
    ("pymalloc-pinned", Facts(kind="pymalloc-pinned")),
    ("native", Facts(kind="native")),
    ("page-cache", Facts(kind="page-cache")),
    ("celery-trail", facts("list", "celery.result.AsyncResult", "request_stack", "_children")),
    ("exceptions-with-frames", facts("list", "ValueError", "failures")),
    ("exceptions-with-frames", facts("list", "tuple", "failures", holdings={"traceback": 100})),
    ("session-per-poll", facts("dict", "sqlalchemy.orm.session.Session", "registry", holdings={"_asyncio.Task": 100})),
    ("client-sessions", facts("list", "aiohttp.client.ClientSession", "sessions")),
    ("sleeping-tasks", facts("list", "asyncio.events.TimerHandle", "_scheduled")),
    ("task-set-without-discard", facts("set", "_asyncio.Task", "background_tasks")),
    ("tasks-without-end", facts("list", "coroutine", "waiting")),
    ("logging-handlers", facts("list", "logging.StreamHandler", "handlers")),
    ("logger-per-request", facts("dict", "logging.Logger", "loggerDict")),
    ("lru-cache", facts("dict", "tuple", "load", types=("module", "functools._lru_cache_wrapper", "dict"))),
    ("prepared-statements", facts("dict", "demo.Plan", "prepared_statements")),
    ("weakref-callbacks", facts("list", "weakref", "references")),
    ("exit-callbacks", facts("list", "tuple", "_exithandlers")),
    ("callback-list", facts("list", "function", "on_change")),
    ("queue-without-consumer", facts("collections.deque", "demo.Thing", "inbox")),
    ("history-list", facts("list", "demo.Thing", "history")),
    ("unbounded-cache", facts("dict", "str", "response_cache")),
    ("dict-by-id", facts("dict", "demo.Thing", "by_id")),
    ("general", facts("list", "demo.Thing", "stuff")),
]


@pytest.mark.parametrize(("key", "given"), CASES, ids=[f"{key}-{at}" for at, (key, _) in enumerate(CASES)])
def test_rule(key: str, given: Facts):
    found = advise(given)
    assert found.key == key
    assert len(found.reason) > 20
    assert len(found.remedy) > 20


def test_holders_further_up_do_not_decide():
    """A dict of requests on an object named after its queue, reached through the loop's timers, is neither of these."""
    given = facts("dict", "demo.Request", "_scheduled", "queue_manager", "completed_requests")
    assert advise(given).key == "dict-by-id"


def test_what_is_removed_as_well_is_not_said_to_be_never_removed():
    assert advise(facts("dict", "demo.Thing", "by_id", removes=True)).key == "general"
