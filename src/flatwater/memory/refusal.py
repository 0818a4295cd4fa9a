"""Why a process cannot be attached to, and what to do about it: the checks that come first, and their words. Linux."""

from __future__ import annotations

import os
from pathlib import Path

from flatwater.errors import FlatwaterError
from flatwater.memory.inject import InjectError
from flatwater.memory.interpreter import Interpreter

_CAP_SYS_PTRACE = 19
_AGENT = "start it with `flatwater exec -- COMMAND`, or with FLATWATER_AGENT=1 where it imports flatwater"
VERSIONS = (3, 11), (3, 13)


class AttachError(FlatwaterError, code="attach", status=409):
    """The process could not be attached to."""


class GoneError(AttachError, code="attach_gone", status=404):
    """There is no such process any more."""


class RightsError(AttachError, code="attach_rights", status=403):
    """The kernel does not let us look into that process."""


class UnsupportedError(AttachError, code="attach_unsupported"):
    """That process cannot be examined."""


class BusyError(AttachError, code="attach_busy", status=503):
    """The process did not let us in at this moment."""


def check_process(pid: int) -> int:
    """The process's effective uid. Raises GoneError, RightsError for another user's, BusyError when it is stopped."""
    status = _status(pid)
    state, uid = status.get("State", "?")[:1], int(status.get("Uid", "0 0").split()[1])
    if state in "ZX":
        raise GoneError(f"process {pid} has ended (it is a zombie that its parent has not waited for)")
    if state == "T":
        raise BusyError(f"process {pid} is stopped (SIGSTOP, or ^Z in a terminal)", hint=f"kill -CONT {pid}")
    tracer = status.get("TracerPid", "0")
    if tracer != "0" and state == "t":
        raise BusyError(
            f"process {pid} is held by a debugger or tracer, process {tracer}",
            hint=f"end process {tracer}",
        )
    if os.geteuid() not in (0, uid):
        raise RightsError(
            f"process {pid} belongs to user {uid}, you are {os.geteuid()}",
            hint=f"sudo -u '#{uid}' flatwater …",
        )
    return uid


def check_injection(pid: int, uid: int) -> None:
    """Raises AttachError when starting an agent inside the process is sure to fail."""
    if pid == os.getpid():
        raise UnsupportedError("a process cannot inject into itself", hint="use flatwater.memory.target.Here()")
    for name, what in (("pid", "process"), ("mnt", "mount")):
        if _namespace(pid, name) not in (_namespace("self", name), None):
            raise UnsupportedError(
                f"process {pid} is in another {what} namespace (a container, or systemd's PrivateTmp=)",
                hint=f"run flatwater inside it (docker exec …, kubectl exec …, nsenter -t {pid} -a …), or {_AGENT}",
            )
    status = _status(pid)
    if (tracer := status.get("TracerPid", "0")) != "0":
        raise BusyError(
            f"process {pid} is traced by process {tracer} (a debugger, strace), and only one can", hint=f"end {tracer}"
        )
    if has_ptrace():
        return
    scope = _text("/proc/sys/kernel/yama/ptrace_scope")
    if scope == "3":
        raise RightsError("ptrace is switched off until the next boot (kernel.yama.ptrace_scope = 3)", hint=_AGENT)
    if scope == "2" or (scope == "1" and not _is_descendant(pid)):
        raise RightsError(
            f"kernel.yama.ptrace_scope is {scope}: ptrace needs CAP_SYS_PTRACE",
            hint=f"use sudo, or `sysctl kernel.yama.ptrace_scope=0`, or {_AGENT}",
        )


def check_version(pid: int, python: Interpreter) -> None:
    """Raises UnsupportedError for a Python that injection does not know."""
    if python.version is None:
        raise UnsupportedError(f"process {pid}: the version of its Python cannot be found", hint=_AGENT)
    shown = ".".join(map(str, python.version))
    if python.free_threaded:
        raise UnsupportedError(f"process {pid} runs a free-threaded Python {shown}", hint=_AGENT)
    if python.version[:2] < VERSIONS[0]:
        raise UnsupportedError(f"process {pid} runs Python {shown}; 3.11 is the oldest that is supported")


