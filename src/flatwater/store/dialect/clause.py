"""SQLAlchemy constructs that every database spells differently."""

# ruff: noqa: S608 - names come from the schema, values are parameters
from __future__ import annotations

from typing import Any

from sqlalchemy import BindParameter, Boolean, ColumnElement, bindparam
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.compiler import SQLCompiler


class Members(ColumnElement[bool]):
    """`column` is one of the list given as parameter `name`: one statement for lists of any length."""

    inherit_cache = False
    type = Boolean()

    def __init__(self, column: ColumnElement[Any], name: str) -> None:
        self.column = column
        self.parameter: BindParameter[Any] = bindparam(name)

    def self_group(self, against: Any = None) -> Members:
        """As it is: SQLAlchemy would write ``… = 1`` behind it, with which no index is used."""
        return self


def members(column: ColumnElement[Any], name: str) -> ColumnElement[bool]:
    """True where `column` is in the list of texts passed as parameter `name`."""
    return Members(column, name)


def _parts(element: Members, compiler: SQLCompiler) -> tuple[str, str]:
    return compiler.process(element.column), compiler.process(element.parameter)


@compiles(Members, "sqlite")
def _sqlite(element: Members, compiler: SQLCompiler, **_: Any) -> str:
    column, parameter = _parts(element, compiler)
    return f"{column} IN (SELECT value FROM json_each({parameter}))"


@compiles(Members, "postgresql")
def _postgres(element: Members, compiler: SQLCompiler, **_: Any) -> str:
    column, parameter = _parts(element, compiler)
    return f"{column} = ANY(CAST({parameter} AS text[]))"


@compiles(Members, "mysql")
def _mysql(element: Members, compiler: SQLCompiler, **_: Any) -> str:
    column, parameter = _parts(element, compiler)
    return f"{column} IN (SELECT item.v FROM JSON_TABLE({parameter}, '$[*]' COLUMNS (v VARCHAR(640) PATH '$')) AS item)"
