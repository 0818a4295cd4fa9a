"""Expressions of definitions: CEL, made null-safe, behind this one package.

The language is CEL (https://cel.dev), read leniently because definitions of the known systems (MVEL) must run as is:

- Look-up never fails: a missing name, key or index, or anything of null, is null. ``has(x)`` is ``x != null``.
- ``+`` joins when one side is text (``'x' + 2`` is ``"x2"``). Long and Double mix. Text that is a number counts as one
  beside a number (``'5' == 5``, ``'5' > 3``, ``'5' * 2``), save for ``+``.
- ``/`` of two Longs is a Long when it comes out even, else a Double: 4/2 = 2 stays an index and reads "2", 2/4 = 0.5 is
  what everybody means. ``%`` takes the sign of the left side.
- ``<`` and its kin are false beside null. In a condition null is false, "true" and "false" count, a number is an error.
- Numbers are 64-bit Longs and finite Doubles; beyond them is an error, so JSON can hold every result.
- ``&&`` and ``||`` stop at the first answer, from left to right.
- Functions: `function.FUNCTIONS`, and those of users (`engine.function`), in front of or behind their first argument;
  macros: `syntax.MACROS`.

Why not the library that was chosen for this (``common-expression-language`` 0.10, in Rust): every operator above, and
every dynamic look-up, would have had to be rewritten into a call back to Python, each copying its operands both ways (1
field of a 1,000-row list: 620 µs); an own parser was needed anyway, for it gives only root names (``blocks``) where
liveness needs ``blocks.b1.siteId``; nine nested ``all`` over ten items hold the GIL for minutes with no way to stop
them; 100,000 brackets end the process with a segmentation fault; and its import costs 30 MB. It is the oracle of the
tests instead: what both can say, both say alike.

Bounded: source 10,000 characters, nesting 40, texts 1,000,000 characters, lists 100,000 items, 200,000 steps for what
binds variables or builds lists; patterns run in RE2, which takes time linear in the text. Nothing is ever handed to
``eval``. Values are shared with the scope, not copied: treat a result as read-only.
"""

from __future__ import annotations

from collections.abc import Mapping
from difflib import get_close_matches
from typing import Any, Final, TypeAlias

from flatwater.engine.expression.evaluation import Closure, Compiler, Meter, free, multiplies, names
from flatwater.engine.expression.function import FUNCTIONS, Function
from flatwater.engine.expression.operation import Fault
from flatwater.engine.expression.syntax import MAX_NESTING, MAX_SOURCE_CHARS, Path, parse
from flatwater.errors import ExpressionError

ROOTS: Final = frozenset({"blocks", "taskInputs", "task"})
"""What the expressions of a definition can see."""

Names: TypeAlias = frozenset[tuple[str, ...]]


class Expression:
    """A compiled expression; immutable, to be shared between runs.

    ``names`` are the paths it reads, as ``("blocks", "b1", "siteId")``; each stands for all below it too. ``pure`` is
    false when it asks for the time or a random value.
    """

    __slots__ = ("_closure", "_metered", "names", "pure", "source")

    def __init__(self, source: str, closure: Closure, names: Names, *, metered: bool, pure: bool) -> None:
        self.source = source
        self.names = names
        self.pure = pure
        self._closure = closure
        self._metered = metered

    def __repr__(self) -> str:
        return f"Expression({self.source!r})"

    def evaluate(self, scope: Mapping[str, Any]) -> Any:
        """The value by the names in ``scope`` (plain JSON values): a plain JSON value. Raises `ExpressionError`."""
        try:
            return self._closure({**scope, "": Meter()} if self._metered else scope)
        except Fault as fault:
            raise _error(self.source, fault) from None
        except RecursionError:
            raise _error(self.source, Fault("a value is nested too deeply")) from None


def compile(
    source: str, *, roots: frozenset[str] | None = ROOTS, functions: Mapping[str, Function] = FUNCTIONS
) -> Expression:
    """Compile ``source``, which may call ``functions``; names outside ``roots`` are refused (``None`` allows all).

    Raises `ExpressionError`.
    """
    try:
        tree = parse(source)
        metered = multiplies(tree)
        compiler = Compiler(metered=metered, functions=functions)
        closure, paths = compiler.closure(tree), list(free(tree))
        _check_roots(paths, roots)
    except Fault as fault:
        raise _error(source, fault) from None
    except RecursionError:
        raise _error(source, Fault("the expression is nested too deeply")) from None
    return Expression(source, closure, names(paths), metered=metered, pure=compiler.pure)


def _check_roots(paths: list[Path], roots: frozenset[str] | None) -> None:
    for path in paths:
        if roots is not None and path.root not in roots:
            near = get_close_matches(path.root, roots, 1)
            hint = f"did you mean {near[0]}?" if near else f"begin with {', '.join(sorted(roots))}, or quote a text"
            raise Fault(f"there is no {path.root[:60]!r}", hint=hint, at=path.at)


def _error(source: str, fault: Fault) -> ExpressionError:
    shown = source if len(source) <= 80 else f"{source[:79]}…"
    where = f"`{shown}`" if fault.at is None else f"column {fault.at + 1} of `{shown}`"
    return ExpressionError(fault.message, where=where, hint=fault.hint)


__all__ = ["MAX_NESTING", "MAX_SOURCE_CHARS", "ROOTS", "Expression", "Names", "compile"]
