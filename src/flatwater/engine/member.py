"""The members of definitions and blocks that are no blocks: time-outs, retry policies, inputs, outputs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from flatwater.engine.document import Fields
from flatwater.engine.expression.operation import kind as name_of
from flatwater.engine.node import RELEASES, InputParam, Release, Retry
from flatwater.engine.parameter import ConversionError, ParamType, blank, convert

MAX_MS: Final = 10 * 365 * 24 * 3600 * 1000  # ten years
MAX_ATTEMPTS: Final = 1_000
_TYPES: Final = {each.value.lower(): each for each in ParamType}
_RETRY_KEYS: Final = ("maxAttempts", "delayMs", "factor", "maxDelayMs", "jitter")
_RELEASES: Final[dict[str, Release]] = {
    "always": "always",
    "failure": "failure",
    "never": "never",
    "true": "always",
    "1": "always",
    "false": "never",
    "0": "never",
    "": "always",
}


def seconds(fields: Fields, key: str) -> float | None:
    found = fields.number(key, 1, MAX_MS)
    return None if found is None else found / 1000


def one_of(fields: Fields, key: str, allowed: Sequence[str]) -> str | None:
    value = fields.text(key)
    if value and value not in allowed:
        fields.wrong(key, f"must be one of {', '.join(allowed)}, not {value[:100]!r}")
        return None
    return value or None


def retry(fields: Fields) -> Retry | None:
    raw = fields.object("retry")
    if not raw:
        return None
    inner = Fields(raw, f"{fields.path}/retry", fields.problems)
    for key in raw:
        if key not in _RETRY_KEYS:
            inner.wrong(key, "is not part of a retry policy", f"it has {', '.join(_RETRY_KEYS)}")
    attempts = inner.number("maxAttempts", 1, MAX_ATTEMPTS, whole=True)
    delay, longest = inner.number("delayMs", 0, MAX_MS), inner.number("maxDelayMs", 0, MAX_MS)
    factor, jitter = inner.number("factor", 1, 100), inner.number("jitter", 0, 1)
    stated = {
        "max_attempts": None if attempts is None else int(attempts),
        "delay_s": None if delay is None else delay / 1000,
        "factor": factor,
        "max_delay_s": None if longest is None else longest / 1000,
        "jitter": jitter,
    }
    return Retry(**{key: value for key, value in stated.items() if value is not None})  # type: ignore[arg-type]


def release(fields: Fields) -> Release:
    """``releaseOnEnd``, else the known systems' ``releaseSites`` flag: when the run's sites are unlocked."""
    key = "releaseOnEnd" if fields.raw.get("releaseOnEnd") is not None else "releaseSites"
    stated = fields.raw.get(key)
    text = "" if stated is None else str(stated).lower()
    found = _RELEASES.get(text) if stated is None or isinstance(stated, (str, bool, int)) else None
    if found is None:
        fields.wrong(key, f"must be one of {', '.join(RELEASES)}, not {name_of(stated)}")
    return found or "always"


def outputs(fields: Fields) -> list[tuple[str, str, ParamType, Any]]:
    return [
        (each.path, name, type_, _stated_value(each.raw)) for each, name, type_ in _declared(fields, "outputParams")
    ]


def _stated_value(raw: dict[str, Any]) -> Any:
    """An output's ``value``: text with a leading ``=``, or ``{type: Expression, value}``, or a literal."""
    value = raw.get("value")
    if isinstance(value, dict) and isinstance(value.get("type"), str) and isinstance(value.get("value"), str):
        return f"={value['value']}" if value["type"].lower() == "expression" else value["value"]
    return value


def inputs(fields: Fields) -> tuple[InputParam, ...]:
    found: list[InputParam] = []
    for each, name, type_ in _declared(fields, "inputParams"):
        default = each.raw.get("defaultValue", each.raw.get("default"))
        try:
            default = None if blank(default, type_) else convert(default, type_)
        except ConversionError as error:
            each.wrong("defaultValue", f"{error}")
        text = each.text("label"), each.text("remark")
        found.append(InputParam(name, type_, each.flag("required"), default, *text))
    return tuple(found)


def _declared(fields: Fields, key: str) -> list[tuple[Fields, str, ParamType]]:
    """The rows of ``inputParams`` or ``outputParams`` with their names and types."""
    found: list[tuple[Fields, str, ParamType]] = []
    seen: set[str] = set()
    for index, raw in enumerate(fields.items(key)):
        path = f"{fields.path}/{key}/{index}"
        if not isinstance(raw, dict):
            fields.problems.add(path, f"a parameter is a JSON object, not {name_of(raw)}")
            continue
        row = Fields(raw, path, fields.problems, f"{key[:-6]} {str(raw.get('name'))[:100]}")
        name, stated = row.text("name", most=200), row.text("type")
        if not name or name in seen:
            row.wrong("name", "is used twice" if name else "is missing")
        type_ = _TYPES.get(stated.lower(), ParamType.ANY)
        if stated.lower() not in (*_TYPES, ""):
            row.wrong("type", f"{stated[:100]!r} is unknown", f"use {', '.join(ParamType)}")
        seen.add(name)
        found.append((row, name, type_))
    return found
