"""The HTTP family: ask and tell other servers.

``PostBp`` reaches the outside and is of recovery ``operator``: its ``Idempotency-Key`` header is the block's order id,
which is on the disk before the request leaves. A definition may say ``recovery: rerun`` where servers honour that key.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Final
from urllib.parse import urlencode

import msgspec
from msgspec import Meta, Struct

from flatwater.engine.block import BlockCall, block
from flatwater.engine.signal import WaitTimeout
from flatwater.engine.web import Request, WebError, shown_url
from flatwater.errors import RunError

JSON: Final = "application/json"
FORM: Final = "application/x-www-form-urlencoded"
TRANSIENT: Final = frozenset({408, 425, 429})
"""Statuses below 500 after which the same request may succeed."""
MAX_TRIES: Final = 100
_ANSWER_CHARS: Final = 300

Url = Annotated[str, Meta(description="http:// or https:// address")]
Header = Annotated[Any, Meta(description="header fields: a JSON object, its text, or Key-Value")]
Millis = Annotated[int, Meta(ge=1, le=24 * 3600 * 1000)]
Timeout = Annotated[Millis, Meta(description="milliseconds for one request and its whole answer")]
Interval = Annotated[Millis, Meta(description="milliseconds between two tries")]
Again = Annotated[bool, Meta(description="try again when there is no answer, or one of 408, 425, 429 or 5xx")]
Tries = Annotated[int, Meta(ge=0, le=MAX_TRIES, description="how often to try again")]
Strict = Annotated[bool, Meta(description="fail on every status but 2xx")]


class Answer(Struct):
    """``response`` is a JSON value when the answer is JSON, else text."""

    response: Any
    status: int


class Patience(Struct, frozen=True):
    """How often a request is tried again, and whether a status may be a failure."""

    tries: int
    interval_s: float
    strict: bool


@block("GetBp", family="http", aliases=("HttpGetBp",), camel=True)
async def get(
    url: Url,
    header: Header = None,
    param: Annotated[Any, Meta(description="query parameters: a JSON object, its text, or Key-Value")] = None,
    timeout: Timeout = 30_000,
    retry: Again = False,
    retry_times: Tries = 3,
    retry_interval: Interval = 1_000,
    fail_on_status: Strict = True,
    *,
    call: BlockCall,
) -> Answer:
    """Sends a GET request and gives the answer."""
    request = Request(
        method="GET",
        url=url,
        timeout_s=timeout / 1000,
        headers=fields(header, "header"),
        query=fields(param, "param"),
    )
    patience = Patience(1 + retry_times * retry, retry_interval / 1000, fail_on_status)
    return await persist(request, patience, call)


@block("PostBp", family="http", aliases=("HttpPostBp",), recovery="operator", camel=True)
async def post(
    url: Url,
    header: Header = None,
    param: Annotated[Any, Meta(description="the body: any JSON value, text, or Key-Value")] = None,
    media_type: Annotated[str, Meta(description=f"what the body is sent as; {FORM} makes a form of it")] = JSON,
    timeout: Timeout = 30_000,
    retry: Again = False,
    retry_times: Tries = 3,
    retry_interval: Interval = 1_000,
    fail_on_status: Strict = True,
    *,
    call: BlockCall,
) -> Answer:
    """Sends a POST request and gives the answer."""
    headers = fields(header, "header")
    named = {name.lower() for name in headers}
    for name, value in (("Content-Type", media_type), ("Idempotency-Key", call.order_id)):
        if name.lower() not in named:
            headers[name] = value
    body = encoded(param, media_type)
    request = Request(method="POST", url=url, timeout_s=timeout / 1000, headers=headers, body=body)
    patience = Patience(1 + retry_times * retry, retry_interval / 1000, fail_on_status)
    return await persist(request, patience, call)


async def persist(request: Request, patience: Patience, call: BlockCall) -> Answer:
    """Send until there is an answer that will do; the pauses between are durable, so no try is counted twice."""
    shown = f"{request.method} {shown_url(request.url)}"
    for number in range(1, patience.tries + 1):
        if call.waited() is None:  # else an earlier activation has made this try and was in the pause after it
            outcome = await attempt(request, strict=patience.strict, call=call)
            if isinstance(outcome, Answer):
                return outcome
            if number == patience.tries or not outcome.transient:
                raise outcome
            call.log(f"try {number} of {patience.tries}: {outcome}", "warning")
        await pause(patience.interval_s, f"try {number + 1} of {patience.tries} of {shown}", call)
    raise AssertionError("the last try returns or raises")


async def attempt(request: Request, *, strict: bool, call: BlockCall) -> Answer | WebError:
    """One request: its answer, or why there is none that will do."""
    try:
        reply = await call.services.web.call(call.services.spans.outgoing(request))
    except WebError as error:
        return error
    if 200 <= reply.status < 300 or not strict:
        return Answer(reply.body, reply.status)
    told = plain(reply.body)[:_ANSWER_CHARS]
    return WebError(
        f"status {reply.status} {reply.reason}".rstrip() + (f": {told}" if told else ""),
        where=shown_url(request.url),
        hint="failOnStatus=false takes every status for an answer",
        transient=reply.status >= 500 or reply.status in TRANSIENT,
    )


async def pause(seconds: float, reason: str, call: BlockCall) -> None:
    """A timer whose row stays until the block ends: a replay sees how many tries there have been."""
    try:
        await call.wait("timer", call.run_id, reason=reason, timeout_s=seconds)
    except WaitTimeout:
        return


def fields(value: Any, name: str) -> dict[str, str]:
    """Header fields or query parameters, as text by name. Raises `RunError`."""
    if isinstance(value, str):
        try:
            value = msgspec.json.decode(value)
        except msgspec.MsgspecError as error:
            raise RunError(f"{name} is not JSON: {error}", where=name, hint='write {"name": "value"}') from None
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        raise RunError(f"{name} is not a JSON object", where=name, hint='write {"name": "value"}')
    return {str(key): plain(each) for key, each in value.items() if each is not None}


def plain(value: Any) -> str:
    """A scalar as it is written; anything else as JSON."""
    return value if isinstance(value, str) else msgspec.json.encode(value).decode()


def encoded(value: Any, media_type: str) -> bytes | None:
    """The body to send: a form from an object, text as it is, all else as JSON."""
    if value is None:
        return None
    is_text = isinstance(value, str) and not value.lstrip().startswith("{")
    if media_type.partition(";")[0].strip().lower() == FORM and not is_text:
        return urlencode(fields(value, "param")).encode()
    return plain(value).encode()
