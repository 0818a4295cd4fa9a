"""The first schema: every table.

Revision ID: 0001
"""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import mysql, postgresql
from sqlalchemy.types import TypeEngine

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

_MYSQL: dict[str, Any] = {"mysql_charset": "utf8mb4", "mysql_collate": "utf8mb4_bin", "mysql_engine": "InnoDB"}


def _name(length: int) -> TypeEngine[str]:
    return sa.String(length).with_variant(postgresql.VARCHAR(length, collation="C"), "postgresql")


def _long() -> TypeEngine[str]:
    return sa.Text().with_variant(mysql.LONGTEXT(), "mysql", "mariadb")


def _counter() -> TypeEngine[int]:
    return sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def _where(condition: str) -> dict[str, Any]:
    return {"sqlite_where": sa.text(condition), "postgresql_where": sa.text(condition)}


def upgrade() -> None:
    for create in (
        _cache,
        _definition,
        _event,
        _log,
        _robot,
        _robot_order,
        _run,
        _site,
        _site_change,
        _snapshot,
        _step,
        _trigger,
        _variable,
        _waiter,
        _worker,
    ):
        create()


def downgrade() -> None:
    for table in (
        "worker",
        "waiter",
        "variable",
        "trigger",
        "step",
        "snapshot",
        "site_change",
        "site",
        "run",
        "robot_order",
        "robot",
        "log",
        "event",
        "definition",
        "cache",
    ):
        op.drop_table(table)


def _cache() -> None:
    op.create_table(
        "cache",
        sa.Column("key", _name(255), nullable=False),
        sa.Column("value", _long(), nullable=False),
        sa.Column("bytes", sa.Integer(), nullable=False),
        sa.Column("updated_at", sa.Double(), nullable=False),
        sa.PrimaryKeyConstraint("key"),
        **_MYSQL,
    )
    op.create_index("cache_age", "cache", ["updated_at"])


