"""A short run of benchmarks/gateway_chaos.py: every request is answered, and nothing is left at rest.

The long one: python benchmarks/gateway_chaos.py --requests 200000
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.figure import FIGURES

PROGRAM = Path(__file__).parents[2] / "benchmarks" / "gateway_chaos.py"


@pytest.mark.timeout(300)
def test_upstreams_and_clients_that_come_and_go(pytestconfig: pytest.Config) -> None:
    done = subprocess.run(
        [sys.executable, str(PROGRAM), "--requests", "1500"], capture_output=True, text=True, check=False, timeout=280
    )
    assert done.returncode == 0, done.stdout + done.stderr
    pytestconfig.stash.setdefault(FIGURES, []).append("gateway chaos: " + done.stdout.splitlines()[0])
