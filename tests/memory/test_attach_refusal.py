"""Every refusal says what to do, and leaves the process as it was."""

import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from tests.live.target import Program

from flatwater.memory import inject, refusal
from flatwater.memory.attach import attach
from flatwater.memory.interpreter import find
from flatwater.memory.refusal import AttachError, BusyError, GoneError, RightsError, UnsupportedError

root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")


@contextmanager
def running(*words: str) -> Iterator[int]:
    process = subprocess.Popen(words)
    try:
        yield process.pid
        assert process.poll() is None, "it did not survive"
    finally:
        process.kill()
        process.wait()


def state_of(pid: int) -> str:
    found = re.search(r"State:\s*(\w)", Path(f"/proc/{pid}/status").read_text())
    assert found is not None
    return found[1]


def reaches(pid: int, state: str) -> None:
    until = time.monotonic() + 90
    while state_of(pid) != state:
        assert time.monotonic() < until
        time.sleep(0.01)


def test_no_such_process():
    with pytest.raises(GoneError, match="there is no process 4194303"):
        attach(4194303)


def test_itself():
    with pytest.raises(UnsupportedError, match=r"Here\(\)"):
        attach(os.getpid())


def test_not_python():
    with running("/bin/sleep", "60") as pid, pytest.raises(UnsupportedError, match="has no Python in it"):
        attach(pid)


def test_no_agent_and_no_injection():
    with Program("idle") as program, pytest.raises(AttachError, match=r"has no agent.*flatwater exec"):
        attach(program.pid, inject=False)


def test_a_zombie():
    with Program("idle") as program:
        program.process.send_signal(signal.SIGKILL)
        reaches(program.pid, "Z")
        with pytest.raises(GoneError, match="zombie"):
            attach(program.pid)


def test_a_stopped_process_stays_stopped():
    with Program("idle") as program:
        program.process.send_signal(signal.SIGSTOP)
        reaches(program.pid, "T")
        with pytest.raises(BusyError, match=rf"is stopped.*kill -CONT {program.pid}"):
            attach(program.pid)
        reaches(program.pid, "T")  # the kernel stops it again when the tracer has let go


def test_a_process_that_is_stopped_just_then():
    with Program("idle") as program:
        python = find(program.pid)
        program.process.send_signal(signal.SIGSTOP)
        reaches(program.pid, "T")
        with pytest.raises(inject.InjectError) as caught:
            inject.start(program.pid, python, b"", time.monotonic() + 5)
        assert "is stopped" in str(refusal.explain(program.pid, caught.value)) or caught.value.kind == "stopped"
        reaches(program.pid, "T")  # the kernel stops it again when the tracer has let go
        program.process.send_signal(signal.SIGCONT)
        with attach(program.pid, timeout_s=60) as attached:
            assert attached.ask("hello")["pid"] == program.pid


def test_a_traced_process():
    tracer = (
        "import ctypes, sys, time; libc = ctypes.CDLL(None)\n"
        "assert libc.ptrace(0x4206, int(sys.argv[1]), None, None) == 0; print('traced', flush=True); time.sleep(60)"
    )
    with Program("idle") as program:
        holder = subprocess.Popen([sys.executable, "-c", tracer, str(program.pid)], stdout=subprocess.PIPE)
        try:
            assert holder.stdout is not None
            holder.stdout.readline()
            with pytest.raises(BusyError, match=f"traced by process {holder.pid}"):
                attach(program.pid)
        finally:
            holder.kill()
            holder.wait()
            holder.stdout.close()
        with attach(program.pid, timeout_s=60) as attached:
            assert attached.ask("hello")["pid"] == program.pid


def test_an_old_python():
    old = next(iter(Path.home().glob(".pyenv/versions/3.10.*/bin/python3.10")), None)
    if old is None:
        pytest.skip("no Python 3.10 is on this machine")
    with running(str(old), "-c", "import time; time.sleep(60)") as pid:
        time.sleep(0.3)
        with pytest.raises(UnsupportedError, match=r"runs Python 3\.10.*3\.11 is the oldest"):
            attach(pid)


