"""The servers that engines are measured on: a database for one measurement, and what each server promises to keep."""

from __future__ import annotations

import contextlib
import uuid
from collections.abc import Iterator

import psycopg
import redis
from psycopg import sql

_SHOWN = ("server_version", "fsync", "synchronous_commit", "shared_buffers", "commit_delay")


class Absent(Exception):
    """The server does not answer; the message says which."""


@contextlib.contextmanager
def postgres(admin: str) -> Iterator[str]:
    """The URL of a fresh database, dropped after. ``admin``: the URL of one that exists already."""
    name = f"flatwater_bench_{uuid.uuid4().hex[:12]}"
    quoted = sql.Identifier(name)
    with psycopg.connect(admin, autocommit=True) as connection:
        connection.execute(sql.SQL("CREATE DATABASE {}").format(quoted))
        connection.execute("CHECKPOINT")  # so that nobody pays for what was written before
        try:
            yield f"{admin.rpartition('/')[0]}/{name}"
        finally:
            connection.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(quoted))


@contextlib.contextmanager
def redis_database(server: str) -> Iterator[str]:
    """The URL of an empty numbered database, emptied after."""
    for number in range(15, 0, -1):
        url = f"{server.rstrip('/')}/{number}"
        with redis.Redis.from_url(url) as client:
            if client.dbsize() or not client.set("flatwater-bench", 1, nx=True):
                continue
            try:
                yield url
            finally:
                client.flushdb()
            return
    raise Absent(f"no numbered database of {server} is empty; look at what is in 1 … 15")


def describe_postgres(admin: str) -> str:
    """Version and durability. Raises Absent."""
    try:
        with psycopg.connect(admin, connect_timeout=3) as connection:
            shown = {name: connection.execute(f"SHOW {name}").fetchone()[0] for name in _SHOWN}
    except psycopg.OperationalError as error:
        raise Absent(f"PostgreSQL: {error}".strip()) from None
    return "PostgreSQL " + ", ".join(f"{name} {value}" for name, value in shown.items())


def describe_redis(server: str) -> str:
    """Version and durability. Raises Absent."""
    try:
        with redis.Redis.from_url(server, socket_connect_timeout=3) as client:
            shown = client.config_get("appendonly", "appendfsync", "save")
            return f"Redis {client.info('server')['redis_version']}, " + ", ".join(
                f"{name} {value or 'none'}" for name, value in sorted(shown.items())
            )
    except redis.ConnectionError as error:
        raise Absent(f"Redis: {error}") from None
