"""Where alerts go: the log, a command, a webhook. One thread, a bounded queue; the recorder never waits for it."""

from __future__ import annotations

import json
import logging
import os
import queue
import shlex
import subprocess
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any, Final, Self

import msgspec

from flatwater.bounded.ledger import Usage
from flatwater.errors import FlatwaterError, InputError
from flatwater.memory.alert import AlertEvent

logger = logging.getLogger(__name__)

Sink = Callable[[dict[str, Any]], None]

_BUSY: Final = frozenset({408, 425, 429})


class SinkError(InputError, code="sink"):
    """The place for alerts is not understood."""


class DeliveryError(FlatwaterError, code="delivery"):
    """The alert could not be delivered."""


class DeliveryStatistics(Usage, frozen=True, kw_only=True):
    """``size`` alerts wait, of ``bound``; those above are dropped (``evictions``). Deliveries count per sink."""

    delivered: int
    failed: int


def sink(text: str, *, timeout_s: float = 10.0, tries: int = 3, max_pause_s: float = 10.0) -> Sink:
    """``log``, ``exec:COMMAND WORDS`` or ``webhook:URL``; raises `SinkError`.

    A command gets the alert as JSON on its standard input and in ``FLATWATER_ALERT_*`` variables; it is started
    without a shell and killed after ``timeout_s``. A webhook gets a POST of the same JSON; no answer, 5xx and "busy"
    are tried again, ``tries`` times in all.
    """
    kind, _, rest = text.strip().partition(":")
    if kind == "log" and not rest:
        return _log
    if kind == "exec" and rest.strip():
        try:
            words = shlex.split(rest)
        except ValueError as error:
            raise SinkError(f"the command's words cannot be told apart: {error}", where=text) from None
        return lambda alert: _execute(words, alert, timeout_s)
    if kind == "webhook" and rest.startswith(("http://", "https://")):
        return lambda alert: _post(rest, alert, timeout_s, tries, max_pause_s)
    raise SinkError("no such place", where=text, hint="give log, exec:COMMAND WORDS or webhook:http(s)://…")


def document(event: AlertEvent, wall: float) -> dict[str, Any]:
    """The alert as commands and webhooks get it; ``wall``: seconds since 1970."""
    stamp = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(wall))
    return {**msgspec.structs.asdict(event), "at": stamp, "host": os.uname().nodename}


class Delivery:
    """Delivers alerts to ``sinks`` in the order in which they came, in a thread of its own.

    ``max_pending`` wait; ``close`` gives what waits ``close_s`` to go out.
    """

    kind = "alert delivery"

    def __init__(
        self, sinks: Sequence[Sink], *, max_pending: int = 100, close_s: float = 15.0, name: str = "alert delivery"
    ) -> None:
        self.name = name
        self._sinks = tuple(sinks)
        self._close_s = close_s
        self._queue: queue.Queue[dict[str, Any] | None] = queue.Queue(max_pending)
        self._max_pending = max_pending
        self._delivered = self._failed = self._dropped = 0
        self._thread: threading.Thread | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def send(self, event: AlertEvent, wall: float | None = None) -> None:
        """Queue one alert; dropped and counted when too many wait."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._work, name="flatwater-alerts", daemon=True)
            self._thread.start()
        try:
            self._queue.put_nowait(document(event, time.time() if wall is None else wall))
        except queue.Full:
            self._dropped += 1
            logger.warning("an alert was dropped, %d wait: %s", self._max_pending, event.message)

    def statistics(self) -> DeliveryStatistics:
        return DeliveryStatistics(
            size=self._queue.qsize(),
            bound=self._max_pending,
            evictions=self._dropped,
            delivered=self._delivered,
            failed=self._failed,
        )

    def close(self) -> None:
        """Let what waits go out, for at most ``close_s``."""
        thread, self._thread = self._thread, None
        if thread is None:
            return
        deadline = time.monotonic() + self._close_s
        try:
            self._queue.put(None, timeout=self._close_s)
        except queue.Full:
            return
        thread.join(max(0.0, deadline - time.monotonic()))

    def _work(self) -> None:
        while (alert := self._queue.get()) is not None:
            for deliver in self._sinks:
                try:
                    deliver(alert)
                    self._delivered += 1
                except (FlatwaterError, OSError) as error:
                    self._failed += 1
                    logger.warning("%s", error)


def _log(alert: dict[str, Any]) -> None:
    logger.log(logging.WARNING if alert["kind"] == "raised" else logging.INFO, "alert: %s", alert["message"])


def _execute(words: Sequence[str], alert: dict[str, Any], timeout_s: float) -> None:
    variables = {f"FLATWATER_ALERT_{key.upper()}": "" if value is None else str(value) for key, value in alert.items()}
    try:
        done = subprocess.run(  # noqa: S603 (the user's own command, word by word)
            words,
            input=json.dumps(alert).encode(),
            env={**os.environ, **variables},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            timeout=timeout_s,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise DeliveryError(f"killed after {timeout_s:g} s", where=words[0]) from None
    except OSError as error:
        raise DeliveryError(error.strerror or str(error), where=words[0]) from None
    if done.returncode:
        raise DeliveryError(f"exit status {done.returncode}", where=words[0])


def _post(url: str, alert: dict[str, Any], timeout_s: float, tries: int, max_pause_s: float) -> None:
    for attempt in range(1, tries + 1):
        reason, again = _posted(url, alert, timeout_s)
        if not reason:
            return
        if not again or attempt == tries:
            times = f" ({attempt} times)" if attempt > 1 else ""
            raise DeliveryError(f"{reason}{times}", where=url.partition("?")[0])
        time.sleep(min(max_pause_s, 0.5 * 2**attempt))


def _posted(url: str, alert: dict[str, Any], timeout_s: float) -> tuple[str, bool]:
    """What went wrong ("" when nothing), and whether trying again may help."""
    import http.client
    import urllib.error
    import urllib.request

    request = urllib.request.Request(url, json.dumps(alert).encode(), {"content-type": "application/json"})  # noqa: S310
    try:
        with urllib.request.urlopen(request, timeout=timeout_s) as answer:  # noqa: S310 (http and https alone)
            answer.read(1024)
        return "", False
    except urllib.error.HTTPError as error:
        error.close()
        return f"status {error.code}", error.code >= 500 or error.code in _BUSY
    except (OSError, http.client.HTTPException) as error:
        return str(getattr(error, "reason", error)), True
