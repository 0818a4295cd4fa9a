"""Everything that may hold things for long, each with a bound, statistics and a line in the ledger.

What a name needs is imported when the name is first asked for: the guard lives in other people's workers and wants the
ledger alone; asyncio and the cache would be 2.6 MiB more in each Celery process.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from flatwater.bounded.cache import Cache, CacheStatistics
    from flatwater.bounded.chunk import achunks, chunks
    from flatwater.bounded.fanout import Fanout, FanoutStatistics, Message, Subscription
    from flatwater.bounded.histogram import Histogram, HistogramStatistics
    from flatwater.bounded.history import History, HistoryStatistics
    from flatwater.bounded.ledger import Entry, Holder, Ledger, Usage, check_bound
    from flatwater.bounded.task import TaskGroup, TaskGroupStatistics, TaskInfo

_MODULES = {
    "cache": ("Cache", "CacheStatistics"),
    "chunk": ("achunks", "chunks"),
    "fanout": ("Fanout", "FanoutStatistics", "Message", "Subscription"),
    "histogram": ("Histogram", "HistogramStatistics"),
    "history": ("History", "HistoryStatistics"),
    "ledger": ("Entry", "Holder", "Ledger", "Usage", "check_bound"),
    "task": ("TaskGroup", "TaskGroupStatistics", "TaskInfo"),
}

__all__ = [
    "Cache",
    "CacheStatistics",
    "Entry",
    "Fanout",
    "FanoutStatistics",
    "Histogram",
    "HistogramStatistics",
    "History",
    "HistoryStatistics",
    "Holder",
    "Ledger",
    "Message",
    "Subscription",
    "TaskGroup",
    "TaskGroupStatistics",
    "TaskInfo",
    "Usage",
    "achunks",
    "check_bound",
    "chunks",
]


def __getattr__(name: str) -> object:
    for module, names in _MODULES.items():
        if name in names:
            found: object = getattr(import_module(f"{__name__}.{module}"), name)
            globals()[name] = found  # the next one does not come here
            return found
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
