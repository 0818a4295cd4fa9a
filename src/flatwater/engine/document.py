"""JSON documents that come from outside: decoding within limits, and the list of what is wrong with them."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final, TypeAlias

import msgspec

from flatwater.engine.expression.operation import LONG_MAX, LONG_MIN, kind
from flatwater.errors import DefinitionError, Problem

if TYPE_CHECKING:
    from flatwater.engine.node import Limits

Document: TypeAlias = Mapping[str, Any] | bytes | str
_BYTE: Final = re.compile(r"\(byte ([0-9]+)\)")


class Problems:
    """Collects problems up to a number, and counts the others. True when there are any."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._found: list[Problem] = []
        self._more = 0

    def add(self, path: str, message: str, hint: str = "") -> None:
        if len(self._found) < self._most:
            self._found.append(Problem(path, message, hint))
        else:
            self._more += 1

    def __bool__(self) -> bool:
        return bool(self._found)

    def __len__(self) -> int:
        return len(self._found) + self._more

    def listed(self) -> tuple[Problem, ...]:
        """The problems, and a line for those beyond the limit."""
        rest = (Problem("", f"and {self._more:,} more problems"),) if self._more else ()
        return (*self._found, *rest)

    def raise_any(self, where: str = "", error: type[DefinitionError] = DefinitionError) -> None:
        """Raise ``error`` if there are problems."""
        if self._found:
            raise error(self.listed(), where=where[:200])


def escape(key: Any) -> str:
    """One step of a JSON pointer (RFC 6901)."""
    return str(key)[:200].replace("~", "~0").replace("/", "~1")


def decode(data: Document, limits: Limits) -> dict[str, Any]:
    """The document as plain values of our own. Raises `DefinitionError`: too large, malformed, no object."""
    problems = Problems(limits.max_problems)
    body = _encoded(data, problems, limits)
    found = None if problems else _parse(body, problems, limits)
    if not problems:
        check_plain(found, problems, limits.max_json_depth)
    if not problems and not isinstance(found, dict):
        problems.add("", f"a definition is a JSON object, not {kind(found)}")
    problems.raise_any()
    return found or {}


def _encoded(data: Document, problems: Problems, limits: Limits) -> bytes:
    body = b""
    try:
        if isinstance(data, str):
            body = data.encode()
        elif isinstance(data, bytes):
            body = data
        elif check_plain(data := dict(data), problems, limits.max_json_depth):
            body = msgspec.json.encode(data)
    except UnicodeError as error:
        problems.add("", f"the text is not Unicode: {error}")
    if len(body) > limits.max_body_bytes:
        hint = "move parts into definitions of their own and start them with SubTask::<id>"
        problems.add("", f"the definition has {len(body):,} bytes, more than {limits.max_body_bytes:,}", hint)
    return body


def _parse(body: bytes, problems: Problems, limits: Limits) -> Any:
    try:
        return msgspec.json.decode(body)
    except RecursionError:
        problems.add("", "the JSON is nested too deeply", f"at most {limits.max_json_depth} levels are allowed")
    except (msgspec.MsgspecError, UnicodeError) as error:
        problems.add("", f"{error}{_position(body, str(error))}")
    return None


def _position(body: bytes, message: str) -> str:
    """``, line 3 column 7`` for msgspec's ``(byte 42)``."""
    match = _BYTE.search(message)
    if match is None:
        return ""
    before = body[: int(match[1])]
    line, column = before.count(b"\n") + 1, len(before[before.rfind(b"\n") + 1 :].decode(errors="replace")) + 1
    return f", line {line} column {column}"


def check_plain(data: Any, problems: Problems, max_depth: int, path: str = "") -> bool:
    """Whether ``data`` is JSON that the store can hold: text keys, finite numbers, 64-bit whole numbers, not too deep.

    Adds a problem for each part that is not. Walks without recursion.
    """
    before = len(problems)
    pending: list[tuple[str, Any, int]] = [(path, data, 0)]
    while pending:
        where, value, depth = pending.pop()
        if not isinstance(value, (dict, list, tuple)):
            if reason := _unfit(value):
                problems.add(where, reason)
            continue
        if depth >= max_depth:
            problems.add(where[:500], "the JSON is nested too deeply", f"at most {max_depth} levels are allowed")
            break
        if isinstance(value, dict) and any(not isinstance(key, str) or _unfit(key) for key in value):
            problems.add(where, "the keys of a JSON object are texts")
        pairs = value.items() if isinstance(value, dict) else enumerate(value)
        for key, each in pairs:
            if isinstance(each, (dict, list, tuple)) or _unfit(each):
                pending.append((f"{where}/{escape(key)}", each, depth + 1))
    return len(problems) == before


def _unfit(value: Any) -> str:
    """Why a scalar cannot be JSON, or nothing."""
    if value is None or value is True or value is False:
        return ""
    if isinstance(value, str):
        return "" if value.isascii() or not _torn(value) else "the text holds half of a character (a lone surrogate)"
    if isinstance(value, int):
        return "" if LONG_MIN <= value <= LONG_MAX else "the whole number is beyond 64 bits"
    if isinstance(value, float):
        return "" if math.isfinite(value) else "the number is not finite"
    return f"{type(value).__name__} is not a JSON type"


def _torn(value: str) -> bool:
    try:
        value.encode()
    except UnicodeEncodeError:
        return True
    return False


class Fields:
    """Reads the members of one JSON object by type; what is wrong becomes a problem and reads as the default."""

    def __init__(self, raw: dict[str, Any], path: str, problems: Problems, owner: str = "") -> None:
        self.raw = raw
        self.path = path
        self.problems = problems
        self._owner = f"{owner}: " if owner else ""

    def wrong(self, key: str, message: str, hint: str = "") -> None:
        """Add a problem with the member ``key``."""
        self.problems.add(f"{self.path}/{escape(key)}", f"{self._owner}{key} {message}", hint)

    def _typed(self, key: str, types: Any, wanted: str) -> Any:
        value = self.raw.get(key)
        if value is None or (isinstance(value, types) and (not isinstance(value, bool) or types is bool)):
            return value
        self.wrong(key, f"must be {wanted}, not {kind(value)}")
        return None

    def text(self, key: str, default: str = "", *, most: int = 10_000) -> str:
        value = self._typed(key, str, "text")
        if value is not None and len(value) > most:
            self.wrong(key, f"has {len(value):,} characters, more than {most:,}")
        return default if value is None else str(value)

    def flag(self, key: str, *, default: bool = False) -> bool:
        value = self._typed(key, bool, "true or false")
        return default if value is None else bool(value)

    def number(self, key: str, low: float, high: float, *, whole: bool = False) -> float | None:
        """A number from ``low`` to ``high``; None when it is absent or wrong."""
        value = self._typed(key, int if whole else (int, float), "a whole number" if whole else "a number")
        if value is not None and not low <= value <= high:
            self.wrong(key, f"must be from {low:,} to {high:,}, not {value:,}")
            return None
        return value  # type: ignore[no-any-return]

    def items(self, key: str) -> list[Any]:
        return self._typed(key, list, "a JSON array") or []

    def object(self, key: str) -> dict[str, Any]:
        return self._typed(key, dict, "a JSON object") or {}
