"""Alembic runs this; the connection comes from `migrate.upgrade`."""

from __future__ import annotations

from alembic import context

from flatwater.store import schema

connection = context.config.attributes["connection"]
# SQLite cannot alter much in place: there Alembic copies the table.
batch = connection.dialect.name == "sqlite"
context.configure(connection=connection, target_metadata=schema.metadata, render_as_batch=batch)
with context.begin_transaction():
    context.run_migrations()
