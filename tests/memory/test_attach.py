"""Attaching to programs that know nothing of Flatwater, and leaving them as they were."""

import ast
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.live.target import Program, pythons

from flatwater.memory import build, inject, target
from flatwater.memory.attach import CommandError, attach
from flatwater.memory.heap_model import ObjectUnknown
from flatwater.memory.refusal import BusyError, GoneError

TIMEOUT_S = 60.0


def sockets(pid: int) -> list[Path]:
    return [path for folder in Path("/tmp").glob("flatwater-*") for path in folder.glob(f"{pid}.*")]


@pytest.mark.parametrize("kind", ["idle", "spin", "join", "busy", "served", "green", "another", "leaving"])
def test_any_program_answers_and_is_as_before_when_left(kind: str):
    with Program(kind) as program:
        descriptors = program.descriptors()  # busy and served open and close some all the time
        with attach(program.pid, timeout_s=TIMEOUT_S) as attached:
            assert attached.injected
            hello = attached.ask("hello")
            assert (hello["pid"], hello["extension"]) == (program.pid, True)
            assert target.census(attached)["dict"].count > 10
            with target.graph(attached) as graph:
                assert graph.statistics().objects > 1000
                with pytest.raises(ObjectUnknown):
                    graph.retained(object())
        assert program.process.poll() is None
        assert not sockets(program.pid)
        if kind not in ("busy", "served"):
            assert program.descriptors() == descriptors
        with attach(program.pid, timeout_s=TIMEOUT_S) as again:  # the modules are there already
            assert again.ask("hello")["pid"] == program.pid


