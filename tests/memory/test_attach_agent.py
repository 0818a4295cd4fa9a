"""Agents that a program has from the start: flatwater exec, FLATWATER_AGENT, import flatwater.agent."""

import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from tests.live.target import Program, pythons

from flatwater.memory import target
from flatwater.memory.attach import attach

EXEC = [sys.executable, "-m", "flatwater.cli", "exec", "--"]
CHILD = "import os, time; print('child', os.getpid(), flush=True); time.sleep(60)"


@contextmanager
def said(*words: str, **environment: str) -> Iterator[tuple[int, str]]:
    """A program that runs on after its first line; its pid and that line."""
    process = subprocess.Popen(
        words, stdout=subprocess.PIPE, stdin=subprocess.PIPE, text=True, env={**os.environ, **environment}, cwd="/"
    )
    assert process.stdout is not None
    assert process.stdin is not None
    try:
        yield process.pid, process.stdout.readline().strip()
    finally:
        process.stdin.close()
        process.wait(90)
        process.stdout.close()


LOOK = """
import sys, threading
ours = [name for name in sys.modules if "flatwater" in name]
print(ours, threading.active_count(), "sitecustomize" in sys.modules, flush=True)
sys.stdin.read()
"""


@pytest.mark.parametrize("python", [sys.executable, *pythons()], ids=lambda path: Path(path).parts[-3])
def test_exec_gives_an_agent_that_is_not_seen(python: str):
    with said(*EXEC, python, "-c", LOOK) as (pid, line):
        assert line == "[] 1 False"
        with attach(pid, inject=False) as attached:
            assert not attached.injected
            assert attached.ask("hello")["pid"] == pid
            assert target.census(attached)["dict"].count > 10


def test_exec_runs_the_environments_own_sitecustomize(tmp_path: Path):
    (tmp_path / "sitecustomize.py").write_text("import sys\nsys.mine = [__file__, len(sys.path)]\n")
    program = "import sys; print(sys.mine[0], sys.modules['sitecustomize'].__file__, flush=True); sys.stdin.read()"
    with said(*EXEC, sys.executable, "-c", program, PYTHONPATH=str(tmp_path)) as (pid, line):
        assert line == f"{tmp_path}/sitecustomize.py {tmp_path}/sitecustomize.py"
        with attach(pid, inject=False) as attached:
            assert attached.ask("hello")["pid"] == pid


def test_exec_reaches_children_by_fork_and_by_start():
    program = (
        "import os, subprocess, sys, warnings\nwarnings.simplefilter('ignore')\n"
        "if not (child := os.fork()):\n    sys.stdin.read(); os._exit(0)\n"
        "other = subprocess.Popen([sys.executable, '-c', 'import sys; sys.stdin.read()'])\n"
        "print(child, other.pid, flush=True); sys.stdin.read(); os.waitpid(child, 0); other.wait()"
    )
    with said(*EXEC, sys.executable, "-c", program) as (pid, line):
        for number in [pid, *map(int, line.split())]:
            until = time.monotonic() + 90
            while True:
                try:
                    with attach(number, inject=False) as attached:
                        assert attached.ask("hello")["pid"] == number
                        break
                except Exception:
                    assert time.monotonic() < until
                    time.sleep(0.05)


def test_exec_of_something_that_does_not_exist():
    done = subprocess.run([*EXEC, "no-such-program"], capture_output=True, text=True)
    assert done.returncode == 2
    assert "no-such-program: No such file" in done.stderr


@pytest.mark.parametrize("program", ["import flatwater.agent", "import flatwater"])
def test_import_gives_an_agent_until_stopped(program: str):
    words = (
        f"{program}, sys, flatwater\nprint(sys.argv, flush=True); sys.stdin.readline()\n"
        "import flatwater.agent; flatwater.agent.stop(); flatwater.agent.stop(); print('stopped', flush=True)\n"
        "sys.stdin.read()"
    )
    process = subprocess.Popen(
        [sys.executable, "-W", "error", "-c", words],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "FLATWATER_AGENT": "1"},
    )
    try:
        assert process.stdout is not None
        assert process.stdin is not None
        process.stdout.readline()
        with attach(process.pid) as attached:
            assert not attached.injected
            threads = len(list(Path(f"/proc/{process.pid}/task").iterdir()))
        process.stdin.write("\n")
        process.stdin.flush()
        assert process.stdout.readline() == "stopped\n"
        deadline = time.monotonic() + 90
        while len(list(Path(f"/proc/{process.pid}/task").iterdir())) >= threads:  # the kernel's part of their end
            assert time.monotonic() < deadline, "the agent's threads are still there"
            time.sleep(0.01)
        assert not list(Path("/tmp").glob(f"flatwater-*/{process.pid}.sock"))
    finally:
        process.communicate()
    assert process.returncode == 0


def test_a_client_that_is_killed_leaves_nothing_in_the_program():
    client = (
        "import sys, time\nfrom flatwater.memory import attach, target\n"
        "attached = attach.attach(int(sys.argv[1])); target.graph(attached); print('in', flush=True); time.sleep(60)"
    )
    with Program("idle") as program:
        process = subprocess.Popen([sys.executable, "-c", client, str(program.pid)], stdout=subprocess.PIPE)
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == b"in\n"
            assert program.threads() > 1
        finally:
            process.kill()
            process.wait()
            process.stdout.close()
        until = time.monotonic() + 90
        while program.threads() > 1 or Path(f"/proc/{program.pid}/task/{program.pid}/children").read_text().strip():
            assert time.monotonic() < until
            time.sleep(0.02)
        assert len(program.descriptors()) == 3
        assert not re.search(r"_inject", Path(f"/proc/{program.pid}/maps").read_text())
