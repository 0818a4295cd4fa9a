"""The data family: values, the cache that runs share, the log, and functions of the user."""

from __future__ import annotations

import inspect
import uuid
from collections.abc import Mapping
from time import time
from typing import Annotated, Any, Final

import msgspec
from msgspec import Meta, Struct

from flatwater.engine.block import BlockCall, block
from flatwater.errors import InputError, NotFoundError, RunError
from flatwater.store import cache

MAX_KEY: Final = 200
MAX_LINE: Final = 10_000
_KNOWN: Final = 20

Key = Annotated[str, Meta(min_length=1, max_length=MAX_KEY, description="shared by all runs of the database")]
Text = Annotated[str, Meta(description="JSON text")]


class CurrentTime(Struct, rename={"current": "currentTimeStamp"}):
    current: int


class Timestamp(Struct):
    timestamp: int


class Uuid(Struct, rename="camel"):
    create_uuid: str


class Object(Struct, rename="camel"):
    convert_object: dict[str, Any]


class Array(Struct, rename="camel"):
    convert_array: list[Any]


class Cached(Struct):
    value: Any


# ---- values -----------------------------------------------------------------------------------------


@block("CurrentTimeStampBp", family="data", pure=True)
async def current_time_stamp() -> CurrentTime:
    """Gives the time now, in milliseconds since the epoch."""
    return CurrentTime(int(time() * 1000))


@block("TimestampBp", family="data", pure=True)
async def timestamp() -> Timestamp:
    """Gives the time now, in milliseconds since the epoch."""
    return Timestamp(int(time() * 1000))


@block("CreateUuidBp", family="data", pure=True)
async def create_uuid() -> Uuid:
    """Gives a new random UUID."""
    return Uuid(str(uuid.uuid4()))


@block("StringToJsonObjectBp", family="data", pure=True, camel=True)
async def string_to_json_object(convert_string: Text) -> Object:
    """Reads a JSON object from text."""
    return Object(_parsed(convert_string, dict, "object"))


@block("StringToJsonArrayBp", family="data", pure=True, camel=True)
async def string_to_json_array(convert_string: Text) -> Array:
    """Reads a JSON array from text."""
    return Array(_parsed(convert_string, list, "array"))


def _parsed(text: str, kind: type, noun: str) -> Any:
    try:
        value = msgspec.json.decode(text)
    except (msgspec.MsgspecError, RecursionError) as error:
        raise InputError(f"convertString is not JSON: {error}", where="convertString") from None
    if not isinstance(value, kind):
        raise InputError(f"convertString is JSON, but no {noun}: {text[:100]}", where="convertString")
    return value


# ---- cache ------------------------------------------------------------------------------------------


@block("CacheDataBp", family="data", camel=True)
async def cache_data(
    key: Key, value: Annotated[Any, Meta(description="any JSON value")] = None, *, call: BlockCall
) -> None:
    """Keeps a value for all runs. When the cache is full, what was unchanged for longest leaves."""
    text, options = msgspec.json.encode(value).decode(), call.services.options
    await call.transact(cache.put, key, text, time(), options.max_cache_entries, options.max_cache_bytes)


@block("GetCacheDataBp", family="data", camel=True)
async def get_cache_data(key: Key, *, call: BlockCall) -> Cached:
    """Gives a value of the cache, null when there is none."""
    text = await call.services.store.read(cache.get, key)
    return Cached(None if text is None else msgspec.json.decode(text))


@block("ClearCacheDataBp", family="data", camel=True)
async def clear_cache_data(key: Key, *, call: BlockCall) -> None:
    """Forgets a value of the cache."""
    await call.transact(cache.clear, key)


# ---- log and functions ------------------------------------------------------------------------------


@block("PrintBp", family="data", camel=True)
async def print_(
    message: Annotated[Any, Meta(description="text, or any JSON value")] = None, *, call: BlockCall
) -> None:
    """Writes a line to the run's log."""
    text = message if isinstance(message, str) else msgspec.json.encode(message).decode()
    call.log(text[:MAX_LINE])


@block("ScriptBp", family="data", aliases=("ScriptVariablesBp",), camel=True)
async def script(
    function_name: Annotated[str, Meta(min_length=1, description="a function that the engine was given by name")],
    function_args: Annotated[Any, Meta(description="an object: keyword arguments; else the one argument")] = None,
    *,
    call: BlockCall,
) -> None:
    """Calls a Python function; the items of the dict that it returns become task variables.

    A function with a parameter named ``call`` is given the block's call. Plain functions run in a thread.
    """
    functions = call.services.functions
    function = functions.get(function_name)
    if function is None:
        known = ", ".join(sorted(functions)[:_KNOWN]) or "none"
        raise NotFoundError(f"function {function_name!r}", where=call.path, hint=f"registered: {known}")
    result = await _called(function, function_args, call)
    if result is None:
        return
    if not isinstance(result, Mapping):
        kind = type(result).__name__
        raise RunError(f"{function_name} returned {kind}", where=call.path, hint="return a dict of variables, or None")
    for name, value in result.items():
        call.set_variable(str(name), _plain(value, function_name, call))


async def _called(function: Any, argument: Any, call: BlockCall) -> Any:
    """The function's result. Raises `InputError` when it does not take what it is given."""
    signature = inspect.signature(function)
    given: dict[str, Any] = {"call": call} if "call" in signature.parameters else {}
    if isinstance(argument, str) and argument.lstrip()[:1] in ("{", "["):
        argument = _loose(argument)
    named = argument if isinstance(argument, Mapping) else {}
    rest = [] if argument is None or argument is named else [argument]
    try:
        bound = signature.bind(*rest, **{**named, **given})
    except TypeError as error:
        raise InputError(f"functionArgs do not fit: {error}", where=call.path, hint=f"it takes {signature}") from None
    if inspect.iscoroutinefunction(function):
        return await function(*bound.args, **bound.kwargs)
    return await call.services.in_thread(lambda: function(*bound.args, **bound.kwargs), {})


def _loose(text: str) -> Any:
    """JSON text as its value; other text as it is."""
    try:
        return msgspec.json.decode(text)
    except (msgspec.MsgspecError, RecursionError):
        return text


def _plain(value: Any, function_name: str, call: BlockCall) -> Any:
    """The value as the store would give it back. Raises `RunError` when JSON cannot hold it."""
    try:
        return msgspec.json.decode(msgspec.json.encode(value))
    except (TypeError, ValueError, RecursionError) as error:
        raise RunError(f"{function_name} returned what JSON cannot hold: {error}", where=call.path) from None
