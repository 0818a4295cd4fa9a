"""From the bytes of a request to the arguments of a handler. Everything wrong becomes a 4xx that says where."""

from __future__ import annotations

import asyncio
import math
import re
import types
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from typing import Annotated, Any, Union, get_args, get_origin
from urllib.parse import parse_qsl

import msgspec

from flatwater.server.problem import RequestError
from flatwater.server.route import Route

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]

MAX_DEPTH = 100
MAX_QUERY_FIELDS = 50
# A refused body is read and dropped up to here, so that the client gets to read the answer.
MAX_DROPPED_BYTES = 32 * 1024**2
_NUL = re.compile(rb"(?<!\\)(?:\\\\)*\\u0000")
_WHERE = re.compile(r"(.*) - at `(.*)`", re.DOTALL)


async def arguments(route: Route, scope: Scope, receive: Receive, limit: int, timeout_s: float) -> dict[str, Any]:
    """The handler's arguments: path parameters, and ``query``, ``headers`` and ``body`` where it has them.

    Raises RequestError: 400 for what cannot be read, 413, 415, 408, 422 for what is not of the declared types.
    """
    found = {name: _path(name, scope["path_params"][name], kind) for name, kind in route.params.items()}
    given = query(route.query, scope["query_string"])
    if route.query is not None:
        found["query"] = given
    if route.headers is not None:
        found["headers"] = _headers(route.headers, scope["headers"])
    if route.decoder is not None:
        found["body"] = _decode(await read(scope, receive, limit, timeout_s), route.decoder)
    return found


def header(scope: Scope, name: bytes) -> str:
    """The first header of that (lower-case) name, or nothing."""
    return next((value.decode("latin-1") for key, value in scope["headers"] if key == name), "")


async def read(scope: Scope, receive: Receive, limit: int, timeout_s: float) -> bytes:
    """The body, which must be JSON by its content type and at most ``limit`` bytes; never holds more than that."""
    media = header(scope, b"content-type").partition(";")[0].strip().lower()
    if media != "application/json" and not media.endswith("+json"):
        raise RequestError(
            415, "media-type", f"the body is {media or 'of no stated type'}", hint="send application/json"
        )
    length = header(scope, b"content-length")
    chunks: list[bytes] = []
    size = 0
    excess = length.isdigit() and int(length) > limit
    try:
        async with asyncio.timeout(timeout_s):
            more = True
            while more:
                message = await receive()
                if message["type"] == "http.disconnect":
                    raise RequestError(400, "disconnected", "the client went away before its body was complete")
                chunk = message.get("body", b"")
                size += len(chunk)
                more = message.get("more_body", False)
                excess = excess or size > limit
                if not excess:
                    chunks.append(chunk)
                    continue
                chunks.clear()
                if size > MAX_DROPPED_BYTES:
                    break
    except TimeoutError:
        raise RequestError(408, "timeout", f"the body did not arrive within {timeout_s:g} s") from None
    if excess:
        raise RequestError(
            413,
            "too-large",
            f"the body has more than {limit} bytes",
            hint="raise server.max_body_bytes",
            headers={"Connection": "close"},
        )
    return b"".join(chunks)


def _decode(data: bytes, decoder: msgspec.json.Decoder[Any]) -> Any:
    if _NUL.search(data):
        raise RequestError(422, "invalid", "texts must not contain the character U+0000", where="body")
    _check_depth(data)
    try:
        return decoder.decode(data)
    except msgspec.ValidationError as error:
        raise invalid(error, "body") from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise RequestError(400, "malformed", f"the body is not JSON: {error}", where="body") from None


_STRING = re.compile(rb'"(?:[^"\\]|\\.)*"?')


def _check_depth(data: bytes) -> None:
    """Refuse nesting that later stages, which recurse, could not take."""
    if data.count(b"[") + data.count(b"{") <= MAX_DEPTH:
        return
    depth = 0
    for byte in _STRING.sub(b"", data):
        if byte in b"[{":
            depth += 1
            if depth > MAX_DEPTH:
                raise RequestError(422, "invalid", f"the body nests deeper than {MAX_DEPTH}", where="body")
        elif byte in b"]}":
            depth -= 1


def invalid(error: msgspec.ValidationError, part: str) -> RequestError:
    """422 with msgspec's path in ``where``."""
    match = _WHERE.fullmatch(str(error))
    message, place = (match[1], match[2].removeprefix("$").removeprefix(".")) if match else (str(error), "")
    return RequestError(422, "invalid", message, where=f"{part}: {place}" if place else part, hint="see /openapi.json")


def _path(name: str, text: str, kind: Any) -> Any:
    try:
        return msgspec.convert(text, kind, strict=False)
    except msgspec.ValidationError as error:
        raise invalid(error, f"path: {name}") from None


def query(kind: Any, raw: bytes) -> Any:
    """A query string as the struct `kind`; None takes no parameters. Raises RequestError 422."""
    try:
        pairs = parse_qsl(raw.decode("ascii"), keep_blank_values=True, errors="strict", max_num_fields=MAX_QUERY_FIELDS)
    except (ValueError, UnicodeError) as error:
        raise RequestError(422, "invalid", f"the query cannot be read: {error}", where="query") from None
    fields = {} if kind is None else {field.encode_name: field for field in msgspec.structs.fields(kind)}
    values: dict[str, Any] = {}
    for name, value in pairs:
        if name not in fields:
            known = ", ".join(fields) or "none"
            raise RequestError(
                422, "invalid", f"unknown query parameter {name!r}", where="query", hint=f"known: {known}"
            )
        if name in values:
            raise RequestError(422, "invalid", f"query parameter {name!r} is given twice", where="query")
        values[name] = _text(name, value, lists(fields[name].type))
    return None if kind is None else convert(values, kind, "query")


def _text(name: str, value: str, is_list: bool) -> Any:
    if "\0" in value:
        raise RequestError(422, "invalid", "texts must not contain the character U+0000", where=f"query: {name}")
    return value.split(",") if is_list else value


def lists(kind: Any) -> bool:
    """Whether a query parameter of this type is a list, written with commas."""
    if get_origin(kind) is Annotated:
        return lists(kind.__origin__)
    if get_origin(kind) in (Union, types.UnionType):
        return any(lists(part) for part in get_args(kind))
    return get_origin(kind) in (tuple, list)


def convert(values: Mapping[str, Any], kind: Any, part: str) -> Any:
    """``values``, all text, as a struct; numbers must be finite."""
    try:
        found = msgspec.convert(values, kind, strict=False)
    except msgspec.ValidationError as error:
        raise invalid(error, part) from None
    for field in msgspec.structs.fields(kind):
        value = getattr(found, field.name)
        if field.encode_name in values and value is None:  # what is written "null" is a text, not nothing
            raise RequestError(
                422, "invalid", "a parameter that is given has a value", where=f"{part}: {field.encode_name}"
            )
        if isinstance(value, float) and not math.isfinite(value):
            raise RequestError(422, "invalid", "must be finite", where=f"{part}: {field.encode_name}")
    return found


def _headers(kind: Any, pairs: list[tuple[bytes, bytes]]) -> Any:
    names = {field.encode_name: field for field in msgspec.structs.fields(kind)}
    found = {name.decode("latin-1"): value.decode("latin-1") for name, value in reversed(pairs)}
    return convert({name: found[name] for name in names if name in found}, kind, "header")
