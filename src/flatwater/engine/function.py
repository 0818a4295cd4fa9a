"""Expression functions of users: a Python function that definitions may call by name.

    @function("row", null=None, example="row('A-17')")
    def row(site: str) -> str: ...

Expressions are evaluated on the event loop, and again after a crash or a retry: such a function must be pure (the same
arguments give the same result, nothing outside changes) and short. What can be enforced is: it is given copies, so it
cannot change a run's values; its example is computed twice when it is declared and must give the same; its result must
be plain JSON within the limits of expressions; one that takes too long, or raises, fails the block. What cannot be: a
function that never returns is not stopped.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from time import perf_counter, thread_time
from typing import Any, Final, TypeVar

from flatwater.engine import expression
from flatwater.engine.expression.evaluation import MAX_STEPS
from flatwater.engine.expression.function import FUNCTIONS, MAX_ARGUMENTS, Function, arity, unless_null
from flatwater.engine.expression.operation import Fault, checked, checked_list, checked_text
from flatwater.engine.expression.syntax import MACROS
from flatwater.errors import ExpressionError, FlatwaterError
from flatwater.extension import MAX_NAME_CHARS

MARK: Final = "__flatwater_function__"
MAX_CPU_S: Final = 0.05
"""Seconds of the processor that one call may take, unless its declaration says otherwise."""
MOST_CPU_S: Final = 1.0
"""The most that a declaration may allow."""
WALL_FACTOR: Final = 10
"""A call may last so many times as long by the clock: what waits (network, disk, ``sleep``) is found by that."""
STEPS: Final = 100
"""What a call counts where lists are walked: some 2,000 calls fit in one evaluation."""
MAX_DEPTH: Final = 40
"""Levels of lists and maps in what a function takes or gives."""
_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_RESERVED: Final = frozenset({"has", "true", "false", "null", "in", *MACROS, *expression.ROOTS})

F = TypeVar("F", bound=Callable[..., Any])


def function(
    *names: str, example: str = "", null: Any = ..., max_cpu_s: float = MAX_CPU_S, description: str = ""
) -> Callable[[F], F]:
    """Make a function one of expressions, under ``names``.

    ``example`` is an expression that calls it with constants; it is computed twice, now, and shown where functions are
    listed. ``null`` is the result when the first argument is null (without it the function sees None). ``max_cpu_s``:
    seconds of the processor that one call may take, at most `MOST_CPU_S`. The description defaults to the first line of
    the docstring. Raises TypeError when it cannot be a function of expressions.
    """

    def declare(call: F) -> F:
        _check(call, names, max_cpu_s)
        origin = f"{call.__module__}.{call.__qualname__}"
        least, most = arity(call)
        safe = _bounded(call, names[0], max_cpu_s)
        made = Function(
            name=names[0],
            call=safe if null is ... else unless_null(safe, null),
            least=least,
            most=most,
            pure=True,
            description=description or (inspect.getdoc(call) or "").split("\n")[0],
            steps=STEPS,
            example=example,
            origin=origin,
        )
        if example:
            _try(made, names)
        setattr(call, MARK, tuple(replace(made, name=name) for name in names))
        return call

    return declare


def _check(call: Callable[..., Any], names: tuple[str, ...], max_cpu_s: float) -> None:
    for name in names or ("",):
        if not _NAME.fullmatch(name) or len(name) > MAX_NAME_CHARS or name in _RESERVED:
            raise TypeError(f"{name!r} cannot be a function's name: letters, digits and _, and no word of the language")
    if not 0 < max_cpu_s <= MOST_CPU_S:
        raise TypeError(f"function {names[0]}: max_cpu_s is {max_cpu_s}, not above 0 and at most {MOST_CPU_S}")
    if inspect.iscoroutinefunction(call) or inspect.isgeneratorfunction(call) or inspect.isasyncgenfunction(call):
        raise TypeError(f"function {names[0]} must be plain: an expression cannot wait; write a block for what does")
    for parameter in inspect.signature(call).parameters.values():
        if parameter.kind in (parameter.KEYWORD_ONLY, parameter.VAR_KEYWORD):
            raise TypeError(f"function {names[0]}: expressions give arguments by place, not {parameter.name} by name")
    if arity(call)[1] > MAX_ARGUMENTS:
        raise TypeError(f"function {names[0]} has more than {MAX_ARGUMENTS} arguments")


def _try(made: Function, names: tuple[str, ...]) -> None:
    """Compute the example twice. Raises TypeError."""
    try:
        compiled = expression.compile(made.example, functions={**FUNCTIONS, **dict.fromkeys(names, made)})
        first, second = compiled.evaluate({}), compiled.evaluate({})
    except ExpressionError as error:
        raise TypeError(f"the example of function {made.name} fails: {error}") from error
    if first != second:
        raise TypeError(
            f"function {made.name} is not pure: its example {made.example!r} gave {first!r}, then {second!r}"
        )


def _bounded(call: Callable[..., Any], name: str, max_cpu_s: float) -> Callable[..., Any]:
    """``call`` with copies, its time and its result checked, whose errors are `Fault`s."""

    def bounded(*values: Any) -> Any:
        given = [plain(value, f"an argument of {name}") for value in values]
        began, cpu = perf_counter(), thread_time()
        try:
            result = call(*given)
        except FlatwaterError as error:
            raise Fault(f"{name}: {error.detail or error.message}", hint=error.hint) from error
        except Exception as error:  # whatever a user's function raises
            raise Fault(f"{name} raised {type(error).__name__}: {error}", hint=_line(error, call)) from error
        cpu_s, wall_s = thread_time() - cpu, perf_counter() - began
        if cpu_s > max_cpu_s:
            hint = "do this in a block, or allow more with max_cpu_s"
            raise Fault(f"{name} took {cpu_s:.3f} s of the processor, {max_cpu_s:g} s are allowed", hint=hint)
        if wall_s > WALL_FACTOR * max_cpu_s:
            raise Fault(f"{name} took {wall_s:.2f} s, most of them waiting", hint="what waits belongs in a block")
        return plain(result, f"the result of {name}")

    return bounded


def _line(error: Exception, call: Callable[..., Any]) -> str:
    """Where the error comes from: the last line in the function's own file."""
    file, trace, found = call.__code__.co_filename, error.__traceback__, ""
    while trace is not None:
        if trace.tb_frame.f_code.co_filename == file:
            found = f"see {file}:{trace.tb_lineno}"
        trace = trace.tb_next
    return found


