"""The tables. Times are float seconds since the epoch (UTC); JSON is text; booleans are 0/1 integers.

Ids and paths compare byte by byte on every database, because ranges over path prefixes and ids rely on it.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import BigInteger, Column, Double, Index, Integer, MetaData, SmallInteger, String, Table, Text, text
from sqlalchemy.dialects import mysql, postgresql
from sqlalchemy.types import TypeEngine

ID = 26
NAME = 255
PATH = 640


def _name(length: int) -> TypeEngine[str]:
    return String(length).with_variant(postgresql.VARCHAR(length, collation="C"), "postgresql")


def _long() -> TypeEngine[str]:
    return Text().with_variant(mysql.LONGTEXT(), "mysql", "mariadb")


def _counter(name: str = "id") -> Column[int]:
    kind = BigInteger().with_variant(Integer(), "sqlite")
    return Column(name, kind, primary_key=True, autoincrement=True)


def _flag(name: str, default: int = 0) -> Column[int]:
    return Column(name, SmallInteger, nullable=False, server_default=text(str(default)))


def _count(name: str, default: int = 0) -> Column[int]:
    return Column(name, Integer, nullable=False, server_default=text(str(default)))


def _partial(name: str, *columns: str, where: str) -> Index:
    """A partial index where the database has them (SQLite, PostgreSQL), a plain one elsewhere."""
    return Index(name, *columns, sqlite_where=text(where), postgresql_where=text(where))


_MYSQL: dict[str, Any] = {"mysql_charset": "utf8mb4", "mysql_collate": "utf8mb4_bin", "mysql_engine": "InnoDB"}
metadata = MetaData()


def _table(name: str, *items: Any, **options: Any) -> Table:
    return Table(name, metadata, *items, **_MYSQL, **options)


definition = _table(
    "definition",
    Column("id", _name(NAME), primary_key=True),
    Column("label", _name(NAME), nullable=False),
    Column("version", Integer, nullable=False),
    Column("hash", _name(64), nullable=False),
    Column("remark", _long()),
    _flag("enabled", 1),
    Column("created_at", Double, nullable=False),
    Column("updated_at", Double, nullable=False),
    Index("definition_label", "label", "id"),
    Index("definition_hash", "hash"),
)

snapshot = _table(
    "snapshot",
    Column("hash", _name(64), primary_key=True),
    Column("body", _long(), nullable=False),
    Column("created_at", Double, nullable=False),
)

run = _table(
    "run",
    Column("id", _name(ID), primary_key=True),
    Column("definition_id", _name(NAME), nullable=False),
    Column("label", _name(NAME), nullable=False),
    Column("version", Integer, nullable=False),
    Column("hash", _name(64), nullable=False),
    Column("state", _name(16), nullable=False),
    Column("queue", _name(8)),
    Column("rank", Double, nullable=False),
    Column("due_at", Double),
    _count("priority"),
    Column("created_at", Double, nullable=False),
    Column("started_at", Double),
    Column("ended_at", Double),
    Column("deadline_at", Double),
    _count("epoch"),
    Column("worker", _name(ID)),
    Column("request", _name(8)),
    Column("inputs", _long()),
    Column("outputs", _long()),
    Column("response", _long()),
    Column("error", _long()),
    Column("error_path", _name(PATH)),
    Column("error_kind", _name(64)),
    _count("attempt"),
    Column("policy", _long()),
    Column("out_order_no", _name(NAME)),
    Column("parent_id", _name(ID)),
    Column("parent_path", _name(PATH)),
    _count("depth"),
    Column("state_message", _long()),
    Column("wait", _long()),
    _flag("locked"),
    Column("trigger_id", _name(NAME)),
    Index("run_state", "state", "id"),
    Index("run_definition", "definition_id", "state", "id"),
    Index("run_label", "label", "state", "id"),
    Index("run_hash", "hash"),
    Index("run_out_order_no", "out_order_no", unique=True),
    _partial("run_ready", "queue", "rank", "id", where="queue = 'ready'"),
    _partial("run_due", "queue", "due_at", where="queue = 'due'"),
    _partial("run_worker", "worker", where="worker IS NOT NULL"),
    _partial("run_request", "worker", "id", where="request IS NOT NULL"),
    _partial("run_parent", "parent_id", "id", where="parent_id IS NOT NULL"),
    _partial("run_ended", "ended_at", where="ended_at IS NOT NULL"),
    _partial("run_trigger", "trigger_id", "ended_at", where="trigger_id IS NOT NULL"),
)

step = _table(
    "step",
    Column("run_id", _name(ID), primary_key=True),
    Column("path", _name(PATH), primary_key=True),
    Column("block_id", Integer, nullable=False),
    Column("name", _name(NAME), nullable=False),
    Column("type", _name(NAME), nullable=False),
    Column("state", _name(16), nullable=False),
    _count("attempt"),
    Column("started_at", Double),
    Column("ended_at", Double),
    Column("outputs", _long()),
    Column("progress", _long()),
    Column("order_id", _name(64)),
    Column("error", _long()),
    sqlite_with_rowid=False,
)

variable = _table(
    "variable",
    Column("run_id", _name(ID), primary_key=True),
    Column("name", _name(NAME), primary_key=True),
    Column("value", _long(), nullable=False),
    Column("source", _name(PATH)),
    sqlite_with_rowid=False,
)

waiter = _table(
    "waiter",
    Column("run_id", _name(ID), primary_key=True),
    Column("path", _name(PATH), primary_key=True),
    Column("kind", _name(8), nullable=False),
    Column("key", _name(NAME), nullable=False),
    Column("since", Double, nullable=False),
    Column("rank", Double, nullable=False),
    Column("due_at", Double),
    Column("reason", _long()),
    Column("want", _long()),
    Column("granted", _long()),
    _partial("waiter_queue", "kind", "key", "rank", "since", where="granted IS NULL"),
    _partial("waiter_granted", "run_id", where="granted IS NOT NULL"),
    sqlite_with_rowid=False,
)

site = _table(
    "site",
    Column("id", _name(NAME), primary_key=True),
    Column("sort_key", _name(NAME), nullable=False),
    Column("group_name", _name(NAME)),
    _count("order_no"),
    _flag("enabled", 1),
    _flag("filled"),
    Column("content", _name(NAME)),
    Column("locked_run", _name(NAME)),
    Column("locked_path", _name(PATH)),
    Column("locked_text", _name(NAME)),
    Column("locked_at", Double),
    Column("locked_mouth", SmallInteger),
    Column("lane", _name(NAME)),
    Column("depth", Integer),
    Column("mouths", SmallInteger),
    Column("tags", _long()),
    Column("attrs", _long()),
    Column("map_id", _name(NAME)),
    Column("x", Double),
    Column("y", Double),
    Column("updated_at", Double, nullable=False),
    Index("site_group", "group_name", "order_no", "sort_key"),
    Index("site_order", "order_no", "sort_key"),
    _partial("site_lane", "lane", "depth", where="lane IS NOT NULL"),
    _partial("site_owner", "locked_run", where="locked_run IS NOT NULL"),
)

site_change = _table(
    "site_change",
    _counter(),
    Column("at", Double, nullable=False),
    Column("site_id", _name(NAME), nullable=False),
    Column("run_id", _name(NAME)),
    Column("path", _name(PATH)),
    Column("change", _long(), nullable=False),
    Index("site_change_site", "site_id", "id"),
    Index("site_change_at", "at"),
)

event = _table(
    "event",
    _counter(),
    Column("at", Double, nullable=False),
    Column("name", _name(NAME), nullable=False),
    Column("data", _long()),
    Index("event_name", "name", "id"),
    Index("event_at", "at"),
)

log = _table(
    "log",
    _counter(),
    Column("run_id", _name(ID), nullable=False),
    Column("at", Double, nullable=False),
    Column("level", _name(16), nullable=False),
    Column("path", _name(PATH)),
    Column("message", _long(), nullable=False),
    Index("log_run", "run_id", "id"),
)

trigger = _table(
    "trigger",
    Column("id", _name(NAME), primary_key=True),
    Column("definition_id", _name(NAME), nullable=False),
    Column("kind", _name(8), nullable=False),
    Column("spec", _name(NAME), nullable=False),
    Column("inputs", _long()),
    _count("priority"),
    _flag("enabled", 1),
    Column("next_at", Double),
    Column("last_run_id", _name(ID)),
    Column("last_at", Double),
    _count("max_pending", 1),
    Index("trigger_next", "enabled", "next_at"),
    Index("trigger_kind", "kind", "spec"),
    Index("trigger_definition", "definition_id"),
)

worker = _table(
    "worker",
    Column("id", _name(ID), primary_key=True),
    Column("host", _name(NAME), nullable=False),
    Column("pid", Integer, nullable=False),
    Column("started_at", Double, nullable=False),
    Column("lease_at", Double, nullable=False),
    Column("batch", BigInteger, nullable=False, server_default=text("0")),
)

cache = _table(
    "cache",
    Column("key", _name(NAME), primary_key=True),
    Column("value", _long(), nullable=False),
    Column("bytes", Integer, nullable=False),
    Column("updated_at", Double, nullable=False),
    Index("cache_age", "updated_at"),
)

robot = _table(
    "robot",
    Column("id", _name(NAME), primary_key=True),
    Column("tags", _long()),
    Column("groups", _long()),
    Column("battery", Double),
    Column("station", _name(NAME)),
    Column("last_station", _name(NAME)),
    Column("state", _name(16), nullable=False),
    Column("locked_run", _name(ID)),
    Column("locked_path", _name(PATH)),
    Column("attrs", _long()),
    Column("updated_at", Double, nullable=False),
    _partial("robot_owner", "locked_run", where="locked_run IS NOT NULL"),
)

robot_order = _table(
    "robot_order",
    Column("id", _name(64), primary_key=True),
    Column("robot_id", _name(NAME), nullable=False),
    Column("run_id", _name(ID)),
    Column("path", _name(PATH)),
    Column("operation", _long(), nullable=False),
    Column("state", _name(16), nullable=False),
    Column("sent_at", Double),
    Column("ended_at", Double),
    Column("result", _long()),
    Index("robot_order_robot", "robot_id", "state"),
    Index("robot_order_run", "run_id"),
    _partial("robot_order_ended", "ended_at", where="ended_at IS NOT NULL"),
)
