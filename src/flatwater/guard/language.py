"""How a worker is asked for its warm stop, told from command lines. Decisions only."""

from __future__ import annotations

import signal
from collections.abc import Callable, Mapping, Sequence
from pathlib import PurePath

# A program's name and the signal after which it takes no more work, ends what it has, and exits.
WARM = {
    "celery": signal.SIGTERM,
    "huey": signal.SIGINT,
    "run_huey": signal.SIGINT,
    "gunicorn": signal.SIGTERM,
    "uvicorn": signal.SIGTERM,
    "hypercorn": signal.SIGTERM,
    "dramatiq": signal.SIGTERM,
    "rq": signal.SIGTERM,
    "flatwater": signal.SIGTERM,
}
# Programs that run another one and stay: a shell dies of a signal alone, whatever it has started.
WRAPPERS = frozenset(
    {"sh", "dash", "bash", "ash", "ksh", "mksh", "zsh", "fish", "busybox", "su", "runuser"}
    | {"tini", "dumb-init", "catatonit", "docker-init", "timeout", "time", "flock", "script", "setsid", "unshare", "uv"}
)


def language(command: Sequence[str]) -> str:
    """The name in :data:`WARM` that a command line tells; "" for one that is not known."""
    words = [PurePath(word).name.removesuffix(".py").partition(".")[0].removesuffix("_consumer") for word in command]
    return next((word for word in words[:8] if word in WARM), "")


def warm_signal(command: Sequence[str], environ: Mapping[str, str] | None = None) -> signal.Signals:
    """The signal for a command line in its environment; SIGTERM, which most programs heed, for one that is not known.

    With ``REMAP_SIGTERM=SIGQUIT`` Celery takes SIGTERM for its cold shutdown, but the first SIGINT for a warm one.
    """
    name = language(command)
    if name == "celery" and environ is not None and environ.get("REMAP_SIGTERM") == "SIGQUIT":
        return signal.SIGINT
    return WARM.get(name, signal.SIGTERM)


def is_wrapper(command: Sequence[str]) -> bool:
    """Whether a command line is a shell's, or another program's that runs the real one and stays."""
    return bool(command) and PurePath(command[0]).name.lstrip("-") in WRAPPERS


def wraps(command: Sequence[str], child: Sequence[str]) -> bool:
    """Whether a program stays and runs what its own command line ends with, as ``pdm run celery …`` does.

    A child that was forked has the whole command line. One word alone is no sign: it may be a program that a worker
    was told to use. ``sudo`` passes signals on, and what it runs belongs to another user.
    """
    outer, inner = _plain(command), _plain(child)
    if not 0 < len(inner) < len(outer) or outer[-len(inner) :] != inner or outer[0] == "sudo":
        return False
    return len(inner) > 1 or bool(language(child))


def _plain(command: Sequence[str]) -> list[str]:
    """Without folders, and without the interpreter of a script."""
    names = [PurePath(word).name for word in command]
    return names[1:] if names and names[0].startswith("python") else names


def stays(pid: int, command: Callable[[int], Sequence[str]], children: Callable[[int], Sequence[int]]) -> bool:
    """Whether a process is a wrapper: by its name, or by what it runs."""
    own = command(pid)
    return is_wrapper(own) or any(wraps(own, command(child)) for child in children(pid))


def addressees(
    pid: int, command: Callable[[int], Sequence[str]], children: Callable[[int], Sequence[int]]
) -> list[int]:
    """The processes that a warm stop is meant for: ``pid``, or what runs below it when it is a wrapper.

    Of several those whose language is known: in ``celery … | tee log`` the stop is not for ``tee``.
    """
    found = _below(pid, command, children)
    return [one for one in found if language(command(one)) and not is_wrapper(command(one))] or found


def _below(pid: int, command: Callable[[int], Sequence[str]], children: Callable[[int], Sequence[int]]) -> list[int]:
    if not stays(pid, command, children):
        return [pid]
    return [found for child in children(pid) for found in _below(child, command, children)] or [pid]