def _definition() -> None:
    op.create_table(
        "definition",
        sa.Column("id", _name(255), nullable=False),
        sa.Column("label", _name(255), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("hash", _name(64), nullable=False),
        sa.Column("remark", _long(), nullable=True),
        sa.Column("enabled", sa.SmallInteger(), server_default=sa.text("1"), nullable=False),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.Column("updated_at", sa.Double(), nullable=False),
        sa.PrimaryKeyConstraint("id"),
        **_MYSQL,
    )
    op.create_index("definition_hash", "definition", ["hash"])
    op.create_index("definition_label", "definition", ["label", "id"])


def _event() -> None:
    op.create_table(
        "event",
        sa.Column("id", _counter(), autoincrement=True, nullable=False),
        sa.Column("at", sa.Double(), nullable=False),
        sa.Column("name", _name(255), nullable=False),
        sa.Column("data", _long(), nullable=True),
        sa.PrimaryKeyConstraint("id"),
        **_MYSQL,
    )
    op.create_index("event_at", "event", ["at"])
    op.create_index("event_name", "event", ["name", "id"])


def _log() -> None:
    op.create_table(
        "log",
        sa.Column("id", _counter(), autoincrement=True, nullable=False),
        sa.Column("run_id", _name(26), nullable=False),
        sa.Column("at", sa.Double(), nullable=False),
        sa.Column("level", _name(16), nullable=False),
        sa.Column("path", _name(640), nullable=True),
        sa.Column("message", _long(), nullable=False),
        sa.PrimaryKeyConstraint("id"),
        **_MYSQL,
    )
    op.create_index("log_run", "log", ["run_id", "id"])


def _robot() -> None:
    op.create_table(
        "robot",
        sa.Column("id", _name(255), nullable=False),
        sa.Column("tags", _long(), nullable=True),
        sa.Column("groups", _long(), nullable=True),
        sa.Column("battery", sa.Double(), nullable=True),
        sa.Column("station", _name(255), nullable=True),
        sa.Column("last_station", _name(255), nullable=True),
        sa.Column("state", _name(16), nullable=False),
        sa.Column("locked_run", _name(26), nullable=True),
        sa.Column("locked_path", _name(640), nullable=True),
        sa.Column("attrs", _long(), nullable=True),
        sa.Column("updated_at", sa.Double(), nullable=False),
        sa.PrimaryKeyConstraint("id"),
        **_MYSQL,
    )
    op.create_index("robot_owner", "robot", ["locked_run"], **_where("locked_run IS NOT NULL"))


def _robot_order() -> None:
    op.create_table(
        "robot_order",
        sa.Column("id", _name(64), nullable=False),
        sa.Column("robot_id", _name(255), nullable=False),
        sa.Column("run_id", _name(26), nullable=True),
        sa.Column("path", _name(640), nullable=True),
        sa.Column("operation", _long(), nullable=False),
        sa.Column("state", _name(16), nullable=False),
        sa.Column("sent_at", sa.Double(), nullable=True),
        sa.Column("ended_at", sa.Double(), nullable=True),
        sa.Column("result", _long(), nullable=True),
        sa.PrimaryKeyConstraint("id"),
        **_MYSQL,
    )
    op.create_index("robot_order_ended", "robot_order", ["ended_at"], **_where("ended_at IS NOT NULL"))
    op.create_index("robot_order_robot", "robot_order", ["robot_id", "state"])
    op.create_index("robot_order_run", "robot_order", ["run_id"])


def _run() -> None:
    op.create_table(
        "run",
        sa.Column("id", _name(26), nullable=False),
        sa.Column("definition_id", _name(255), nullable=False),
        sa.Column("label", _name(255), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("hash", _name(64), nullable=False),
        sa.Column("state", _name(16), nullable=False),
        sa.Column("queue", _name(8), nullable=True),
        sa.Column("rank", sa.Double(), nullable=False),
        sa.Column("due_at", sa.Double(), nullable=True),
        sa.Column("priority", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.Column("started_at", sa.Double(), nullable=True),
        sa.Column("ended_at", sa.Double(), nullable=True),
        sa.Column("deadline_at", sa.Double(), nullable=True),
        sa.Column("epoch", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("worker", _name(26), nullable=True),
        sa.Column("request", _name(8), nullable=True),
        sa.Column("inputs", _long(), nullable=True),
        sa.Column("outputs", _long(), nullable=True),
        sa.Column("response", _long(), nullable=True),
        sa.Column("error", _long(), nullable=True),
        sa.Column("error_path", _name(640), nullable=True),
        sa.Column("error_kind", _name(64), nullable=True),
        sa.Column("attempt", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("policy", _long(), nullable=True),
        sa.Column("out_order_no", _name(255), nullable=True),
        sa.Column("parent_id", _name(26), nullable=True),
        sa.Column("parent_path", _name(640), nullable=True),
        sa.Column("depth", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("state_message", _long(), nullable=True),
        sa.Column("wait", _long(), nullable=True),
        sa.Column("locked", sa.SmallInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("trigger_id", _name(255), nullable=True),
        sa.PrimaryKeyConstraint("id"),
        **_MYSQL,
    )
    op.create_index("run_definition", "run", ["definition_id", "state", "id"])
    op.create_index("run_due", "run", ["queue", "due_at"], **_where("queue = 'due'"))
    op.create_index("run_ended", "run", ["ended_at"], **_where("ended_at IS NOT NULL"))
    op.create_index("run_hash", "run", ["hash"])
    op.create_index("run_label", "run", ["label", "state", "id"])
    op.create_index("run_out_order_no", "run", ["out_order_no"], unique=True)
    op.create_index("run_parent", "run", ["parent_id", "id"], **_where("parent_id IS NOT NULL"))
    op.create_index("run_ready", "run", ["queue", "rank", "id"], **_where("queue = 'ready'"))
    op.create_index("run_request", "run", ["worker", "id"], **_where("request IS NOT NULL"))
    op.create_index("run_state", "run", ["state", "id"])
    op.create_index("run_trigger", "run", ["trigger_id", "ended_at"], **_where("trigger_id IS NOT NULL"))
    op.create_index("run_worker", "run", ["worker"], **_where("worker IS NOT NULL"))


def _site() -> None:
    op.create_table(
        "site",
        sa.Column("id", _name(255), nullable=False),
        sa.Column("sort_key", _name(255), nullable=False),
        sa.Column("group_name", _name(255), nullable=True),
        sa.Column("order_no", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("enabled", sa.SmallInteger(), server_default=sa.text("1"), nullable=False),
        sa.Column("filled", sa.SmallInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("content", _name(255), nullable=True),
        sa.Column("locked_run", _name(255), nullable=True),
        sa.Column("locked_path", _name(640), nullable=True),
        sa.Column("locked_text", _name(255), nullable=True),
        sa.Column("locked_at", sa.Double(), nullable=True),
        sa.Column("locked_mouth", sa.SmallInteger(), nullable=True),
        sa.Column("lane", _name(255), nullable=True),
        sa.Column("depth", sa.Integer(), nullable=True),
        sa.Column("mouths", sa.SmallInteger(), nullable=True),
        sa.Column("tags", _long(), nullable=True),
        sa.Column("attrs", _long(), nullable=True),
        sa.Column("map_id", _name(255), nullable=True),
        sa.Column("x", sa.Double(), nullable=True),
        sa.Column("y", sa.Double(), nullable=True),
        sa.Column("updated_at", sa.Double(), nullable=False),
        sa.PrimaryKeyConstraint("id"),
        **_MYSQL,
    )
    op.create_index("site_group", "site", ["group_name", "order_no", "sort_key"])
    op.create_index("site_lane", "site", ["lane", "depth"], **_where("lane IS NOT NULL"))
    op.create_index("site_order", "site", ["order_no", "sort_key"])
    op.create_index("site_owner", "site", ["locked_run"], **_where("locked_run IS NOT NULL"))


def _site_change() -> None:
    op.create_table(
        "site_change",
        sa.Column("id", _counter(), autoincrement=True, nullable=False),
        sa.Column("at", sa.Double(), nullable=False),
        sa.Column("site_id", _name(255), nullable=False),
        sa.Column("run_id", _name(255), nullable=True),
        sa.Column("path", _name(640), nullable=True),
        sa.Column("change", _long(), nullable=False),
        sa.PrimaryKeyConstraint("id"),
        **_MYSQL,
    )
    op.create_index("site_change_at", "site_change", ["at"])
    op.create_index("site_change_site", "site_change", ["site_id", "id"])


def _snapshot() -> None:
    op.create_table(
        "snapshot",
        sa.Column("hash", _name(64), nullable=False),
        sa.Column("body", _long(), nullable=False),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.PrimaryKeyConstraint("hash"),
        **_MYSQL,
    )


def _step() -> None:
    op.create_table(
        "step",
        sa.Column("run_id", _name(26), nullable=False),
        sa.Column("path", _name(640), nullable=False),
        sa.Column("block_id", sa.Integer(), nullable=False),
        sa.Column("name", _name(255), nullable=False),
        sa.Column("type", _name(255), nullable=False),
        sa.Column("state", _name(16), nullable=False),
        sa.Column("attempt", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("started_at", sa.Double(), nullable=True),
        sa.Column("ended_at", sa.Double(), nullable=True),
        sa.Column("outputs", _long(), nullable=True),
        sa.Column("progress", _long(), nullable=True),
        sa.Column("order_id", _name(64), nullable=True),
        sa.Column("error", _long(), nullable=True),
        sa.PrimaryKeyConstraint("run_id", "path"),
        **_MYSQL,
        sqlite_with_rowid=False,
    )


def _trigger() -> None:
    op.create_table(
        "trigger",
        sa.Column("id", _name(255), nullable=False),
        sa.Column("definition_id", _name(255), nullable=False),
        sa.Column("kind", _name(8), nullable=False),
        sa.Column("spec", _name(255), nullable=False),
        sa.Column("inputs", _long(), nullable=True),
        sa.Column("priority", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("enabled", sa.SmallInteger(), server_default=sa.text("1"), nullable=False),
        sa.Column("next_at", sa.Double(), nullable=True),
        sa.Column("last_run_id", _name(26), nullable=True),
        sa.Column("last_at", sa.Double(), nullable=True),
        sa.Column("max_pending", sa.Integer(), server_default=sa.text("1"), nullable=False),
        sa.PrimaryKeyConstraint("id"),
        **_MYSQL,
    )
    op.create_index("trigger_definition", "trigger", ["definition_id"])
    op.create_index("trigger_kind", "trigger", ["kind", "spec"])
    op.create_index("trigger_next", "trigger", ["enabled", "next_at"])


def _variable() -> None:
    op.create_table(
        "variable",
        sa.Column("run_id", _name(26), nullable=False),
        sa.Column("name", _name(255), nullable=False),
        sa.Column("value", _long(), nullable=False),
        sa.Column("source", _name(640), nullable=True),
        sa.PrimaryKeyConstraint("run_id", "name"),
        **_MYSQL,
        sqlite_with_rowid=False,
    )


def _waiter() -> None:
    op.create_table(
        "waiter",
        sa.Column("run_id", _name(26), nullable=False),
        sa.Column("path", _name(640), nullable=False),
        sa.Column("kind", _name(8), nullable=False),
        sa.Column("key", _name(255), nullable=False),
        sa.Column("since", sa.Double(), nullable=False),
        sa.Column("rank", sa.Double(), nullable=False),
        sa.Column("due_at", sa.Double(), nullable=True),
        sa.Column("reason", _long(), nullable=True),
        sa.Column("want", _long(), nullable=True),
        sa.Column("granted", _long(), nullable=True),
        sa.PrimaryKeyConstraint("run_id", "path"),
        **_MYSQL,
        sqlite_with_rowid=False,
    )
    op.create_index("waiter_granted", "waiter", ["run_id"], **_where("granted IS NOT NULL"))
    op.create_index("waiter_queue", "waiter", ["kind", "key", "rank", "since"], **_where("granted IS NULL"))


def _worker() -> None:
    op.create_table(
        "worker",
        sa.Column("id", _name(26), nullable=False),
        sa.Column("host", _name(255), nullable=False),
        sa.Column("pid", sa.Integer(), nullable=False),
        sa.Column("started_at", sa.Double(), nullable=False),
        sa.Column("lease_at", sa.Double(), nullable=False),
        sa.Column("batch", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.PrimaryKeyConstraint("id"),
        **_MYSQL,
    )
