"""Programs of examples/leaks as processes of their own, and what ``flatwater diagnose`` says of them from outside."""

from __future__ import annotations

import contextlib
import json
import os
import re
import subprocess
import sys
import threading
import time
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

LEAKS = Path(__file__).parents[2] / "examples" / "leaks"
EXPECTED: dict[str, dict[str, Any]] = tomllib.loads((LEAKS / "expected.toml").read_text("utf-8"))
PYTHON = os.environ.get("GALLERY_PYTHON", sys.executable)
"""What runs the programs; another one may be of another version, without Flatwater."""
START_TIMEOUT_S = 60.0
WARM_UP_S = 1.5
"""What a program may take to fill its bounded holders."""


@contextlib.contextmanager
def running(name: str, *words: str) -> Iterator[int]:
    """The process id that the program says it leaks in."""
    command = [PYTHON, str(LEAKS / f"{name}.py"), *words]
    program = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    assert program.stdout is not None
    too_late = threading.Timer(START_TIMEOUT_S, program.terminate)
    too_late.start()
    try:
        told = (re.match(r"ready (\d+)", line) for line in program.stdout)
        pid = next((int(found[1]) for found in told if found), None)
        assert pid is not None, f"{name} did not say ready"
        time.sleep(WARM_UP_S)
        yield pid
    finally:
        too_late.cancel()
        too_late.join()
        program.terminate()
        try:
            program.wait(20)
        except subprocess.TimeoutExpired:
            program.kill()
            program.wait()
        program.stdout.close()


def diagnosed(name: str, *words: str, seconds: float) -> dict[str, Any]:
    """The JSON of ``flatwater diagnose`` on the running program; raises AssertionError with what it printed else."""
    with running(name, *words) as pid:
        command = [sys.executable, "-m", "flatwater.cli", "diagnose", str(pid), "--for", f"{seconds:g}s", "--json"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=seconds + 90, check=False)
    assert done.stdout.startswith("{"), f"exit {done.returncode}: {done.stdout}{done.stderr}"
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


def marked(name: str, word: str) -> set[tuple[str, int]]:
    """The lines of the program (or of the file that holds its leak) with the comment ``WORD here``."""
    file = LEAKS / EXPECTED[name].get("marked_in", f"{name}.py")
    lines = enumerate(file.read_text("utf-8").splitlines(), 1)
    return {(str(file), number) for number, line in lines if f"{word} here" in line.partition("#")[2]}


def faults(name: str, answer: dict[str, Any]) -> list[str]:
    """What the answer lacks of what ``expected.toml`` and the marks of the program demand."""
    expected = EXPECTED[name]
    kind, wanted = answer["verdict"]["kind"], expected.get("verdict", "python-objects")
    found = [] if kind == wanted else [f"verdict {kind}, not {wanted}: {answer['verdict']['reason']}"]
    if not answer["verdict"]["growing"]:
        found.append("does not grow")
    if "owner" not in expected:
        return found
    if not answer["suspects"]:
        return [*found, "no suspect"]
    return [*found, *_faults_of(name, expected, answer["suspects"][0])]


def _faults_of(name: str, expected: dict[str, Any], suspect: dict[str, Any]) -> Iterator[str]:
    path, type_ = suspect["container"]["path"], suspect["container"]["type"].rpartition(".")[2]
    if not re.search(".*".join(map(re.escape, expected["owner"])), path):
        yield f"owner {path}, not {expected['owner']}"
    if type_ != expected.get("type", type_):
        yield f"a {type_}, not a {expected['type']}"
    advice = (suspect["advice"] or {}).get("key")
    if advice != expected.get("advice", advice):
        yield f"advice {advice}, not {expected['advice']}"
    for key in ("allocated", "inserted"):
        told = {(place["file"], place["line"]) for place in suspect[f"{key}_at"][:3]}
        lines = marked(name, key)
        if lines and not told & lines and not (key == "inserted" and suspect["what"] == "type"):
            yield f"{key} at {sorted(told)}, not {sorted(lines)}"
