"""The only place where SQL differs between SQLite, PostgreSQL and MariaDB/MySQL."""

from flatwater.store.dialect.base import Connection, Dialect, DisconnectedError, Fault, Liveness, UnknownOutcomeError
from flatwater.store.dialect.choice import choose
from flatwater.store.dialect.clause import members

__all__ = [
    "Connection",
    "Dialect",
    "DisconnectedError",
    "Fault",
    "Liveness",
    "UnknownOutcomeError",
    "choose",
    "members",
]
