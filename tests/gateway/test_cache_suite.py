"""The public cache conformance suite, where it was fetched:

git clone https://github.com/http-tests/cache-tests && (cd cache-tests && npm install undici)
CACHE_TESTS=cache-tests pytest tests/gateway/test_cache_suite.py       # about a minute
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SUITE = os.environ.get("CACHE_TESTS", "")


@pytest.mark.skipif(not SUITE, reason="CACHE_TESTS does not say where the suite is")
@pytest.mark.timeout(600)
def test_targets_are_held() -> None:
    command = [sys.executable, "benchmarks/conformance.py", str(Path(SUITE).resolve()), "--targets"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
