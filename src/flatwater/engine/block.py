"""Block kinds: what a block takes, gives and may contain, and the function behind it.

    @block("Weigh", recovery="rerun")
    async def weigh(scale: str, tare: float = 0.0, *, call: BlockCall) -> Weight: ...

The decorated function stays what it was; its `Kind` hangs on it, and a `Registry` takes it from there.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from enum import StrEnum
from types import ModuleType
from typing import TYPE_CHECKING, Any, Final, Literal, Protocol, TypeAlias, TypeVar

import msgspec

from flatwater import extension
from flatwater.engine import function, trigger_kind
from flatwater.engine.expression.function import FUNCTIONS
from flatwater.engine.palette import describe, describe_function
from flatwater.engine.parameter import Param
from flatwater.engine.signature import read
from flatwater.errors import ConflictError, NotFoundError

if TYPE_CHECKING:
    from flatwater.engine.service import Services

Recovery: TypeAlias = Literal["rerun", "reattach", "operator"]
RECOVERIES: Final = ("rerun", "reattach", "operator")
SUB_TASK: Final = "SubTask"
"""Blocks of type ``SubTask::<definition id>`` start another definition."""
ENTRY_POINTS: Final = "flatwater.blocks"
MAX_TYPE_CHARS: Final = 100
_ATTRIBUTE: Final = "__flatwater_kind__"

F = TypeVar("F", bound=Callable[..., Any])


class Shape(StrEnum):
    """How a kind walks its children; what validation and liveness must know of it."""

    LEAF = "leaf"
    SERIAL = "serial"  # every child once, in order
    CHOICE = "choice"  # one branch or none
    LOOP = "loop"  # the branch again and again
    PARALLEL = "parallel"  # every child side by side
    COPIES = "copies"  # the branch several times side by side
    GUARD = "guard"  # the first branch, then another if it fails


class BlockCall(Protocol):
    """What a block's function is given of its run. One object per attempt; do not keep it."""

    attempt: int
    path: str
    replayed: bool
    """An earlier activation declared this very call; look its order up before sending it again."""

    @property
    def run_id(self) -> str: ...
    @property
    def name(self) -> str: ...
    @property
    def block_id(self) -> int: ...
    @property
    def sub_task(self) -> str | None: ...
    @property
    def order_id(self) -> str:
        """26 characters, the same whenever this attempt is replayed; durable before an outside effect."""
        ...

    @property
    def robot(self) -> str | None:
        """The robot that the innermost block around this one has selected."""
        ...

    @property
    def priority(self) -> int: ...
    @property
    def rank(self) -> float: ...
    @property
    def variables(self) -> Mapping[str, Any]: ...
    @property
    def services(self) -> Services: ...
    @property
    def epoch(self) -> int: ...
    @property
    def retried(self) -> bool: ...
    @property
    def wait_path(self) -> str: ...

    def set_variable(self, name: str, value: Any) -> None: ...
    def set_run(self, **changes: Any) -> None: ...
    def pause(self) -> None: ...
    def log(self, message: str, level: str = "info") -> None: ...
    def conclude(self, fn: Callable[..., Any], *args: Any) -> None: ...
    def granted(self, grants: Any) -> None: ...
    def holds_site(self) -> None: ...
    async def barrier(self) -> None: ...
    async def transact(self, fn: Callable[..., Any], *args: Any) -> Any: ...
    async def sleep(self, seconds: float, reason: str) -> None: ...
    async def wait(
        self,
        kind: str,
        key: str,
        *,
        reason: str,
        timeout_s: float | None = None,
        want: Any = None,
        insert: bool = True,
    ) -> Any: ...
    def expect(self, kind: str, key: str, *, reason: str, timeout_s: float | None = None) -> Any: ...
    def waited(self) -> Any: ...
    async def children(
        self, branch: str = "default", *, robot: str | None = None, outputs: dict[str, Any] | None = None
    ) -> None: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """A block type.

    ``branches`` are the names of children it may have; ``open`` kinds take parameters beyond ``params``; ``needs`` is a
    `Shape` that must be around the block (a loop for ``BreakBp``). ``outputs`` is a Python type or None for none.
    ``pure`` blocks have no effect outside their run. Flow kinds have no ``func``: the engine walks them itself.
    """

    type: str
    family: str = "custom"
    description: str = ""
    params: tuple[Param, ...] = ()
    outputs: Any = None
    branches: tuple[str, ...] = ()
    shape: Shape = Shape.LEAF
    needs: tuple[Shape, ...] = ()
    recovery: Recovery = "rerun"
    aliases: tuple[str, ...] = ()
    func: Callable[..., Any] | None = None
    wants_call: bool = False
    open: bool = False
    pure: bool = False
    is_async: bool = False
    by_name: Mapping[str, Param] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "by_name", {param.name: param for param in self.params})
        if self.recovery not in RECOVERIES:
            raise TypeError(
                f"block {self.type}: recovery must be one of {', '.join(RECOVERIES)}, not {self.recovery!r}"
            )
        if not self.type or len(self.type) > MAX_TYPE_CHARS or "::" in self.type:
            raise TypeError(f"{self.type!r} cannot be a block type: 1 to {MAX_TYPE_CHARS} characters without '::'")

    @property
    def origin(self) -> str:
        """Where the kind comes from, for messages."""
        return f"{self.func.__module__}.{self.func.__qualname__}" if self.func else "the engine"

    def arguments(self, params: Mapping[str, Any]) -> dict[str, Any]:
        """``params`` as evaluated → the function's keyword arguments. Raises `ConversionError`."""
        arguments: dict[str, Any] = {}
        for name, value in params.items():
            param = self.by_name.get(name)
            if param is None:
                arguments[name] = value
            else:
                build = param.builds and value is not param.default
                arguments[param.keyword or name] = param.build(value) if build else value
        return arguments

    def pack(self, result: Any) -> dict[str, Any]:
        """What the function returned → outputs, exactly as the store would give them back.

        A map or struct is the outputs, nothing is none, anything else is ``result``. Raises TypeError when JSON cannot
        hold it.
        """
        if result is None:
            return {}
        if type(result) is dict and all(type(key) is str and _plain(each) for key, each in result.items()):
            return result
        try:
            outputs = msgspec.json.decode(msgspec.json.encode(result))
        except (TypeError, ValueError, RecursionError) as error:
            raise TypeError(f"block {self.type} returned what JSON cannot hold: {error}") from None
        return outputs if isinstance(outputs, dict) else {"result": outputs}


