"""Dates of HTTP (RFC 9110 §5.6.7): the three forms that a recipient must understand, and nothing else."""

from __future__ import annotations

import re
import time
from calendar import timegm
from functools import lru_cache

_MONTHS = {name: number for number, name in enumerate(b"jan feb mar apr may jun jul aug sep oct nov dec".split(), 1)}
_CLOCK = rb"(\d\d):(\d\d):(\d\d)"
_FIXED = re.compile(rb"(?:mon|tue|wed|thu|fri|sat|sun), (\d\d) ([a-z]{3}) (\d{4}) " + _CLOCK + rb" gmt")
_RFC850 = re.compile(rb"(?:mon|tues|wednes|thurs|fri|satur|sun)day, (\d\d)-([a-z]{3})-(\d\d) " + _CLOCK + rb" gmt")
_ASCTIME = re.compile(rb"(?:mon|tue|wed|thu|fri|sat|sun) ([a-z]{3}) ([ \d]\d) " + _CLOCK + rb" (\d{4})")
_DAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
_NAMES = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")


@lru_cache(maxsize=1024)
def parse(text: bytes) -> int | None:
    """Seconds since 1970, or None when ``text`` is not a date. Letters may be of either case."""
    if len(text) > 64:
        return None
    text = text.strip(b" \t").lower()
    if found := _FIXED.fullmatch(text):
        day, month, year, *clock = found.groups()
        return _seconds(int(year), month, day, clock)
    if found := _RFC850.fullmatch(text):
        day, month, year, *clock = found.groups()
        return _seconds(_century(int(year)), month, day, clock)
    if found := _ASCTIME.fullmatch(text):
        month, day, *clock, year = found.groups()
        return _seconds(int(year), month, day, clock)
    return None


def write(seconds: float) -> bytes:
    """The date in the form that senders must use."""
    return _written(int(seconds))


@lru_cache(maxsize=16)
def _written(seconds: int) -> bytes:
    at = time.gmtime(seconds)
    text = (
        f"{_DAYS[at.tm_wday]}, {at.tm_mday:02d} {_NAMES[at.tm_mon - 1]} {at.tm_year:04d}"
        f" {at.tm_hour:02d}:{at.tm_min:02d}:{at.tm_sec:02d} GMT"
    )
    return text.encode("ascii")


def _century(year: int) -> int:
    """A year of two digits that appears to be more than 50 years ahead lies in the past."""
    this = time.gmtime().tm_year
    full = this // 100 * 100 + year
    return full - 100 if full > this + 50 else full


def _seconds(year: int, month: bytes, day: bytes, clock: list[bytes]) -> int | None:
    number = _MONTHS.get(month)
    hour, minute, second = map(int, clock)
    if number is None or not 1 <= int(day) <= 31 or hour > 23 or minute > 59 or second > 60:
        return None
    return timegm((year, number, int(day), hour, minute, second))
