"""Follows a path through the living objects, edge by edge, and proves every edge of it."""

import ctypes
import gc
import sys
from types import FrameType, FunctionType, GeneratorType
from typing import Any

from flatwater.memory.heap import Edge, Node, Path


def follow(path: Path) -> list[object]:
    """The objects of the path. Every edge must hold: the named thing is there, and is the object that was told."""
    here: Any = None
    found: list[object] = []
    for step in path.steps:
        assert isinstance(step.node, Node)
        here = _from_root(path, step.edge, step.node) if not found else _next(here, step.edge, step.node.address)
        assert id(here) == step.node.address, f"{step.edge} leads elsewhere in {path}"
        found.append(here)
    return found


def _from_root(path: Path, edge: Edge, node: Node) -> object:
    if edge.kind == "module":
        return sys.modules[edge.name]
    if edge.kind == "local":
        return _frame(path.root.name, path.root.file, edge.name, node.address).f_locals[edge.name]
    return ctypes.cast(node.address, ctypes.py_object).value  # held by the interpreter: nothing to look it up in


def _frame(function: str, file: str, name: str, address: int) -> FrameType:
    for top in sys._current_frames().values():
        frame: FrameType | None = top
        while frame is not None:
            code = frame.f_code
            if (code.co_qualname, code.co_filename) == (function, file) and id(frame.f_locals.get(name)) == address:
                return frame
            frame = frame.f_back
    raise AssertionError(f"no running {function} has a local {name}")


def _next(holder: Any, edge: Edge, address: int) -> object:
    if edge.kind == "namespace" and edge.name != "thread-local":
        return _namespace(holder, edge.name)
    if edge.kind == "attribute":
        return holder[edge.name] if isinstance(holder, dict) else _attribute(holder, edge.name)
    if edge.kind == "key":
        value = _by_address(holder.values(), address)
        key = next(key for key, item in holder.items() if item is value)
        assert type(key).__qualname__ == edge.key_type.rpartition(".")[2]
        assert not edge.name or key == edge.name
        return value
    if edge.kind == "index":
        return holder[edge.index]
    if edge.kind == "closure":
        function = next(f for f in gc.get_referrers(holder) if isinstance(f, FunctionType) and f.__closure__ is holder)
        return holder[function.__code__.co_freevars.index(edge.name)]
    if edge.kind == "cell":
        return holder.cell_contents
    if edge.kind == "local":
        return _suspended(holder).f_locals[edge.name]
    if "by the look of it" in edge.name or type(holder).__name__ == "_localdummy":
        return _in_struct(holder, address)
    return _by_address(gc.get_referents(holder) or holder, address)  # element, contextvar, held


def _in_struct(holder: object, address: int) -> object:
    """What a word of the holder's C struct points to."""
    words = (ctypes.c_void_p * (type(holder).__basicsize__ // 8)).from_address(id(holder))
    assert address in list(words)[2:]
    return ctypes.cast(address, ctypes.py_object).value


def _namespace(holder: Any, name: str) -> object:
    return holder.__globals__ if name == "__globals__" else _by_address(gc.get_referents(holder), id(_dict_of(holder)))


def _dict_of(holder: Any) -> object:
    if isinstance(holder, type):
        return next(item for item in gc.get_referents(holder) if type(item) is dict)
    return holder.__dict__


def _attribute(holder: Any, name: str) -> object:
    for kind in type(holder).__mro__:
        if name in kind.__dict__ and hasattr(kind.__dict__[name], "__get__"):
            return kind.__dict__[name].__get__(holder)
    return holder.__dict__[name] if hasattr(holder, "__dict__") else getattr(holder, name)


def _suspended(holder: Any) -> FrameType:
    if isinstance(holder, FrameType):
        return holder
    frame = (
        holder.gi_frame if isinstance(holder, GeneratorType) else getattr(holder, "cr_frame", None) or holder.ag_frame
    )
    assert frame is not None
    return frame


def _by_address(items: Any, address: int) -> object:
    return next(item for item in items if id(item) == address)
