"""The databases that tests stand on: a fresh one for each test, and servers of our own where none runs."""

from __future__ import annotations

import contextlib
from collections.abc import Callable

import psycopg
import pymysql
import pytest
import redis
from sqlalchemy.engine import make_url

from tests import service


def test_postgres_is_fresh(postgres_url: str) -> None:
    url = make_url(postgres_url)
    with psycopg.connect(host=url.host, port=url.port, user=url.username, dbname=url.database) as connection:
        tables = connection.execute("SELECT count(*) FROM pg_tables WHERE schemaname = 'public'").fetchone()
        assert tables == (0,)
        connection.execute("CREATE TABLE mark (n int)")


def test_mariadb_is_fresh(mariadb_url: str) -> None:
    url = make_url(mariadb_url)
    connection = pymysql.connect(host=url.host, port=url.port or 0, user=url.username, database=url.database)
    with contextlib.closing(connection):
        cursor = connection.cursor()
        assert cursor.execute("SHOW TABLES") == 0
        cursor.execute("CREATE TABLE mark (n int)")


@pytest.mark.parametrize("turn", [1, 2])
def test_redis_is_fresh(redis_url: str, turn: int) -> None:
    with contextlib.closing(redis.Redis.from_url(redis_url)) as client:
        assert client.get("mark") is None
        client.set("mark", turn)


@pytest.mark.parametrize("start", [service.start_postgres, service.start_mariadb, service.start_redis])
def test_private_server_starts_and_leaves_nothing(start: Callable[[], service.Server]) -> None:
    try:
        server = start()
    except service.ServiceUnavailable as error:
        pytest.skip(str(error))
    try:
        assert service.answers(server.port)
    finally:
        server.stop()
    assert not service.answers(server.port)
    assert not server.folder.exists()
