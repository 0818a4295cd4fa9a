"""Runs in a process that never heard of Flatwater, in a thread that :mod:`flatwater.memory.inject` started there.

Its source is sent with the sources of the modules that the agent needs. Those are kept to themselves: nothing of ours
is in ``sys.modules``, ``sys.path`` or ``sys.meta_path`` once an import is over, and a ``flatwater`` that the program
itself has imported is neither used nor seen. Standard library only, and only this one file: it imports nothing of ours.
"""

from __future__ import annotations

import builtins
import importlib.machinery
import importlib.util
import marshal
import os
import sys
import types
from typing import Any

_PREFIX = "_flatwater_guest"


class Modules:
    """Our modules by name, imported from what was sent, with an ``__import__`` of their own."""

    def __init__(self, sent: dict[str, Any]) -> None:
        self._sent = sent
        top = types.ModuleType("flatwater")
        vars(top).update(__path__=[], __version__=sent["version"])
        self._loaded = {"flatwater": top}
        self._builtins = {**vars(builtins), "__import__": self._import}
        self._own: dict[str, Any] = {"importlib": types.SimpleNamespace(import_module=self.load), **_unpatched()}

    def load(self, name: str) -> types.ModuleType:
        """The module of ours with this name. Raises ImportError."""
        if name not in self._loaded:
            above, _, last = name.rpartition(".")
            parent = self.load(above) if above else None
            module = self._make(name) if name in self._sent["modules"] else self._extension(name)
            if parent is not None:
                setattr(parent, last, module)
        return self._loaded[name]

    def _import(self, name: str, globals: Any = None, locals: Any = None, fromlist: Any = (), level: int = 0) -> Any:
        if name in self._own and not level:
            return self._own[name]
        if level or name.partition(".")[0] != "flatwater":
            return builtins.__import__(name, globals, locals, fromlist, level)
        module = self.load(name)
        if not fromlist:
            return self.load("flatwater")
        for item in fromlist:
            if not hasattr(module, item):
                self.load(f"{name}.{item}")
        return module

    def _make(self, name: str) -> types.ModuleType:
        file, source, code = self._sent["modules"][name]
        module = types.ModuleType(name.replace("flatwater", _PREFIX, 1))
        vars(module).update(__file__=file, __path__=[], __builtins__=self._builtins)
        self._loaded[name] = module
        sys.modules[module.__name__] = module  # dataclasses look their module up while they are made
        try:
            if source is None:  # not sent: the files can be read here
                compiled = importlib.machinery.SourceFileLoader(name, file).get_code(name)
                assert compiled is not None
            elif self._sent["magic"] == importlib.util.MAGIC_NUMBER:
                compiled = marshal.loads(code)  # noqa: S302 (our own)
            else:
                compiled = compile(source, file, "exec", dont_inherit=True)
            exec(compiled, vars(module))  # noqa: S102 (our own source)
        except BaseException:
            self._loaded.pop(name, None)
            raise
        finally:
            sys.modules.pop(module.__name__, None)
        return module

    def _extension(self, wanted: str) -> types.ModuleType:
        """A part in C for this Python: beside our sources, or in an equal Flatwater on this program's path."""
        last = wanted.rpartition(".")[2]
        name = f"{_PREFIX}.{last}"
        tried = []
        for folder in self._folders():
            for suffix in importlib.machinery.EXTENSION_SUFFIXES:
                path = f"{folder}/{last}{suffix}"
                if not os.access(path, os.R_OK):  # also False for one that is not there
                    continue
                spec = importlib.util.spec_from_file_location(name, path)
                assert spec is not None
                assert spec.loader is not None
                try:
                    module = importlib.util.module_from_spec(spec)
                    spec.loader.exec_module(module)
                except ImportError as error:
                    tried.append(f"{path}: {error}")
                    continue
                finally:
                    sys.modules.pop(name, None)
                self._loaded[wanted] = module
                return module
        version = f"{sys.version_info.major}.{sys.version_info.minor}"
        raise ImportError(  # "built for" is what heap.py passes on instead of its own words
            f"no {wanted} built for Python {version} can be read by process {os.getpid()}"
            + "".join(f"; {line}" for line in tried)
            + ": give flatwater a C compiler and the headers of that Python, run it with the same version, or install"
            f" flatwater {self._sent['version']} with the Python of that process; until then there is a census of what"
            " the collector lists, but no graphs, paths or retained sizes"
        )

    def _folders(self) -> list[str]:
        found: list[str] = list(filter(None, self._sent["folders"]))
        for entry in sys.path:
            folder = f"{entry}/flatwater"
            try:
                with open(f"{folder}/__init__.py", encoding="utf-8") as file:  # noqa: PTH123
                    if f'__version__ = "{self._sent["version"]}"' in file.read():
                        found.append(f"{folder}/memory")
            except (OSError, ValueError):
                continue
        return found


