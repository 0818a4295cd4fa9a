"""Run ids: ULIDs (https://github.com/ulid/spec), 26 characters that sort by the time of creation."""

from __future__ import annotations

import hashlib
import os
import threading
import time

ALPHABET = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
LENGTH = 26
_TIME = 10
_PAIRS = [a + b for a in ALPHABET for b in ALPHABET]
_VALUES = {char: value for value, char in enumerate(ALPHABET)}
_TOP = 1 << 80


def _text(value: int, length: int) -> str:
    pairs = [_PAIRS[value >> shift & 1023] for shift in range(5 * (length - 2), -1, -10)]
    return "".join(pairs)


class Ident:
    """Makes ids that rise strictly within this object, also within one millisecond and when the clock steps back.

    Rising ids keep equal ranks in order of arrival and make new rows append to the end of the primary index.
    Safe to call from several threads.
    """

    __slots__ = ("_lock", "_millis", "_prefix", "_tail")

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._millis = -1
        self._prefix = ""
        self._tail = 0

    def __call__(self) -> str:
        with self._lock:
            millis = time.time_ns() // 1_000_000
            tail = self._tail + 1
            if millis > self._millis or tail >= _TOP:
                millis = max(millis, self._millis + 1)
                self._millis, self._prefix = millis, _text(millis, _TIME)
                tail = int.from_bytes(os.urandom(10), "big")
            self._tail = tail
            return self._prefix + _text(tail, LENGTH - _TIME)


new_id = Ident()


def child_id(parent_id: str, path: str) -> str:
    """The id of the run that block `path` of run `parent_id` starts: always the same, so twice is once."""
    digest = hashlib.sha256(f"{parent_id}\n{path}".encode()).digest()
    return parent_id[:_TIME] + _text(int.from_bytes(digest[:10], "big"), LENGTH - _TIME)


def created_at(run_id: str) -> float:
    """Seconds since the epoch at which the id (for a child: its root's id) was made.

    Raises:
        ValueError: not an id.
    """
    if not is_id(run_id):
        raise ValueError(f"{run_id!r} is not a run id (26 characters of {ALPHABET})")
    millis = 0
    for char in run_id[:_TIME]:
        millis = millis << 5 | _VALUES[char]
    return millis / 1000


def lower_bound(at: float) -> str:
    """The smallest id that can have been made at `at` (seconds since the epoch): ids compare like their times."""
    return _text(min(max(int(at * 1000), 0), (1 << 48) - 1), _TIME) + "0" * (LENGTH - _TIME)


def is_id(text: str) -> bool:
    return len(text) == LENGTH and all(char in _VALUES for char in text) and text[0] < "8"
