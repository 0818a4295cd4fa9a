"""Report renderers of users: a function that turns a report's JSON document into a form of its own.

    @renderer("markdown", of="diagnosis")
    def markdown(document: dict) -> str: ...

A renderer is given what ``--json`` prints (docs/reference/diagnosis.md): a stable form, with no value of the program's
data in it. Packages offer renderers by the entry points ``flatwater.reports``; a module that is named offers its own.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Final, Literal, TypeAlias, TypeVar

from flatwater.errors import FlatwaterError
from flatwater.extension import MAX_NAME_CHARS, Catalogue, imported, installed, marked

Report: TypeAlias = Literal["diagnosis", "recording"]

ENTRY_POINTS: Final = "flatwater.reports"
MARK: Final = "__flatwater_renderer__"
MAX_BYTES: Final = 64 * 1024 * 1024
"""Size of what a renderer may give."""
REPORTS: Final = ("diagnosis", "recording")

F = TypeVar("F", bound=Callable[..., Any])


class RenderError(FlatwaterError, code="render"):
    """The report could not be rendered."""


@dataclass(frozen=True, slots=True)
class Renderer:
    """``render(document)`` gives text or bytes; a built-in one has none: who prints it knows how."""

    name: str
    description: str
    render: Callable[[dict[str, Any]], Any] | None = None
    origin: str = ""

    def __call__(self, document: dict[str, Any]) -> bytes:
        """The rendered report, text as UTF-8. Raises `RenderError`, which names the renderer's function."""
        assert self.render is not None
        try:
            found = self.render(document)
        except Exception as error:  # whatever a user's function raises
            detail = f"format {self.name} of {self.origin} raised {type(error).__name__}: {error}"
            raise RenderError(detail, hint="--format json prints what it was given") from error
        whole = found.encode() if isinstance(found, str) else found
        if not isinstance(whole, bytes):
            kind = type(found).__name__
            raise RenderError(f"format {self.name} of {self.origin} gave a {kind}", hint="give text or bytes")
        if len(whole) > MAX_BYTES:
            raise RenderError(f"format {self.name} of {self.origin} gave {len(whole):,} bytes, at most {MAX_BYTES:,}")
        return whole


BUILT_IN: Final = {
    "text": Renderer("text", "For people, on a terminal."),
    "json": Renderer("json", "Everything, for programs."),
}


def renderer(name: str, *, of: Report = "diagnosis", description: str = "") -> Callable[[F], F]:
    """Make a function the renderer of ``--format name`` for diagnoses or recordings.

    It takes the report's JSON document and gives text or bytes. The description defaults to the first line of the
    docstring. Raises TypeError when it cannot be one.
    """

    def declare(call: F) -> F:
        if not re.fullmatch(r"[a-z][a-z0-9_-]*", name) or len(name) > MAX_NAME_CHARS:
            raise TypeError(f"{name!r} cannot be a format's name: small letters, digits, - and _")
        if of not in REPORTS:
            raise TypeError(f"format {name}: there are reports of {' and '.join(REPORTS)}, not {of!r}")
        if inspect.iscoroutinefunction(call):
            raise TypeError(f"format {name} must be a plain function")
        about = description or (inspect.getdoc(call) or "").split("\n")[0]
        made = Renderer(name, about, call, f"{call.__module__}.{call.__qualname__}")
        setattr(call, MARK, (*getattr(call, MARK, ()), (of, made)))
        return call

    return declare


def renderers(of: Report, modules: Iterable[str] = ()) -> Catalogue[Renderer]:
    """The formats of a report by name: built-in ones, those of installed packages, and those of ``modules``.

    Raises ``SettingError`` for what cannot be loaded, ``ConflictError`` when two have one name, TypeError for an entry
    point that offers something else.
    """
    found = Catalogue("report format", BUILT_IN)
    for item in (*installed(ENTRY_POINTS), *imported(modules, "report formats")):
        for each in marked(item, MARK):
            for report, made in getattr(each, MARK, None) or _refuse(each):
                if report == of:
                    found.add(made.name, made, made.origin)
    return found


def _refuse(item: Any) -> tuple[()]:
    raise TypeError(f"{item!r} is not a report renderer; decorate it with @renderer(…)")


__all__ = ["RenderError", "Renderer", "renderer", "renderers"]
