"""Django inside a worker: connections that a long-lived process should not keep, and those that are not its own."""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from typing import Any

_inherited: list[Any] = []  # never collected: the end of such an object would speak on the parent's connection


def close_old_connections() -> bool:
    """Close database connections that are broken or older than ``CONN_MAX_AGE``, as Django does around a request.

    Called by the integrations before and after each task, in its thread. False, and nothing done, in a process that has
    not loaded Django's database layer; a connection inside an atomic block is left alone.
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


def leave_inherited_connections() -> None:
    """In a forked child: let go of the parent's connections without a word to the server, which would end them there.

    Their descriptors become ``/dev/null``, so that the server does not wait for this process when the parent ends.
    """
    database = sys.modules.get("django.db")
    if database is None:
        return
    from django.core.exceptions import ImproperlyConfigured

    with suppress(ImproperlyConfigured):
        for connection in database.connections.all(initialized_only=True):
            if connection.connection is not None:
                _inherited.append(connection.connection)
                _silence(connection.connection)
                connection.connection = None  # the next query connects


def _silence(inherited: Any) -> None:
    inherited = getattr(inherited, "_sock", inherited)  # PyMySQL's
    if hasattr(inherited, "fileno"):
        nothing = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
        try:
            os.dup2(nothing, inherited.fileno(), inheritable=False)
        finally:
            os.close(nothing)
