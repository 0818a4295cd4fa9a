"""Errors as HTTP answers: ``{"error": {"code", "message", "where"?, "hint"?, "problems"?}}``."""

from __future__ import annotations

import logging
import uuid
from typing import ClassVar

import msgspec

from flatwater.errors import FlatwaterError, Problem, StoreError

log = logging.getLogger(__name__)


class ErrorBody(msgspec.Struct, frozen=True, omit_defaults=True):
    """``code`` is stable, ``message`` for people; ``where`` names the place, ``hint`` says what to do."""

    code: str
    message: str
    where: str = ""
    hint: str = ""
    problems: tuple[Problem, ...] = ()


class ErrorAnswer(msgspec.Struct, frozen=True):
    """What every failed request is answered with."""

    error: ErrorBody


class RequestError(FlatwaterError):
    """The request was refused.

    One class for what only HTTP knows (methods, media types, sizes): ``http`` is the status, ``name`` the code.
    """

    summary: ClassVar[str] = "The request was refused."

    def __init__(
        self,
        http: int,
        name: str,
        detail: str,
        *,
        where: str = "",
        hint: str = "",
        headers: dict[str, str] | None = None,
    ) -> None:
        super().__init__(detail, where=where, hint=hint)
        self.http = http
        self.name = name
        self.headers = headers or {}

    @property
    def message(self) -> str:
        return self.detail


class Failure(msgspec.Struct, frozen=True):
    """An answer to a failed request, before it is bytes."""

    status: int
    body: ErrorBody
    headers: dict[str, str]


def failure(error: BaseException) -> Failure:
    """The answer to a request that raised ``error``. What nobody foresaw is logged and answered 500 without details."""
    if isinstance(error, RequestError):
        body = ErrorBody(error.name, error.message, error.where, error.hint)
        return Failure(error.http, body, error.headers)
    # The store's troubles (full, damaged, taken over) are this server's, not the caller's: another may do better.
    status = 503 if isinstance(error, StoreError) else getattr(error, "status", 500)
    if isinstance(error, FlatwaterError) and status != 500:
        problems: tuple[Problem, ...] = tuple(getattr(error, "problems", ()))
        headers = {"Retry-After": "1"} if status in (429, 503) else {}
        message = error.summary if problems else error.message
        return Failure(status, ErrorBody(error.code, message, error.where, error.hint, problems), headers)
    ticket = uuid.uuid4().hex[:12]
    log.error("request failed, ticket %s", ticket, exc_info=error)
    return Failure(
        500, ErrorBody("internal", "Something went wrong here.", f"ticket {ticket}", "see the server's log"), {}
    )
