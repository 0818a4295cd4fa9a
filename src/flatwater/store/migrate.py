"""Bring a database to the schema of this version. Alembic is imported only when there is something to migrate."""

from __future__ import annotations

from typing import Any

from sqlalchemy import create_engine, create_mock_engine, pool
from sqlalchemy.engine import Connection as SqlConnection

from flatwater.errors import StoreError
from flatwater.store import schema
from flatwater.store.dialect import Connection, Dialect, choose
from flatwater.store.migrations import HEAD

VERSION_TABLE = "alembic_version"
UNFINISHED = "none"
"""The revision of a database whose tables are being created, or were when somebody died (MariaDB undoes none)."""


def prepare(dialect: Dialect, connection: Connection) -> None:
    """Create the tables in an empty database; otherwise see that it has the right version.

    Raises:
        StoreError: another version, or a database of something else.
    """
    found = version(dialect, connection)
    if found in (None, UNFINISHED):
        found = _create(dialect, connection)
    if found != HEAD:
        older = found < HEAD
        hint = "run `flatwater db upgrade`" if older else "it was written by a newer Flatwater: use that one"
        raise StoreError(f"the database has schema {found}, this program needs {HEAD}", where=dialect.place, hint=hint)


def version(dialect: Dialect, connection: Connection) -> str | None:
    """The stored revision; None for an empty database."""
    tables = dialect.tables(connection)
    if VERSION_TABLE in tables:
        row = dialect.execute(connection, f"SELECT version_num FROM {VERSION_TABLE}", {}).fetchone()  # noqa: S608
        return str(row[0]) if row else UNFINISHED
    if tables:
        some = ", ".join(sorted(tables)[:3])
        raise StoreError(
            f"the database is of another program (tables {some}, …)", where=dialect.place, hint="give another path"
        )
    return None


def _create(dialect: Dialect, connection: Connection) -> str:
    """All tables at once, or none. Of several processes that come at the same time, one creates.

    The table of the version comes first and its row last: where others see each table as it comes, they see that
    this one is not done, and wait for it.
    """
    with dialect.exclusive(connection):
        found = version(dialect, connection)
        if found not in (None, UNFINISHED):
            return found
        if found is None:
            columns = "version_num VARCHAR(32) NOT NULL PRIMARY KEY"
            dialect.execute(connection, f"CREATE TABLE {VERSION_TABLE} ({columns})", {})
        else:
            _clear(dialect, connection)
        for statement in ddl(dialect):
            dialect.execute(connection, statement, {})
        dialect.execute(connection, f"INSERT INTO {VERSION_TABLE} VALUES ('{HEAD}')", {})  # noqa: S608
    return HEAD


def _clear(dialect: Dialect, connection: Connection) -> None:
    """Remove the empty tables that an unfinished creation has left. Raises StoreError when one is not empty."""
    for table in sorted(dialect.tables(connection) & schema.metadata.tables.keys()):
        name = dialect.sql.identifier_preparer.quote(table)
        if dialect.execute(connection, f"SELECT 1 FROM {name} LIMIT 1", {}).fetchone():  # noqa: S608
            raise StoreError(
                f"the database has no version, but rows in {table}", where=dialect.place, hint="restore a backup"
            )
        dialect.execute(connection, f"DROP TABLE {name}", {})


def ddl(dialect: Dialect) -> list[str]:
    """The statements that create every table and index."""
    statements: list[str] = []
    engine = create_mock_engine(dialect.url, lambda clause, *_, **__: statements.append(_text(clause, dialect)))
    schema.metadata.create_all(engine, checkfirst=False)
    return statements


def _text(clause: Any, dialect: Dialect) -> str:
    return str(clause.compile(dialect=dialect.sql))


def upgrade(url: str) -> str:
    """Apply all missing migrations; returns the revision reached.

    Raises:
        StoreError: the database cannot be opened or is of another program.
    """
    from alembic import command

    dialect = choose(url)
    connection = dialect.connect()
    try:
        if version(dialect, connection) is None:
            return _create(dialect, connection)
    finally:
        dialect.close(connection)
    with _engine(dialect) as sql_connection:
        command.upgrade(_config(sql_connection), "head")
    return HEAD


def check(url: str) -> list[str]:
    """How the database's tables differ from this version's, [] when they do not."""
    from alembic.autogenerate import compare_metadata
    from alembic.migration import MigrationContext

    dialect = choose(url)
    path = getattr(dialect, "path", None)  # of a file that a look must not create
    if path is not None and not path.exists():
        return [f"there is no {path}"]
    dialect.close(dialect.connect())  # says clearly what is wrong with a damaged file
    with _engine(dialect) as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        return [_told(difference) for difference in compare_metadata(context, schema.metadata)]


_SENTENCES = {
    "add_table": "table {} is missing",
    "remove_table": "table {} is not known",
    "add_index": "index {} is missing",
    "remove_index": "index {} is not known",
    "add_column": "column {} is missing",
    "remove_column": "column {} is not known",
}


def _told(difference: Any) -> str:
    """One difference that Alembic found, as a sentence."""
    if isinstance(difference, list):
        return "; ".join(_told(each) for each in difference)
    sentence = _SENTENCES.get(difference[0])
    thing = difference[-1]
    if sentence is None or not hasattr(thing, "name"):
        return " ".join(str(part) for part in difference if isinstance(part, str))
    table = f"{thing.table.name}." if "column" in difference[0] else ""
    return sentence.format(f"{table}{thing.name}")


class _engine:  # noqa: N801 - a context manager used like a function
    """A connection of SQLAlchemy's own, which Alembic wants."""

    def __init__(self, dialect: Dialect) -> None:
        url = dialect.url
        self._engine = create_engine(url, poolclass=pool.NullPool)

    def __enter__(self) -> SqlConnection:
        self._connection = self._engine.connect()
        return self._connection

    def __exit__(self, *_: object) -> None:
        self._connection.commit()
        self._connection.close()
        self._engine.dispose()


def _config(connection: SqlConnection) -> Any:
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", "flatwater.store:migrations")
    config.attributes["connection"] = connection
    return config
