"""The gateway's HTTP cache by itself: memory per entry, look-ups and stores per second, what a full collection costs.

    python benchmarks/gateway_cache.py [--entries 200000] [--body 1024] [--rounds 3]

Each store is measured in a process of its own, with the same keys (URLs of 40 bytes), heads (6 fields, 210 bytes)
and bodies. ``overhead`` is the growth of RSS per entry less key, head and body: what the store costs. The others are
what one would use instead: cachebox's LRU with one bytes value per entry (no head parsed, no freshness), an OrderedDict
with entry objects that hold a list of headers, and cachetools' LRU where it is installed.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import statistics
import subprocess
import sys
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator
from email.utils import formatdate
from typing import Any

HEAD = [
    (b"content-type", b"application/json; charset=utf-8"),
    (b"cache-control", b"public, max-age=3600"),
    (b"etag", b'"5f3759df-1a2b3c4d"'),
    (b"last-modified", b"Sun, 06 Nov 1994 08:49:37 GMT"),
    (b"date", formatdate(usegmt=True).encode()),
    (b"content-length", b"1024"),
]
HEAD_BYTES = sum(len(name) + len(value) for name, value in HEAD)
REQUEST = [
    (b"user-agent", b"Mozilla/5.0 (X11; Linux x86_64)"),
    (b"accept", b"*/*"),
    (b"accept-encoding", b"gzip, br"),
    (b"accept-language", b"en"),
    (b"x-forwarded-for", b"127.0.0.1"),
]

Put = Callable[[bytes, bytes], None]
Get = Callable[[bytes], Any]


def flatwater(entries: int, body: int) -> tuple[Put, Get]:
    from flatwater.bounded import Ledger
    from flatwater.gateway.cache import Answer, HttpCache, Miss

    cache = HttpCache(ledger=Ledger(), max_entries=entries, max_bytes=2**40, max_entry_bytes=2**24)
    found = cache.lookup(b"GET", b"key", REQUEST)
    assert isinstance(found, Miss)

    def put(key: bytes, value: bytes) -> None:
        found.key = key
        recorder = cache.record(found, 200, HEAD)
        assert recorder is not None
        recorder.add(value)
        recorder.commit()

    def get(key: bytes) -> object:
        answer = cache.lookup(b"GET", key, REQUEST)
        assert type(answer) is Answer
        return answer

    return put, get


def cachebox(entries: int, body: int) -> tuple[Put, Get]:
    from cachebox import LRUCache

    cache: LRUCache[bytes, bytes] = LRUCache(entries)
    head = b"\n".join(part for item in HEAD for part in item)
    return (lambda key, value: cache.insert(key, head + value)), cache.get


def cachetools(entries: int, body: int) -> tuple[Put, Get]:
    from cachetools import LRUCache

    cache: Any = LRUCache(entries)
    head = b"\n".join(part for item in HEAD for part in item)
    return (lambda key, value: cache.__setitem__(key, head + value)), cache.get


class Entry:
    def __init__(self, status: int, headers: list[tuple[bytes, bytes]], body: bytes, expires: float) -> None:
        self.status = status
        self.headers = headers
        self.body = body
        self.expires = expires


def ordereddict(entries: int, body: int) -> tuple[Put, Get]:
    cache: OrderedDict[bytes, Entry] = OrderedDict()

    def put(key: bytes, value: bytes) -> None:
        headers = [(name, bytes(bytearray(content))) for name, content in HEAD]
        cache[key] = Entry(200, headers, value, time.monotonic() + 3600)
        if len(cache) > entries:
            cache.popitem(last=False)

    def get(key: bytes) -> Entry:
        cache.move_to_end(key)
        return cache[key]

    return put, get


STORES = {"flatwater": flatwater, "cachebox": cachebox, "cachetools": cachetools, "OrderedDict": ordereddict}


def measure(store: str, entries: int, body: int) -> dict[str, float]:
    put, get = STORES[store](entries, body)
    put(b"http://warm", b"x")
    gc.collect()
    before = rss()
    filler = bytes(body - 8)
    began = time.perf_counter()
    key_bytes = 0
    for number, key in keys(entries):
        key_bytes += len(key)
        put(key, number.to_bytes(8, "big") + filler)
    put_s = (time.perf_counter() - began) / entries
    gc.collect()
    grown = (rss() - before) / entries
    began = time.perf_counter()
    gc.collect()
    collection_s = time.perf_counter() - began
    probes = [key for _, key in keys(entries)][:: max(1, entries // 20_000)]
    get_s = min(timed(get, probes) for _ in range(5))
    began = time.perf_counter()
    for number in range(20_000):  # full: each pushes one out
        put(b"http://www.example.com/other/%d" % number, bytes(body))
    churn_s = (time.perf_counter() - began) / 20_000
    return {
        "overhead B": grown - key_bytes / entries - HEAD_BYTES - body,
        "get µs": get_s * 1e6,
        "put µs": put_s * 1e6,
        "put when full µs": churn_s * 1e6,
        "gc ms": collection_s * 1e3,
    }


def keys(entries: int) -> Iterator[tuple[int, bytes]]:
    return ((number, b"http://www.example.com/items/%09d" % number) for number in range(entries))


def timed(get: Get, probes: list[bytes]) -> float:
    began = time.perf_counter()
    for key in probes:
        get(key)
    return (time.perf_counter() - began) / len(probes)


def rss() -> int:
    with open("/proc/self/statm") as file:  # noqa: PTH123
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--entries", type=int, default=200_000)
    parser.add_argument("--body", type=int, default=1024)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", choices=STORES)
    parser.add_argument("--measure", choices=STORES, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        print(json.dumps(measure(options.measure, options.entries, options.body)))
        return
    print(f"{options.entries} entries of {options.body} B, medians of {options.rounds} rounds")
    for store in [options.only] if options.only else STORES:
        command = [
            sys.executable,
            __file__,
            "--measure",
            store,
            "--entries",
            str(options.entries),
            "--body",
            str(options.body),
        ]
        runs = [subprocess.run(command, capture_output=True, text=True) for _ in range(options.rounds)]
        if runs[0].returncode:
            print(f"{store:12} left out: {runs[0].stderr.strip().splitlines()[-1]}")
            continue
        found = [json.loads(run.stdout) for run in runs]
        print(
            f"{store:12} "
            + "  ".join(f"{name} {statistics.median(run[name] for run in found):.4g}" for name in found[0])
        )


if __name__ == "__main__":
    main()
