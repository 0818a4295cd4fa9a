"""A tree → one Python closure that evaluates it.

Plain expressions run at no cost for limits: what they can do is bounded by their text, which is bounded. Those that
bind a variable or build lists could multiply (``x.map(a, x.map(b, …))``, ``[a, a]``), so each of their operations pays
a `Meter` for the values it touches, and stops when it is empty.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from difflib import get_close_matches
from typing import Any, Final, TypeAlias

from flatwater.engine.expression.function import FUNCTIONS, Function
from flatwater.engine.expression.operation import BINARY, Fault, checked_list, item, kind, member, negate, text, truth
from flatwater.engine.expression.syntax import (
    MACROS,
    Call,
    Chain,
    Choice,
    Index,
    ListOf,
    Literal,
    Logic,
    Macro,
    MapOf,
    Path,
    Tree,
    Unary,
)

MAX_STEPS: Final = 200_000
"""Values that a metered evaluation may touch: some 20 ms."""
CHARS_PER_STEP: Final = 16

Environment: TypeAlias = Mapping[str, Any]
Closure: TypeAlias = Callable[[Environment], Any]

_SCALARS: Final = frozenset({str, int, float, bool, type(None)})
_METER: Final = ""  # no name in an expression is empty, so the meter travels beside the variables


class Meter:
    """Counts down the values that an evaluation touches."""

    __slots__ = ("left",)

    def __init__(self, steps: int = MAX_STEPS) -> None:
        self.left = steps

    def spend(self, steps: int) -> None:
        self.left -= steps
        if self.left < 0:
            raise Fault(f"the evaluation takes more than {MAX_STEPS:,} steps", hint="do this in a script block")

    def pay(self, value: Any) -> None:
        """Pay for ``value`` and all that is in it, as often as it is in it."""
        pending = [value]
        left = self.left
        while pending:
            value = pending.pop()
            left -= 1 + len(value) // CHARS_PER_STEP if type(value) is str else 1
            if left < 0:
                raise Fault(f"the evaluation takes more than {MAX_STEPS:,} steps", hint="do this in a script block")
            if type(value) is list:
                pending.extend(value)
            elif type(value) not in _SCALARS and isinstance(value, Mapping):
                pending.extend(value.values())
        self.left = left


class Compiler:
    """Makes closures, which may call ``functions``; ``metered`` expressions pay for what they touch."""

    def __init__(self, *, metered: bool, functions: Mapping[str, Function] = FUNCTIONS) -> None:
        self._metered = metered
        self._functions = functions
        self.pure = True

    def closure(self, tree: Tree) -> Closure:
        make: Callable[[Any], Closure] = getattr(self, f"_{type(tree).__name__.lower()}")
        return make(tree)

    def _charged(self, call: Callable[..., Any], steps: int = 0) -> Callable[..., Any]:
        """``call`` that pays for its operands, and for its result, which may be far larger (``replace``)."""

        def charged(environment: Environment, *values: Any) -> Any:
            meter: Meter = environment[_METER]
            meter.spend(steps)
            for value in values:
                meter.pay(value)
            result = call(*values)
            meter.pay(result)
            return result

        return charged

    def _literal(self, tree: Literal) -> Closure:
        value = tree.value
        return lambda environment: value

    def _path(self, tree: Path) -> Closure:
        root, keys = tree.root, tree.keys

        def look_up(environment: Environment) -> Any:
            value = environment.get(root)
            for key in keys:
                value = value.get(key) if type(value) is dict else member(value, key)
            return value

        return look_up

    def _index(self, tree: Index) -> Closure:
        if isinstance(tree.key, Literal) and isinstance(tree.key.value, str):
            target, name = self.closure(tree.target), tree.key.value
            return lambda environment: member(target(environment), name)
        return self._operation(item, (tree.target, tree.key), tree.at, charged=False)

    def _operation(
        self, call: Callable[..., Any], operands: tuple[Tree, ...], at: int, *, charged: bool = True, steps: int = 0
    ) -> Closure:
        parts = [self.closure(operand) for operand in operands]
        if self._metered and charged:
            pay = self._charged(call, steps)
            return _placed(lambda environment: pay(environment, *[part(environment) for part in parts]), at)
        if len(parts) == 1:
            only = parts[0]
            return _placed(lambda environment: call(only(environment)), at)
        if len(parts) == 2:
            first, second = parts
            return _binary(call, first, second, at)
        return _placed(lambda environment: call(*[part(environment) for part in parts]), at)

    def _chain(self, tree: Chain) -> Closure:
        if len(tree.rest) == 1:
            sign, right, at = tree.rest[0]
            return self._operation(BINARY[sign], (tree.first, right), at)
        first = self.closure(tree.first)
        charge = self._charged if self._metered else _free
        rest = [(charge(BINARY[sign]), self.closure(right), at) for sign, right, at in tree.rest]

        def fold(environment: Environment) -> Any:
            value = first(environment)
            for call, right, at in rest:
                other = right(environment)
                try:
                    value = call(environment, value, other)
                except Fault as fault:
                    raise _at(fault, at) from None
            return value

        return fold

    def _logic(self, tree: Logic) -> Closure:
        parts = [_condition(self.closure(part), tree.at) for part in tree.items]
        if len(parts) == 2:
            first, second = parts
            if tree.operator == "&&":
                return lambda environment: first(environment) and second(environment)
            return lambda environment: first(environment) or second(environment)
        if tree.operator == "&&":
            return lambda environment: all(part(environment) for part in parts)
        return lambda environment: any(part(environment) for part in parts)

    def _unary(self, tree: Unary) -> Closure:
        if tree.operator == "-":
            return self._operation(negate, (tree.operand,), tree.at)
        operand = _condition(self.closure(tree.operand), tree.at)
        return lambda environment: not operand(environment)

    def _choice(self, tree: Choice) -> Closure:
        cases = [(_condition(self.closure(test), tree.at), self.closure(value)) for test, value in tree.cases]
        otherwise = self.closure(tree.otherwise)

        def choose(environment: Environment) -> Any:
            for test, value in cases:
                if test(environment):
                    return value(environment)
            return otherwise(environment)

        return choose

    def _call(self, tree: Call) -> Closure:
        if tree.name == "has" and len(tree.arguments) == 1:
            target = self.closure(tree.arguments[0])
            return lambda environment: target(environment) is not None
        function = _function(tree, self._functions)
        self.pure = self.pure and function.pure
        return self._operation(function.call, tree.arguments, tree.at, steps=function.steps)

    def _listof(self, tree: ListOf) -> Closure:
        parts = [self.closure(part) for part in tree.items]
        if not self._metered:
            return lambda environment: [part(environment) for part in parts]

        def build(environment: Environment) -> list[Any]:
            values = [part(environment) for part in parts]
            environment[_METER].pay(values)
            return values

        return build

    def _mapof(self, tree: MapOf) -> Closure:
        parts = [(self.closure(key), self.closure(value)) for key, value in tree.items]

        def build(environment: Environment) -> dict[str, Any]:
            values = {text(key(environment)): value(environment) for key, value in parts}
            environment[_METER].pay(values)
            return values

        return _placed(build, tree.at)

    def _macro(self, tree: Macro) -> Closure:
        target, variable = self.closure(tree.target), tree.variable
        body = self.closure(tree.body)
        test = self.closure(tree.test) if tree.test is not None else None
        if tree.name != "map":
            body = _condition(body, tree.at)
        finish = _MACROS[tree.name]

        def run(environment: Environment) -> Any:
            items = _items(target(environment), tree.name)
            inner = dict(environment)
            meter = inner[_METER]

            def results() -> Any:
                for each in items:
                    meter.pay(None)
                    inner[variable] = each
                    if test is None or truth(test(inner)):
                        yield each, body(inner)

            found = finish(results())
            meter.pay(found)
            return found

        return _placed(run, tree.at)


def _items(value: Any, name: str) -> list[Any]:
    if value is None:
        return []
    if isinstance(value, list):
        return value
    if isinstance(value, Mapping):
        return list(value)
    raise Fault(f"{name} works on a list or a map, not on {kind(value)}")


_MACROS: Final[dict[str, Callable[[Any], Any]]] = {
    "map": lambda pairs: checked_list([result for _, result in pairs]),
    "filter": lambda pairs: [each for each, result in pairs if result],
    "all": lambda pairs: all(result for _, result in pairs),
    "exists": lambda pairs: any(result for _, result in pairs),
    "exists_one": lambda pairs: sum(result for _, result in pairs) == 1,
}


def _function(tree: Call, functions: Mapping[str, Function]) -> Function:
    function = functions.get(tree.name)
    if function is None:
        near = get_close_matches(tree.name, [*functions, *MACROS], 1)
        hint = f"did you mean {near[0]}?" if near else "the functions are: " + ", ".join(sorted(functions))
        raise Fault(f"there is no function {tree.name[:40]}", hint=hint, at=tree.at)
    if not function.least <= len(tree.arguments) <= function.most:
        wanted = f"{function.least}" if function.least == function.most else f"{function.least} to {function.most}"
        detail = f"{tree.name} takes {wanted} arguments, not {len(tree.arguments)}"
        raise Fault(detail, hint=function.description, at=tree.at)
    return function


def _free(call: Callable[[Any, Any], Any]) -> Callable[[Environment, Any, Any], Any]:
    return lambda environment, one, other: call(one, other)


def _at(fault: Fault, at: int) -> Fault:
    if fault.at is None:
        fault.at = at
    return fault


def _placed(closure: Closure, at: int) -> Closure:
    """``closure`` whose faults know where in the text they happen."""

    def placed(environment: Environment) -> Any:
        try:
            return closure(environment)
        except Fault as fault:
            raise _at(fault, at) from None

    return placed


def _binary(call: Callable[[Any, Any], Any], first: Closure, second: Closure, at: int) -> Closure:
    def operate(environment: Environment) -> Any:
        try:
            return call(first(environment), second(environment))
        except Fault as fault:
            raise _at(fault, at) from None

    return operate


def _condition(closure: Closure, at: int) -> Closure:
    def condition(environment: Environment) -> bool:
        value = closure(environment)
        if value is True or value is False:
            return bool(value)
        try:
            return truth(value)
        except Fault as fault:
            raise _at(fault, at) from None

    return condition


def names(paths: Iterable[Path]) -> frozenset[tuple[str, ...]]:
    """What ``paths`` read, without those below another; each stands for everything below it as well."""
    found = {(path.root, *path.keys) for path in paths}
    return frozenset(path for path in found if not any(path[:end] in found for end in range(1, len(path))))


def free(tree: Tree, bound: frozenset[str] = frozenset()) -> Iterator[Path]:
    """The paths in ``tree`` that begin in the scope, not at a variable of a macro."""
    if isinstance(tree, Path):
        if tree.root not in bound:
            yield tree
    elif isinstance(tree, Macro):
        yield from free(tree.target, bound)
        for part in parts(tree)[1:]:
            yield from free(part, bound | {tree.variable})
    else:
        for part in parts(tree):
            yield from free(part, bound)


def parts(tree: Tree) -> tuple[Tree, ...]:
    """The trees directly inside ``tree``."""
    match tree:
        case Index(target, key):
            return target, key
        case Call(_, arguments):
            return arguments
        case Macro(_, target, _, test, body):
            return (target, body) if test is None else (target, test, body)
        case Chain(first, rest):
            return (first, *(operand for _, operand, _ in rest))
        case Logic(_, items) | ListOf(items):
            return items
        case Unary(_, operand):
            return (operand,)
        case Choice(cases, otherwise):
            return (*(part for case in cases for part in case), otherwise)
        case MapOf(items):
            return tuple(part for pair in items for part in pair)
    return ()


def multiplies(tree: Tree) -> bool:
    """Whether evaluating ``tree`` could take far more than its text is long, and must be metered."""
    if isinstance(tree, (Macro, MapOf)):
        return True
    if isinstance(tree, ListOf) and not all(isinstance(each, Literal) for each in tree.items):
        return True
    return any(multiplies(part) for part in parts(tree))
