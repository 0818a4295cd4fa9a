"""The connections that a database has, of whatever program."""

from __future__ import annotations

import msgspec

from flatwater.store.dialect import choose


class DatabaseConnection(msgspec.Struct, frozen=True):
    """``who`` (user or program, and its number), what it does, and for how many seconds it has been doing that.

    Of a SQLite file ``who`` is a process that has it open, and ``seconds`` the age of that process.
    """

    who: str
    what: str
    seconds: float


def connections(url: str, *, older_than_s: float = 0.0) -> list[DatabaseConnection]:
    """The connections to the database at ``url``, our own excluded, the longest unchanged first.

    Raises:
        SettingError: not a database URL, or its driver is missing.
        StoreError: the database cannot be reached or asked.
    """
    found = [DatabaseConnection(*row) for row in choose(url).survey() if row[2] >= older_than_s]
    return sorted(found, key=lambda row: -row.seconds)