class _Event:
    """As ``threading.Event``, on a lock of the interpreter's own."""

    def __init__(self, lock: Any) -> None:
        self._lock = lock
        self._lock.acquire()
        self._set = False

    def is_set(self) -> bool:
        return self._set

    def set(self) -> None:
        if not self._set:
            self._set = True
            self._lock.release()

    def wait(self, timeout: float | None = None) -> bool:
        if self._lock.acquire(timeout=-1 if timeout is None else max(0.0, timeout)):
            self._lock.release()
        return self._set


def _unpatched() -> dict[str, types.ModuleType]:
    """Modules as they were before gevent patched them: its substitutes make hubs in our threads, with descriptors."""
    saved: dict[str, dict[str, Any]] = getattr(sys.modules.get("gevent.monkey"), "saved", {})
    found = {}
    for name in {"_thread", "os", "select", "signal", "subprocess", "threading", "time"} & saved.keys():
        found[name] = types.ModuleType(name)
        vars(found[name]).update({**vars(sys.modules[name]), **saved[name]})
    if "threading" in found and "_thread" in found:
        allocate = found["_thread"].allocate_lock
        vars(found["threading"]).update(Lock=allocate, Event=lambda: _Event(allocate()))
    return found


def main(sent: dict[str, Any], socket: str, report: str, first_s: float) -> None:
    """Serve on ``socket`` until the last client has gone; what goes wrong before it is there is written to ``report``.

    The modules are kept for the next time (in ``sys._flatwater_guest``, with this one): classes can only be freed by
    the cyclic collector, which may be switched off here, and whose work is what is being examined.
    """
    global _modules
    try:
        if _modules is None:
            made = Modules(sent)
            made.load("flatwater.memory.agent")
            _modules = made
        agent = _modules.load("flatwater.memory.agent").Agent(socket, first_s=first_s)
    except BaseException as error:
        _report(report, error)
    else:
        agent.serve()


def begin(folder: str, version: str, parts: str) -> None:
    """Give this process an agent that lasts, from the sources in ``folder`` (:mod:`flatwater.memory.startup`).

    ``parts`` is a further folder in which the parts in C may be found.
    """
    global _modules
    names = [entry.removesuffix(".py") for entry in os.listdir(folder) if entry.endswith(".py")]  # noqa: PTH208
    modules: dict[str, Any] = {f"flatwater.memory.{name}": (f"{folder}/{name}.py", None, None) for name in names}
    modules["flatwater.memory"] = f"{folder}/__init__.py", None, None
    _modules = Modules({"version": version, "folders": [folder, parts], "modules": modules})
    _modules.load("flatwater.memory.agent").start()


_modules: Modules | None = None


def _report(path: str, error: BaseException) -> None:
    text = f"{type(error).__name__}: {error}"
    while error.__traceback__ is not None and error.__traceback__.tb_next is not None:
        error.__traceback__ = error.__traceback__.tb_next
    if error.__traceback__ is not None:
        code = error.__traceback__.tb_frame.f_code
        text += f" ({code.co_filename}:{error.__traceback__.tb_lineno})"
    try:
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        os.write(fd, text.encode("utf-8", "replace"))
        os.close(fd)
    except OSError:
        return