@root
@pytest.mark.skipif(shutil.which("unshare") is None, reason="needs unshare")
@pytest.mark.parametrize(("options", "what"), [(["-m"], "mount"), (["-p", "--fork", "--kill-child"], "process")])
def test_another_namespace(options: list[str], what: str):
    with running("unshare", *options, sys.executable, "-c", "import time; time.sleep(60)") as pid:
        until = time.monotonic() + 90
        inner, kind = pid, "mnt" if what == "mount" else "pid"
        while Path(f"/proc/{inner}/ns/{kind}").readlink() == Path(f"/proc/self/ns/{kind}").readlink():
            assert time.monotonic() < until
            children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
            inner = int(children[0]) if children else pid
            time.sleep(0.01)
        with pytest.raises(UnsupportedError, match=f"another {what} namespace.*nsenter -t {inner}"):
            attach(inner)


@root
def test_another_user():
    with Program("idle") as program:
        os.seteuid(65534)
        try:
            with pytest.raises(RightsError, match=r"belongs to user 0, you are 65534.*sudo"):
                attach(program.pid)
        finally:
            os.seteuid(0)


@root
def test_root_may_attach_to_another_users_process():
    python = shutil.which("python3", path="/usr/bin")
    if python is None:
        pytest.skip("needs a Python that everybody may run")
    words = [python, "-c", "import time; print('ready', flush=True); time.sleep(60)"]
    process = subprocess.Popen(words, user=65534, group=65534, extra_groups=[], stdout=subprocess.PIPE, cwd="/")
    try:
        assert process.stdout is not None
        process.stdout.readline()
        with attach(process.pid, timeout_s=60) as attached:
            assert attached.ask("hello")["pid"] == process.pid
            assert Path("/tmp/flatwater-65534").stat().st_uid == 65534
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def test_a_directory_of_somebody_else(monkeypatch: pytest.MonkeyPatch):
    # Not tmp_path: the names of sockets are short, and a long directory is passed over.
    with Program("idle") as program, tempfile.TemporaryDirectory(prefix="fw-") as folder:
        (Path(folder) / "flatwater").mkdir(mode=0o755)
        monkeypatch.setattr(refusal, "environment", lambda pid: {"XDG_RUNTIME_DIR": folder})
        with pytest.raises(AttachError, match="is not a directory that only user"):
            attach(program.pid)


def test_a_library_that_was_not_built(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    inject._library.cache_clear()
    try:
        with Program("idle") as program, monkeypatch.context() as patch:
            patch.setattr(inject, "_LIBRARIES", tmp_path)
            with pytest.raises(AttachError, match=r"was not built.*install a compiler"):
                attach(program.pid)
    finally:
        inject._library.cache_clear()


def test_ptrace_switched_off(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(refusal, "has_ptrace", lambda: False)
    with Program("idle") as program:
        for scope, words in (("3", "switched off until the next boot"), ("2", "sysctl kernel.yama.ptrace_scope=0")):
            monkeypatch.setattr(refusal, "_text", lambda path, scope=scope: scope)
            with pytest.raises(RightsError, match=words):
                attach(program.pid)
        monkeypatch.setattr(refusal, "_text", lambda path: "1")  # our own child: allowed
        with attach(program.pid, timeout_s=60) as attached:
            assert attached.ask("hello")["pid"] == program.pid


def test_limits_of_the_process_are_told():
    """No address space left for our mappings."""
    with Program("idle", before=["prlimit", "--as=400000000"]) as program:
        size = int(Path(f"/proc/{program.pid}/statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")
        subprocess.run(["prlimit", f"--as={size + 8192}", "--pid", str(program.pid)], check=True)
        with pytest.raises(AttachError, match="no more memory"):
            attach(program.pid)
        reaches(program.pid, "S")
