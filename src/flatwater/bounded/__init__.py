"""Everything that may hold things for long, each with a bound, statistics and a line in the ledger."""

from flatwater.bounded.cache import Cache, CacheStatistics
from flatwater.bounded.chunk import achunks, chunks
from flatwater.bounded.fanout import Fanout, FanoutStatistics, Message, Subscription
from flatwater.bounded.histogram import Histogram, HistogramStatistics
from flatwater.bounded.history import History, HistoryStatistics
from flatwater.bounded.ledger import Entry, Holder, Ledger, Usage, check_bound
from flatwater.bounded.task import TaskGroup, TaskGroupStatistics, TaskInfo

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
