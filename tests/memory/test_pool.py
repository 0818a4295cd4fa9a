"""Pools are found by themselves, with the figures of SQLAlchemy's own methods, and without a password."""

from __future__ import annotations

import gc
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

from sqlalchemy import create_engine
from sqlalchemy.pool import NullPool

from flatwater.memory.pool import Pool, pools


def here(name: str) -> Pool:
    (found,) = [pool for pool in pools() if pool.database.endswith(name)]
    return found


def test_a_pools_figures(tmp_path: Path) -> None:
    engine = create_engine(f"sqlite:///{tmp_path}/figures.db", pool_size=2, max_overflow=3, pool_recycle=600)
    idle = here("figures.db")
    assert idle == Pool("QueuePool", f"sqlite:///{tmp_path}/figures.db", 2, 0, 0, 0, 3, 600.0, 30.0)
    connections = [engine.connect() for _ in range(3)]
    assert here("figures.db") == replace(idle, checked_out=3, overflow=1)
    for connection in connections:
        connection.close()
    assert here("figures.db") == replace(idle, idle=2)
    engine.dispose()


def test_no_password_and_kinds_without_figures() -> None:
    engine = create_engine("postgresql+psycopg://boss:s3cret@127.0.0.1:5432/plant", poolclass=NullPool)
    found = here("plant")
    assert found == Pool("NullPool", "postgresql://127.0.0.1:5432/plant", None, None, None, None, None, None, None)
    assert "s3cret" not in str(pools())
    engine.dispose()


def test_a_dead_pool_is_not_listed(tmp_path: Path) -> None:
    create_engine(f"sqlite:///{tmp_path}/dead.db").dispose()
    gc.collect()
    assert not [pool for pool in pools() if pool.database.endswith("dead.db")]


def test_without_sqlalchemy_nothing_is_loaded() -> None:
    text = "import sys; from flatwater.memory.pool import pools; print(pools(), 'sqlalchemy' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", text], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout == "() False\n"
