"""From a URL to its dialect. Drivers are imported only when asked for."""

from __future__ import annotations

from pathlib import Path

from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError

from flatwater.errors import SettingError
from flatwater.store.dialect.base import Dialect

_HINT = "sqlite:///path/to/file.db, postgresql://user@host/database or mysql://user@host/database"


def choose(url: str, *, busy_timeout_s: float = 5.0) -> Dialect:
    """The dialect for a URL; text without `://` is the path of a SQLite file.

    Raises:
        SettingError: a database that is not known, a driver that is not installed, or SQLite in memory.
    """
    parsed = _parse(url)
    backend = parsed.get_backend_name()
    if backend == "sqlite":
        from flatwater.store.dialect.sqlite import Sqlite

        return Sqlite(_file(parsed), busy_timeout_s)
    try:
        if backend == "postgresql":
            from flatwater.store.dialect.postgres import Postgres

            return Postgres(parsed, busy_timeout_s)
        if backend in ("mysql", "mariadb"):
            from flatwater.store.dialect.mysql import Mysql

            return Mysql(parsed, busy_timeout_s)
    except ImportError as error:
        extra = "postgres" if backend == "postgresql" else "mysql"
        raise SettingError(
            f"the driver of {backend} is missing ({error.name})", hint=f"pip install 'flatwater[{extra}]'"
        ) from None
    raise SettingError(f"the database {backend!r} is not known", hint=_HINT)


def _parse(url: str) -> URL:
    if "://" not in url:
        return URL.create("sqlite", database=url)
    try:
        return make_url(url)
    except (ArgumentError, ValueError):
        raise SettingError(f"{url!r} is not a database URL", hint=_HINT) from None


def _file(url: URL) -> URL:
    database = url.database or ""
    if database in ("", ":memory:") or "mode=memory" in database:
        raise SettingError(
            "a SQLite database in memory is refused: nothing would survive a restart, and readers could not see it",
            hint="give a path, e.g. sqlite:///flatwater.db",
        )
    return url.set(database=str(Path(database).absolute()))
