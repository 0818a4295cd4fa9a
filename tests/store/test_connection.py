"""`flatwater db connections`: of any database, changing nothing in it."""

from __future__ import annotations

import json
import os
import sqlite3
import subprocess
import sys
from pathlib import Path

import psycopg
import pytest

from flatwater.errors import StoreError
from flatwater.store.connection import connections


def cli(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "flatwater.cli", "db", "connections", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)


def test_a_servers_connections(postgres_url: str) -> None:
    plain = postgres_url.replace("postgresql+psycopg", "postgresql")
    with psycopg.connect(plain, autocommit=True) as connection:
        connection.execute("SELECT 1")
        pid = str(connection.info.backend_pid)
        assert [row.who.split()[-1] for row in connections(postgres_url)] == [pid], "and not the one that asks"
        assert connections(postgres_url, older_than_s=3600) == []
        (row,) = json.loads(cli(postgres_url, "--json").stdout)
        assert row["who"].endswith(pid)
        assert row["what"].startswith("idle: SELECT 1")
        assert cli(postgres_url).stderr.startswith("1 connections, 0 of them")


def test_mariadb(mariadb_url: str) -> None:
    assert connections(mariadb_url) == []


def test_a_files_processes_and_the_file_stays_as_it_is(tmp_path: Path) -> None:
    file = tmp_path / "foreign.db"
    with sqlite3.connect(file) as connection:
        connection.execute("CREATE TABLE t (x)")
    before = file.read_bytes()
    (row,) = json.loads(cli(str(file), "--json").stdout)
    assert row["who"].endswith(f" {os.getpid()}")
    assert row["what"] == "1 open file"
    connection.close()
    assert connections(str(file)) == []
    assert file.read_bytes() == before


def test_what_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="does not exist"):
        connections(str(tmp_path / "no.db"))
    answer = cli("oracle://x/y")
    assert answer.returncode == 1
    assert "not known" in answer.stderr
