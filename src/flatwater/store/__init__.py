"""Durable state: tables, one writer with group commit, readers. SQL differs between databases in `dialect` only."""

from flatwater.store.option import StoreOptions
from flatwater.store.store import Store

__all__ = ["Store", "StoreOptions"]