def silent(pid: int) -> BusyError:
    """For a process that does not answer in time."""
    return BusyError(
        f"process {pid} did not answer in time: a thread of it holds the interpreter in C code, or the machine is"
        " overloaded",
        hint="try again with a longer timeout; what was begun in the process has been called off",
    )


def unreadable(pid: int, error: OSError) -> AttachError:
    """For a process whose memory map cannot be read."""
    check_process(pid)
    return _no_rights(pid, error.errno or 0)


def explain(pid: int, error: InjectError) -> AttachError:
    """What an injection that failed means."""
    why = os.strerror(error.number) if error.number else ""
    if error.kind == "missing":
        return AttachError(
            "the library flatwater.memory._inject was not built (no C compiler when Flatwater was installed)",
            hint=f"install a compiler and reinstall Flatwater, or {_AGENT}",
        )
    if error.kind == "refused":
        return unreadable(pid, OSError(error.number, why)) if _alive(pid) else _gone(pid)
    if error.kind == "gone":
        return _gone(pid)
    if error.kind == "stopped":
        return BusyError(f"process {pid} was stopped (SIGSTOP) meanwhile", hint=f"kill -CONT {pid}")
    if error.kind == "not_safe":
        return BusyError(
            f"no thread of process {pid} was found where it can be stopped without danger: it works in C code, or in"
            " the kernel",
            hint=f"try again with a longer timeout, or {_AGENT}",
        )
    if error.kind in ("no_memory", "no_thread"):
        what = "more memory" if error.kind == "no_memory" else "another thread"
        return AttachError(f"the kernel gives process {pid} no {what}: {why}", hint=f"look at its limits, or {_AGENT}")
    return AttachError(f"starting a thread in process {pid} failed: {why or error.number}", hint=_AGENT)


def environment(pid: int) -> dict[str, str]:
    """The environment that the process was started with; empty without the right to read it."""
    try:
        text = Path(f"/proc/{pid}/environ").read_bytes().decode("utf-8", "surrogateescape")
    except OSError:
        return {}
    return dict(entry.partition("=")[::2] for entry in text.split("\0") if "=" in entry)


def has_ptrace() -> bool:
    """Whether this process has CAP_SYS_PTRACE."""
    return bool(int(_status("self").get("CapEff", "0"), 16) >> _CAP_SYS_PTRACE & 1)


def _no_rights(pid: int, number: int) -> RightsError:
    return RightsError(
        f"process {pid}: {os.strerror(number or 1)}",
        hint="in a container: --cap-add=SYS_PTRACE (a seccomp profile or security module may forbid it as well);"
        f" else run as root; or {_AGENT}",
    )


def _gone(pid: int) -> GoneError:
    return GoneError(f"process {pid} ended meanwhile")


def _alive(pid: int) -> bool:
    try:
        return _status(pid).get("State", "Z")[:1] not in "ZX"
    except GoneError:
        return False


def _status(pid: int | str) -> dict[str, str]:
    try:
        text = Path(f"/proc/{pid}/status").read_text("utf-8", "replace")
    except (FileNotFoundError, ProcessLookupError):
        raise GoneError(f"there is no process {pid}", hint="`ps` lists those there are") from None
    return {name: value.strip() for name, _, value in (line.partition(":") for line in text.splitlines())}


def _namespace(pid: int | str, name: str) -> str | None:
    try:
        return str(Path(f"/proc/{pid}/ns/{name}").readlink())
    except OSError:  # no right to look: ptrace will tell
        return None


def _is_descendant(pid: int) -> bool:
    own = os.getpid()
    while pid > 1:
        if pid == own:
            return True
        pid = int(_status(pid).get("PPid", "0"))
    return False


def _text(path: str) -> str:
    try:
        return Path(path).read_text("ascii").strip()
    except OSError:
        return ""
