"""Django inside a worker: connections that a long-lived process should not keep."""

from __future__ import annotations

import sys


def close_old_connections() -> bool:
    """Close database connections that are broken or older than ``CONN_MAX_AGE``, as Django does around a request.

    Called by the integrations before and after each task. False, and nothing done, in a process that has not loaded
    Django's database layer; a connection inside an atomic block is left alone by Django itself.
    """
    database = sys.modules.get("django.db")
    if database is None:
        return False
    from django.core.exceptions import ImproperlyConfigured

    try:
        for connection in database.connections.all(initialized_only=True):
            if not connection.in_atomic_block:
                connection.close_if_unusable_or_obsolete()
    except ImproperlyConfigured:
        return False
    return True