@pytest.fixture
def other_python(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A Python of another version, for which nothing has been built yet."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    build.cache.cache_clear()
    if not (found := pythons()):
        pytest.skip("no other Python is on this machine")
    yield found[0]
    build.cache.cache_clear()


def test_the_parts_in_c_are_built_for_another_python(other_python: str, tmp_path: Path):
    with Program("join", python=other_python) as program, attach(program.pid, timeout_s=TIMEOUT_S) as attached:
        hello = attached.ask("hello")
        assert hello["python"] in other_python
        assert hello["extension"]
        with target.graph(attached) as graph:
            assert graph.statistics().objects > 1000
        assert list(tmp_path.glob("flatwater/*/*/_heap*.so")) or list(Path(build.__file__).parent.glob("_heap*-312-*"))


@pytest.mark.parametrize("python", [pytest.param(path, id=Path(path).parts[-3]) for path in pythons()])
def test_without_a_compiler_it_says_what_is_missing(
    python: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, other_python: str
):
    monkeypatch.setenv("CC", "no-such-compiler")
    with Program("join", python=python) as program, attach(program.pid, timeout_s=TIMEOUT_S) as attached:
        hello = attached.ask("hello")
        assert hello["extension"] or "install flatwater" in hello["missing"]
        assert target.census(attached)["dict"].count > 10


def test_interpreter_shutdown_after_an_agent_was_there():
    with Program("leaving") as program:
        with attach(program.pid, timeout_s=TIMEOUT_S) as attached:
            attached.ask("census")
        program.tell()
        assert program.hear("left") == []  # no module of ours is in sys.modules
        assert program.process.wait(90) == 0


def test_interpreter_shutdown_while_an_agent_is_there():
    with Program("leaving") as program, attach(program.pid, timeout_s=TIMEOUT_S) as attached:
        program.tell()
        program.hear("left")
        assert program.process.wait(90) == 0
        with pytest.raises(GoneError, match=r"closed the connection"):
            attached.ask("hello")


def test_the_programs_own_flatwater_is_kept():
    with Program("another") as program:
        with attach(program.pid, timeout_s=TIMEOUT_S) as attached:
            assert attached.ask("hello")["flatwater"]
        program.tell()
        assert program.hear("kept") == ["True", "flatwater"]


def test_a_fork_of_the_program_holds_no_socket_of_the_agent():
    with Program("forking") as program:
        program.tell()
        assert program.hear("child") == ["."]
        with attach(program.pid, timeout_s=TIMEOUT_S) as attached:
            attached.ask("hello")
            program.tell()
            assert program.hear("child") == ["."]
            assert attached.ask("hello")["pid"] == program.pid


def test_two_clients_share_an_agent_and_the_last_one_ends_it():
    with Program("idle") as program:
        first = attach(program.pid, timeout_s=TIMEOUT_S)
        with attach(program.pid, inject=False) as second:
            assert not second.injected
            first.close()
            assert second.ask("hello")["pid"] == program.pid
            assert sockets(program.pid)
        until = time.monotonic() + 90
        while sockets(program.pid) and time.monotonic() < until:
            time.sleep(0.01)
        assert not sockets(program.pid)
        first.close()


def test_clients_at_once_find_one_agent():
    found: list[int] = []

    def client() -> None:
        with attach(program.pid, timeout_s=TIMEOUT_S) as attached:
            found.append(attached.ask("hello")["pid"])

    with Program("join") as program:
        clients = [threading.Thread(target=client) for _ in range(3)]
        for thread in clients:
            thread.start()
        for thread in clients:
            thread.join()
        assert found == [program.pid] * 3


ATTACHING = """
import ctypes, os, sys, time
from flatwater.memory.attach import _alone
pid = int(sys.argv[1])
with _alone(pid, 0):
    libc = ctypes.CDLL(None)
    assert libc.ptrace(0x4206, pid, None, None) == libc.ptrace(0x4207, pid, None, None) == 0  # seize, interrupt
    print("held", flush=True)
    time.sleep(1)
    os.waitpid(pid, 1 << 30)
    assert libc.ptrace(17, pid, None, None) == 0  # detach
"""


@pytest.mark.parametrize("wait_s", [0, 0.5], ids=["it is being stopped", "it stands still"])
def test_a_process_that_another_client_holds_is_waited_for(wait_s):
    with Program("idle") as program:
        holder = subprocess.Popen([sys.executable, "-c", ATTACHING, str(program.pid)], stdout=subprocess.PIPE)
        with holder:
            assert holder.stdout.readline() == b"held\n"
            time.sleep(wait_s)
            with attach(program.pid, timeout_s=TIMEOUT_S) as attached:
                assert attached.ask("hello")["pid"] == program.pid


def test_the_socket_is_for_its_user_alone():
    with Program("idle") as program, attach(program.pid, timeout_s=TIMEOUT_S):
        (path,) = sockets(program.pid)
        assert path.stat().st_mode & 0o777 == 0o600
        assert path.parent.stat().st_mode & 0o777 == 0o700


def test_commands_that_fail_say_so_and_the_connection_goes_on():
    with Program("idle") as program, attach(program.pid, timeout_s=TIMEOUT_S) as attached:
        with pytest.raises(CommandError, match="there is no command 'nonsense'"):
            attached.ask("nonsense")
        with pytest.raises(CommandError, match="unexpected keyword"):
            attached.ask("usage", wrong=1)
        assert attached.ask("hello")["pid"] == program.pid


def test_a_program_that_is_killed_meanwhile():
    with Program("idle") as program, attach(program.pid, timeout_s=TIMEOUT_S) as attached:
        program.process.kill()
        with pytest.raises(GoneError, match="closed the connection"):
            attached.ask("census")


def test_a_program_in_c_code_is_let_go():
    with Program("stuck") as program:
        time.sleep(0.2)
        with pytest.raises(BusyError, match=r"did not answer in time|no thread .* was found"):
            attach(program.pid, timeout_s=1.5)
        assert not sockets(program.pid)
        status = Path(f"/proc/{program.pid}/status").read_text()
        assert re.search(r"TracerPid:\s*0", status)
        assert re.search(r"State:\s*R", status)


def test_ctrl_c_calls_it_off():
    with Program("stuck") as program:
        before = signal.signal(signal.SIGINT, signal.default_int_handler)
        timer = threading.Timer(1.0, os.kill, [os.getpid(), signal.SIGINT])
        timer.start()
        try:
            with pytest.raises(KeyboardInterrupt):
                attach(program.pid, timeout_s=TIMEOUT_S)
        finally:
            timer.join()
            signal.signal(signal.SIGINT, before)
        assert re.search(r"TracerPid:\s*0", Path(f"/proc/{program.pid}/status").read_text())
        assert program.process.poll() is None


def test_what_is_sent_needs_only_the_standard_library():
    modules = inject._modules()
    assert {"flatwater.memory.agent", "flatwater.memory.command"} <= modules.keys()
    for name, (_, source, _) in modules.items():
        for node in ast.walk(ast.parse(source)):
            wanted = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            wanted += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            for one in wanted:
                assert one.partition(".")[0] in sys.stdlib_module_names | {"flatwater"}, f"{name} imports {one}"