def plain(value: Any, what: str) -> Any:
    """A copy as plain JSON values, within the limits of expressions; a tuple becomes a list. Raises `Fault`."""
    left = MAX_STEPS

    def copy(value: Any, depth: int) -> Any:
        nonlocal left
        left -= 1
        if left < 0:
            raise Fault(f"{what} holds more than {MAX_STEPS:,} values")
        if value is None or type(value) is bool:
            return value
        if type(value) is int or type(value) is float:
            return checked(value)
        if type(value) is str:
            return checked_text(value)
        if depth == MAX_DEPTH:
            raise Fault(f"{what} is nested deeper than {MAX_DEPTH} levels")
        if isinstance(value, list | tuple):
            return checked_list([copy(each, depth + 1) for each in value])
        if isinstance(value, Mapping) and all(type(key) is str for key in value):
            return {key: copy(each, depth + 1) for key, each in value.items()}
        hint = "only null, Boolean, Long, Double, String, lists and maps with text keys can be stored"
        raise Fault(f"{what} has a {type(value).__name__} in it, which cannot be stored", hint=hint)

    return copy(value, 0)


def functions_of(item: Any) -> tuple[Function, ...]:
    """What the decorator made of ``item``, one for each name; () when it is no function of expressions."""
    found: tuple[Function, ...] = getattr(item, MARK, ())
    return found


__all__ = ["MARK", "MAX_CPU_S", "function", "functions_of", "plain"]
