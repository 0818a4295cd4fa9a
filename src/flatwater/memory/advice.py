"""What to do about a leak whose pattern is known: rules over what a diagnosis has found.

Each rule looks at names, types, functions and counts, never at values. The first that fits
speaks.
"""

from __future__ import annotations

import re
from collections.abc import Callable

import msgspec

from flatwater.memory.verdict import Kind


class Advice(msgspec.Struct, frozen=True):
    """``key`` names the pattern, ``reason`` says why memory stays, ``remedy`` what to change."""

    key: str
    reason: str
    remedy: str


class Facts(msgspec.Struct, frozen=True, kw_only=True):
    """What the rules may look at. ``holdings`` are counts of what the container keeps alive, by type."""

    kind: Kind
    owner: str = ""
    names: tuple[str, ...] = ()
    types: tuple[str, ...] = ()
    container: str = ""
    items: str = ""
    holdings: dict[str, int] = {}
    length: int = 0
    coroutines: tuple[str, ...] = ()
    functions: tuple[str, ...] = ()
    removes: bool = False
    collector: bool = True
    frozen: int = 0
    threads: bool = False
    item_types: tuple[str, ...] = ()

    def held(self, *types: str) -> bool:
        """Whether objects of one of these types (full or last name) are a substantial part of what is held."""
        least = max(5, self.length // 5)
        mine = {self.items, *self.item_types}
        by_last = {name.rpartition(".")[2] for name in mine}
        return any(
            kind in mine or kind in by_last or self._count(kind) >= least
            for kind in types
        )  # fmt: skip

    def from_module(self, *modules: str) -> bool:
        """Whether most items are of a class of one of these packages."""
        return self.items.partition(".")[0] in modules

    def _count(self, kind: str) -> int:
        return sum(count for name, count in self.holdings.items() if kind in (name, name.rpartition(".")[2]))

    def path_has(self, pattern: str) -> bool:
        """Whether the last name on the path matches, ignoring case: who holds the holder says nothing."""
        return re.search(pattern, self.names[-1] if self.names else "", re.IGNORECASE) is not None


Rule = tuple[str, Callable[[Facts], bool], str, str]
_TASKS = ("_asyncio.Task", "asyncio.tasks.Task", "Task")
_CLIENTS = ("ClientSession", "TCPConnector", "Session", "AsyncClient", "Client", "HTTPAdapter")
_ERRORS = ("traceback", "frame")


def _set_like(facts: Facts) -> bool:
    return facts.container.rpartition(".")[2] in ("set", "dict", "list", "deque")


_VERDICTS: tuple[Rule, ...] = (
    (
        "collector-frozen",
        lambda f: f.kind == "cyclic-garbage" and f.collector and f.frozen > 0,
        "gc.freeze() moved objects into the permanent generation; cycles among them are never collected again",
        (
            "call gc.freeze() once, right after start-up and before work begins (best before a fork), or gc.unfreeze();"
            " break the cycles with weakref where they are made"
        ),
    ),
    (
        "collector-off",
        lambda f: f.kind == "cyclic-garbage",
        "objects refer to each other in cycles, and the collector that would free them does not run",
        (
            "enable it (gc.enable(), gc.set_threshold(700, 10, 10)) or call gc.collect() at quiet moments; or break the"
            " cycles: weakref for back references, `del` of tracebacks, close() of what has callbacks"
        ),
    ),
    (
        "thread-per-request",
        lambda f: f.kind == "thread-stacks",
        "threads are started faster than they end; each keeps its stack, and its malloc arena",
        (
            "use one ThreadPoolExecutor(max_workers=…) for the process; join or time out what blocks; call"
            " shutdown() on"
            " executors that are made per request"
        ),
    ),
    (
        "malloc-free",
        lambda f: f.kind == "malloc-free",
        "memory was freed by the program, but glibc keeps it in its heaps between blocks still in use",
        (
            "MALLOC_ARENA_MAX=2 and MALLOC_TRIM_THRESHOLD_=131072 in the environment, malloc_trim(0) after peaks"
            " (`flatwater diagnose --trim` shows what it returns), or jemalloc through LD_PRELOAD"
        ),
    ),
    (
        "pymalloc-pinned",
        lambda f: f.kind == "pymalloc-pinned",
        "Python's arenas (1 MiB each) can only be returned when every object in them is gone; few survivors pin many",
        (
            "make the peak smaller (stream, split the work), keep survivors out of it (build what lasts before"
            " or after),"
            " do peaks in a child process; PYTHONMALLOC=malloc with jemalloc fragments less"
        ),
    ),
    (
        "native",
        lambda f: f.kind == "native",
        "memory is allocated outside Python's objects: a C extension, ctypes, or a library below one",
        (
            "find the call with `perf trace -e brk,mmap`, heaptrack or jemalloc's profiling; look for missing close(),"
            " free() or destroy() beside the calls into C; upgrade the extension"
        ),
    ),
    (
        "page-cache",
        lambda f: f.kind == "page-cache",
        "pages of files that were read, written or mapped; the kernel drops them when memory is short",
        (
            "no leak of the program. If the limit is near, drop them: posix_fadvise(POSIX_FADV_DONTNEED),"
            " madvise, or close"
            " the mapping; alert on anonymous memory instead"
        ),
    ),
)

_PATTERNS: tuple[Rule, ...] = (
    (
        "celery-trail",
        lambda f: (
            "_children" in f.names and (f.held("AsyncResult", "GroupResult", "EagerResult") or "Context" in f.owner)
        ),
        (
            "a Celery task keeps an AsyncResult of every sub-task it starts"
            " (celery.app.task.Context._children), because"
            " `trail` is on"
        ),
        "@app.task(trail=False) on the task that starts the sub-tasks, or subtask.apply_async(add_to_parent=False)",
    ),
    (
        "exceptions-with-frames",
        lambda f: (
            f.held(*_ERRORS) or any(name.endswith(("Error", "Exception")) for name in (f.items, *f.item_types[:1]))
        ),
        "exceptions are kept, and each keeps its traceback, all frames on it and their local variables",
        "keep str(error) or traceback.format_exc(), or error.with_traceback(None); never store exc_info",
    ),
    (
        "session-per-poll",
        lambda f: f.from_module("sqlalchemy", "sqlite3", "psycopg", "psycopg2", "pymysql", "asyncpg", "aiomysql"),
        "database sessions or connections are opened and not closed; each keeps the rows it has loaded",
        "`with Session() as session:` around each piece of work; remove scoped sessions at its end",
    ),
    (
        "client-sessions",
        lambda f: f.items.rpartition(".")[2] in _CLIENTS,
        "a client session is made for each call; each has a connection pool, and none is closed",
        "make one session for the life of the program (async with at the top), or close each in `with`",
    ),
    (
        "sleeping-tasks",
        lambda f: f.held("TimerHandle") or f.names[-1:] == ("_scheduled",),
        "coroutines that sleep pile up on the event loop's timers: retries or delays are started faster than they end",
        (
            "bound them: one worker with a queue, a limit on retries with an end, a semaphore before the task"
            " is created;"
            " hold tasks in a TaskGroup and cancel what is no longer wanted"
        ),
    ),
    (
        "task-set-without-discard",
        lambda f: f.items in _TASKS and _set_like(f),
        "tasks are put here and stay after they are done, with their results, exceptions and frames",
        "task.add_done_callback(tasks.discard) beside each create_task, or an asyncio.TaskGroup",
    ),
    (
        "tasks-without-end",
        lambda f: bool(f.coroutines) or f.held("coroutine", *_TASKS),
        "coroutines are started and never end or are never awaited",
        "await them in a TaskGroup, give them a timeout (asyncio.timeout), and keep a reference until they are done",
    ),
    (
        "logging-handlers",
        lambda f: (
            ("handlers" in f.names and (f.path_has("logg") or f.held("StreamHandler", "FileHandler")))
            or f.held("StreamHandler", "FileHandler", "QueueHandler", "RotatingFileHandler")
            or "_handlerList" in f.names
        ),
        "a logging handler is added per call or request: logging keeps every handler, and each line is written by all",
        "add handlers once, at start-up; else removeHandler() and close() when the work ends",
    ),
    (
        "logger-per-request",
        lambda f: "loggerDict" in f.names,
        "logging keeps every logger ever named; names made from ids or requests grow without end",
        "use one logger per module, and pass the id with extra= or a LoggerAdapter",
    ),
    (
        "lru-cache",
        lambda f: f.path_has(r"lru_cache|__wrapped__|cache_") or any("lru_cache" in kind for kind in f.types),
        (
            "functools caches keep arguments and results; on a method `self` is an argument, so instances live as long"
            " as the class"
        ),
        (
            "lru_cache(maxsize=…) on a function of plain values; for a method functools.cached_property, or a"
            " cache held by"
            " the instance"
        ),
    ),
    (
        "prepared-statements",
        lambda f: f.path_has(r"stmt|statement|prepared|_compiled_cache|query_cache"),
        "statements are prepared or compiled per distinct text, and the cache has no bound",
        (
            "use bound parameters instead of values in the text; set the cache's size (statement_cache_size,"
            " query_cache_size)"
        ),
    ),
    (
        "weakref-callbacks",
        lambda f: (
            f.held("weakref", "weakref.ReferenceType", "ReferenceType", "finalize")
            or f.path_has(r"finalize\._registry")
        ),
        "weak references or finalizers are kept after what they point to is gone",
        "remove the entry in the reference's callback, or use WeakValueDictionary / WeakSet, which do so",
    ),
    (
        "exit-callbacks",
        lambda f: f.path_has(r"atexit|_exithandlers") or "_ncallbacks" in f.names,
        "a callback is registered per call with atexit and stays until the process ends",
        "register once; atexit.unregister(function) when the object is closed",
    ),
    (
        "callback-list",
        lambda f: (
            f.held("function", "method", "functools.partial", "partial", "builtin_function_or_method")
            or f.path_has(r"callback|listener|observer|subscriber|receiver|handlers|hooks|signal")
        ),
        "callbacks are registered per object or call and never removed; each closure keeps what it captured",
        "unregister when the object ends, register bound methods weakly (weakref.WeakMethod), or register once",
    ),
    (
        "queue-without-consumer",
        lambda f: f.path_has(r"queue|\._queue\b|inbox|backlog|buffer|mailbox|pending_items") and not f.removes,
        "entries are put in faster than they are taken out, or nobody takes them",
        "Queue(maxsize=…) so that producers wait; check that the consumer lives; drop or refuse the oldest",
    ),
    (
        "history-list",
        lambda f: (
            f.container.rpartition(".")[2] in ("list", "deque")
            and f.path_has(
                r"histor|log\b|_log|logs|events?\b|metrics|samples|timings|stats|records|results|audit|seen|trace"
            )
        ),
        "a history is appended to and never cut",
        "collections.deque(maxlen=…), or write it out and clear it",
    ),
    (
        "unbounded-cache",
        lambda f: f.path_has(r"cache|memo"),
        "a cache without bound: entries come in and nothing removes the old ones",
        "give it a size and an age: functools.lru_cache(maxsize=…), cachetools.TTLCache, flatwater.bounded.Cache",
    ),
    (
        "dict-by-id",
        lambda f: f.container.rpartition(".")[2] in ("dict", "defaultdict", "OrderedDict", "set") and not f.removes,
        "entries are kept by an id or request and no path deletes them when the work ends",
        (
            "delete the entry in `finally` where the work ends (also on error, cancel and timeout), or use a"
            " bounded cache"
            " or WeakValueDictionary"
        ),
    ),
)
_GENERAL: Rule = (
    "general",
    lambda f: True,
    "entries are added and not removed at the same pace",
    (
        "remove them where their work ends (finally), bound the container (deque(maxlen=…), a cache with size"
        " and age), or"
        " hold them weakly"
    ),
)


def advise(facts: Facts) -> Advice:
    """The advice of the first rule that fits. Suspects come with kind ``python-objects``, the verdict with its own."""
    for key, fits, reason, remedy in (*_VERDICTS, *_PATTERNS, _GENERAL):
        if fits(facts):
            return Advice(key, reason, remedy)
    raise AssertionError("the last rule fits always")