def _plain(value: Any) -> bool:
    kind = type(value)
    return kind is str or kind is int or kind is bool or value is None or (kind is float and math.isfinite(value))


# ---- declaring --------------------------------------------------------------------------------------


def block(
    name: str,
    *,
    family: str = "custom",
    recovery: Recovery = "rerun",
    description: str = "",
    aliases: Iterable[str] = (),
    branches: Iterable[str] = (),
    outputs: Any = ...,
    pure: bool = False,
    camel: bool = False,
) -> Callable[[F], F]:
    """Make a function a block of type ``name``.

    ``recovery`` says what to do when the process died while the function ran: ``rerun`` it (it is pure or idempotent),
    ``reattach`` (it looks its order up first), or ask an ``operator``. ``camel`` names the parameters as the format
    does (``site_id`` → ``siteId``); ``outputs`` overrides the return type. The description defaults to the first line
    of the docstring. Plain (not ``async``) functions are called in a bounded thread pool. Raises TypeError when the
    signature cannot be a block's.
    """

    def declare(func: F) -> F:
        signature = read(func, camel=camel, call_type=BlockCall)
        names = tuple(branches)
        kind = Kind(
            type=name,
            family=family,
            description=description or (inspect.getdoc(func) or "").split("\n")[0],
            params=signature.params,
            outputs=signature.outputs if outputs is ... else outputs,
            branches=names,
            shape=Shape.SERIAL if names else Shape.LEAF,
            recovery=recovery,
            aliases=tuple(aliases),
            func=func,
            wants_call=signature.wants_call,
            open=signature.open,
            pure=pure,
            is_async=inspect.iscoroutinefunction(func),
        )
        setattr(func, _ATTRIBUTE, kind)
        return func

    return declare


def kind_of(item: Any) -> Kind | None:
    """The kind that ``item`` is, or that hangs on it."""
    found = item if isinstance(item, Kind) else getattr(item, _ATTRIBUTE, None)
    return found if isinstance(found, Kind) else None


