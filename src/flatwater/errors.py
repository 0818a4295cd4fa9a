"""Every error that Flatwater raises, under one root.

The first sentence of a class's docstring is the first sentence of its message, so what a class says is written once.
Subclasses live where they belong when only one layer raises them; those that cross layers live here.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, ClassVar

import msgspec


class Problem(msgspec.Struct, frozen=True):
    """One thing wrong with a definition or a document.

    ``path`` says where (a block path or a JSON pointer, ``""`` for the whole), ``message`` what, ``hint`` what to do.
    """

    path: str
    message: str
    hint: str = ""

    def __str__(self) -> str:
        where = f"{self.path}: " if self.path else ""
        hint = f" ({self.hint})" if self.hint else ""
        return f"{where}{self.message}{hint}"


class FlatwaterError(Exception):
    """Flatwater could not do what was asked.

    ``detail`` continues the docstring's first sentence; ``where`` names the place (a path, a file, an id); ``hint``
    says what to do about it. ``code`` is the stable name that the HTTP API and the command line show; ``status`` is
    the HTTP status that goes with it; a subclass names both as it is made, or has its parent's.
    """

    code: ClassVar[str] = "error"
    status: ClassVar[int] = 500
    summary: ClassVar[str] = "Flatwater could not do what was asked."

    def __init_subclass__(cls, *, code: str = "", status: int = 0, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        cls.code = code or cls.code
        cls.status = status or cls.status
        if cls.__doc__:  # absent under python -OO: then the parent's sentence stays
            cls.summary = cls.__doc__.strip().split("\n", 1)[0]

    def __init__(self, detail: str = "", *, where: str = "", hint: str = "") -> None:
        super().__init__(detail)
        self.detail = detail
        self.where = where
        self.hint = hint

    @property
    def message(self) -> str:
        """What was wrong, in one line, without the place and the hint."""
        if not self.detail:
            return self.summary
        return f"{self.summary.rstrip('.')}: {self.detail}"

    def __str__(self) -> str:
        where = f" [{self.where}]" if self.where else ""
        hint = f" — {self.hint}" if self.hint else ""
        return f"{self.message}{where}{hint}"

    def __reduce__(self) -> tuple[Any, ...]:
        # Keyword-only arguments are lost by BaseException's own pickling; errors cross process borders.
        return (type(self).__new__, (type(self),), {**self.__dict__, "args": self.args})


class SettingError(FlatwaterError, code="setting", status=400):
    """A setting is wrong."""


class InputError(FlatwaterError, code="input", status=400):
    """The request is malformed."""


class NotFoundError(FlatwaterError, code="not_found", status=404):
    """There is no such thing."""


class ConflictError(FlatwaterError, code="conflict", status=409):
    """The present state does not allow this."""


class LimitError(FlatwaterError, code="limit", status=429):
    """A limit was reached."""


class ClosedError(FlatwaterError, code="closed", status=503):
    """This has been stopped."""


class StoreError(FlatwaterError, code="store", status=503):
    """The store could not read or write."""


class StoreFullError(StoreError, code="store_full", status=507):
    """The store has no room left."""


class DamagedError(StoreError, code="store_damaged", status=500):
    """The database file is damaged."""


class FencedError(StoreError, code="fenced", status=409):
    """Another worker took over this work."""


class DefinitionError(FlatwaterError, code="definition", status=422):
    """The definition is not valid.

    ``problems`` lists all that is wrong, each with its path, never just the first.
    """

    def __init__(self, problems: Iterable[Problem], *, where: str = "", hint: str = "") -> None:
        self.problems = tuple(problems)
        count = len(self.problems)
        super().__init__(f"{count} problem{'' if count == 1 else 's'}", where=where, hint=hint)

    def __str__(self) -> str:
        return "\n  ".join([super().__str__(), *map(str, self.problems)])


class InputsError(DefinitionError, code="inputs"):
    """The inputs of the run are not valid.

    ``problems`` lists all that is wrong, each with its path, never just the first.
    """


class ExpressionError(FlatwaterError, code="expression", status=422):
    """The expression could not be evaluated."""


class RunError(FlatwaterError, code="run"):
    """The run failed."""


class CanceledError(RunError, code="canceled", status=409):
    """The run was canceled."""


class DeadlineError(RunError, code="deadline", status=504):
    """The time allowed has passed."""
