"""Real databases for tests: ``postgres_url``, ``mariadb_url``, ``redis_url``, each a fresh database, dropped after.

They are looked for on loopback at their standard ports. Where nobody answers, a private server is started from the
installed binaries for the length of the session. Without those the test is skipped with the reason; in CI it fails.
"""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import socket
import subprocess
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg
import pymysql
import pytest
import redis

from tests import leak

HOST = "127.0.0.1"
START_TIMEOUT_S = 60.0


class ServiceUnavailable(Exception):
    """The service does not answer and cannot be started."""


class Server:
    """A private server in a temporary folder, on a free port; ``stop`` ends it and removes the folder."""

    def __init__(self, program: str, account: str | None = None) -> None:
        self.program = find_program(program)
        self.port = free_port()
        # A server that refuses to be root runs under its own account, and its folder belongs to that account.
        self.account = account if account and os.getuid() == 0 else None
        self.folder = Path(tempfile.mkdtemp(prefix="flatwater-test-"))
        if self.account:
            shutil.chown(self.folder, self.account)
        self._process: subprocess.Popen[bytes] | None = None

    def prepare(self, *command: str) -> None:
        """Run a command that makes the data folder."""
        done = subprocess.run(command, cwd=self.folder, capture_output=True, text=True, check=False, **self._identity())
        if done.returncode:
            self.stop()
            raise ServiceUnavailable(f"{command[0]} failed: {(done.stderr or done.stdout).strip()[-500:]}")

    def start(self, *arguments: str) -> None:
        log = self.folder / "server.log"
        with log.open("wb") as output:
            self._process = subprocess.Popen(
                [self.program, *arguments],
                cwd=self.folder,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                **self._identity(),
            )
        leak.lasting_children.add(self._process.pid)
        deadline = time.monotonic() + START_TIMEOUT_S
        while not answers(self.port):
            if self._process.poll() is not None or time.monotonic() > deadline:
                told = log.read_text(errors="replace").strip()[-500:]
                self.stop()
                raise ServiceUnavailable(f"{self.program} did not start: {told}")
            time.sleep(0.05)

    def stop(self) -> None:
        if self._process is not None:
            self._process.terminate()
            try:
                self._process.wait(15)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
            leak.lasting_children.discard(self._process.pid)
        shutil.rmtree(self.folder, ignore_errors=True)

    def _identity(self) -> dict[str, Any]:
        return {"user": self.account, "group": self.account, "extra_groups": []} if self.account else {}


def find_program(name: str) -> str:
    """The path of a server's program; Debian keeps PostgreSQL's out of the path."""
    places = [shutil.which(name), *sorted(map(str, Path("/usr/lib/postgresql").glob(f"*/bin/{name}")), reverse=True)]
    places.append(shutil.which(name, path="/usr/sbin:/usr/local/sbin:/usr/libexec"))
    found = next((place for place in places if place), None)
    if found is None:
        raise ServiceUnavailable(f"nobody answers on its port and the program {name!r} is not installed")
    return found


def free_port() -> int:
    with socket.create_server((HOST, 0)) as listener:
        return int(listener.getsockname()[1])


def answers(port: int) -> bool:
    try:
        socket.create_connection((HOST, port), timeout=2).close()
    except OSError:
        return False
    return True


def has_account(name: str) -> bool:
    try:
        pwd.getpwnam(name)
    except KeyError:
        return False
    return True


def start_postgres() -> Server:
    server = Server("postgres", "postgres" if has_account("postgres") else None)
    data = str(server.folder / "data")
    initdb = str(Path(server.program).with_name("initdb"))  # of the same version
    server.prepare(initdb, "-D", data, "-U", "postgres", "-A", "trust", "--no-sync")
    server.start("-D", data, "-h", HOST, "-p", str(server.port), "-k", str(server.folder), "-c", "fsync=off")
    return server


def start_mariadb() -> Server:
    server = Server("mariadbd", "mysql" if has_account("mysql") else None)
    data, socket_path = f"--datadir={server.folder}/data", f"--socket={server.folder}/server.sock"
    install = find_program("mariadb-install-db")
    server.prepare(install, "--no-defaults", data, "--auth-root-authentication-method=normal", "--skip-test-db")
    server.start("--no-defaults", data, socket_path, f"--bind-address={HOST}", f"--port={server.port}")
    return server


def start_redis() -> Server:
    server = Server("redis-server")
    options = {"bind": HOST, "port": str(server.port), "save": "", "appendonly": "no", "dir": str(server.folder)}
    server.start(*(word for key, value in options.items() for word in (f"--{key}", value)))
    return server


def serve(port: int, start: Callable[[], Server]) -> Iterator[int]:
    """The port of a running server: the machine's, or a private one for the length of the session."""
    if answers(port):
        yield port
        return
    try:
        server = start()
    except ServiceUnavailable as error:
        (pytest.fail if os.environ.get("CI") else pytest.skip)(str(error))
    try:
        yield server.port
    finally:
        server.stop()


@pytest.fixture(scope="session")
def postgres_port() -> Iterator[int]:
    yield from serve(5432, start_postgres)


@pytest.fixture(scope="session")
def mariadb_port() -> Iterator[int]:
    yield from serve(3306, start_mariadb)


@pytest.fixture(scope="session")
def redis_port() -> Iterator[int]:
    yield from serve(6379, start_redis)


def fresh_name() -> str:
    return f"flatwater_test_{uuid.uuid4().hex[:12]}"


@pytest.fixture
def postgres_url(postgres_port: int) -> Iterator[str]:
    """A SQLAlchemy URL of a fresh PostgreSQL database."""
    name = fresh_name()
    with psycopg.connect(host=HOST, port=postgres_port, user="postgres", autocommit=True) as connection:
        connection.execute(f'CREATE DATABASE "{name}"')
    yield f"postgresql+psycopg://postgres@{HOST}:{postgres_port}/{name}"
    with psycopg.connect(host=HOST, port=postgres_port, user="postgres", autocommit=True) as connection:
        connection.execute(f'DROP DATABASE "{name}" WITH (FORCE)')


@pytest.fixture
def mariadb_url(mariadb_port: int) -> Iterator[str]:
    """A SQLAlchemy URL of a fresh MariaDB database."""
    name = fresh_name()
    with contextlib.closing(pymysql.connect(host=HOST, port=mariadb_port, user="root")) as connection:
        connection.cursor().execute(f"CREATE DATABASE `{name}` CHARACTER SET utf8mb4")
    yield f"mysql+pymysql://root@{HOST}:{mariadb_port}/{name}?charset=utf8mb4"
    with contextlib.closing(pymysql.connect(host=HOST, port=mariadb_port, user="root")) as connection:
        connection.cursor().execute(f"DROP DATABASE `{name}`")


@pytest.fixture
def redis_url(redis_port: int) -> Iterator[str]:
    """The URL of an empty numbered Redis database, emptied again after."""
    for number in range(15, 0, -1):
        with contextlib.closing(redis.Redis(host=HOST, port=redis_port, db=number)) as client:
            if client.dbsize() or not client.set("flatwater-test", os.getpid(), nx=True):
                continue
            yield f"redis://{HOST}:{redis_port}/{number}"
            client.flushdb()
            return
    pytest.fail("no numbered Redis database is empty; look at what is in 1 … 15")