class Registry:
    """What definitions may use: block types, and by name ``functions`` of expressions and ``triggers`` (their kinds).

    Starts with ``kinds``, and the functions and triggers of Flatwater; nothing is registered behind one's back.
    """

    def __init__(self, kinds: Iterable[Kind | Callable[..., Any]] = ()) -> None:
        self.functions = extension.Catalogue("expression function", FUNCTIONS)
        self.triggers = extension.Catalogue("trigger kind", trigger_kind.TRIGGERS)
        self._kinds: dict[str, Kind] = {}
        self._names: dict[str, Kind] = {}
        for kind in kinds:
            self.register(kind)

    def register(self, item: Kind | Callable[..., Any]) -> Kind:
        """Add a kind or a decorated function; one with a function replaces the bare declaration of the same type.

        Raises `ConflictError` when another kind has one of its names, TypeError when ``item`` is no block.
        """
        kind = kind_of(item)
        if kind is None:
            raise TypeError(f"{item!r} is not a block; decorate it with @block(…)")
        for name in (kind.type, *kind.aliases):
            other = self._names.get(name)
            if other is not None and other != kind and not (other.type == kind.type and other.func is None):
                hint = "give one of them another type, or register only one"
                raise ConflictError(f"block type {name} is declared by {other.origin} and by {kind.origin}", hint=hint)
        self._kinds[kind.type] = kind
        self._names.update(dict.fromkeys((kind.type, *kind.aliases), kind))
        return kind

    def add(self, item: Any) -> None:
        """Register whatever ``item`` is decorated as: ``@block``, ``@function``, ``@trigger``, or several of them.

        Raises `ConflictError` when a name is another's, TypeError when it is none of them.
        """
        kind, functions, trigger = kind_of(item), function.functions_of(item), trigger_kind.trigger_of(item)
        if kind is not None or not (functions or trigger):
            self.register(item)
        for each in functions:
            self.functions.add(each.name, each, each.origin)
        if trigger is not None:
            self.triggers.add(trigger.name, trigger, trigger.origin)

    def add_module(self, module: ModuleType) -> None:
        """Add what a module defines; a list ``KINDS`` in it names its blocks."""
        listed = getattr(module, "KINDS", None)
        for each in listed or ():
            self.register(each)
        marks = (function.MARK, trigger_kind.MARK, *(() if listed is not None else (_ATTRIBUTE,)))
        for each in extension.marked(module, *marks):
            self.add(each)

    def load_entry_points(self, group: str = ENTRY_POINTS) -> None:
        """Add what installed packages offer: an item, a list of items, or a module each.

        Raises `SettingError` for a package that cannot be loaded, `ConflictError` when two declare one name.
        """
        for found in extension.installed(group):
            if isinstance(found, ModuleType):
                self.add_module(found)
            else:
                self.add(found)

    def get(self, name: str) -> Kind | None:
        """The kind of a ``blockType``; aliases and ``SubTask::<id>`` included."""
        return self._names.get(SUB_TASK if name.startswith(f"{SUB_TASK}::") else name)

    def require(self, name: str) -> Kind:
        """As `get`; raises `NotFoundError`."""
        kind = self.get(name)
        if kind is None:
            raise NotFoundError(f"no block type {name[:MAX_TYPE_CHARS]!r}", hint=self.suggest(name))
        return kind

    def suggest(self, name: str) -> str:
        """What the author of an unknown type may have meant."""
        near = get_close_matches(name[:MAX_TYPE_CHARS], self._names, 1)
        return f"did you mean {near[0]}?" if near else "the palette lists the block types that exist"

    def palette(self) -> list[dict[str, Any]]:
        """Every kind with its parameters and outputs as JSON schema, by family and type."""
        kinds = sorted(self._kinds.values(), key=lambda kind: (kind.family, kind.type))
        return [describe(kind) for kind in kinds]

    def function_palette(self) -> list[dict[str, Any]]:
        """Every function of expressions, by name; users' have an ``origin``."""
        found = sorted(self.functions.items.items())
        return [{"name": name, **describe_function(each)} for name, each in found]

    def trigger_palette(self) -> list[dict[str, Any]]:
        """Every kind of triggers, by name; users' have an ``origin``."""
        found = sorted(self.triggers.items.values(), key=lambda kind: kind.name)
        return [
            {"name": kind.name, "how": kind.how, "description": kind.description, "origin": kind.origin}
            for kind in found
        ]

    def __contains__(self, name: str) -> bool:
        return self.get(name) is not None

    def __iter__(self) -> Iterator[Kind]:
        return iter(self._kinds.values())

    def __len__(self) -> int:
        return len(self._kinds)
