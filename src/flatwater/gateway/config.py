"""What ``gateway.toml`` may say. :mod:`flatwater.gateway.document` reads it; the programs' own code may build it.

Keys that end in ``_s`` are seconds (in the file also ``"250ms"``, ``"30s"``, ``"10m"``), in ``_bytes`` sizes (also
``"64 KiB"``).
"""

from __future__ import annotations

import msgspec

from flatwater.gateway.exchange import Timeouts
from flatwater.gateway.freshness import Policy
from flatwater.gateway.health import Check, Ejection
from flatwater.gateway.rate import RateRule
from flatwater.gateway.retry import RetryRule
from flatwater.listener.certificate import Version
from flatwater.listener.log import Format, Level


class Identity(msgspec.Struct, frozen=True, kw_only=True):
    """What a listener shows of itself to clients: PEM files. With a ``certificate`` it speaks TLS, from ``min_version``
    on; the ``key`` may stand in the certificate's file."""

    certificate: str = ""
    key: str = ""
    min_version: Version = "1.2"


class Listen(msgspec.Struct, frozen=True, kw_only=True):
    """Where ``flatwater gateway`` listens. ``head_s``: how long a client may take for the head of a request, and for
    the handshake of TLS."""

    host: str = "127.0.0.1"
    port: int = 8080
    backlog: int = 2048
    max_connections: int = 10_000
    keep_alive_s: float = 30.0
    head_s: float = 10.0
    write_s: float = 60.0
    drain_s: float = 30.0
    tls: Identity = Identity()


class Front(msgspec.Struct, frozen=True, kw_only=True):
    """What is asked of every request, and what is kept of it. ``trusted_proxies`` are networks (CIDR) whose Forwarded
    and X-Forwarded-* fields are continued; those of others are replaced. ``memo_entries``: how many heads of requests
    are known again by their bytes, 0 for none; longer ones than ``memo_head_bytes`` are not.
    ``half_close_s``: how long a client that has closed its sending side may wait for an answer to begin.
    ``max_message_bytes``: of a websocket under ASGI servers that know messages alone."""

    max_target_bytes: int = 8 * 1024
    max_head_bytes: int = 32 * 1024
    max_headers: int = 100
    max_requests: int = 10_000
    trusted_proxies: tuple[str, ...] = ()
    via: str = "flatwater"
    history_entries: int = 1000
    history_bytes: int = 2**20
    memo_entries: int = 2000
    memo_bytes: int = 8 * 2**20
    memo_head_bytes: int = 2 * 1024
    max_tasks: int = 10_000
    linger_s: float = 1.0
    half_close_s: float = 1.0
    max_message_bytes: int = 16 * 2**20


class Cache(msgspec.Struct, frozen=True, kw_only=True):
    """The bounds of the cache that the services share. ``max_wait_s``: how long a request waits for the answer to
    another one for the same page."""

    max_entries: int = 50_000
    max_bytes: int = 64 * 2**20
    max_entry_bytes: int = 2**20
    max_recording_bytes: int = 16 * 2**20
    max_age_s: float = 86_400.0
    keep_stale_s: float = 3600.0
    max_wait_s: float = 5.0


class Overload(msgspec.Struct, frozen=True, kw_only=True):
    """When memory or time is short: percent of the memory limit, and seconds by which the loop is late. From
    ``shrink_percent`` on the cache shrinks, from ``drain_percent`` on connections close after their answer, from
    ``refuse_percent`` on requests get 503. ``limit_bytes`` 0: that of the control group, else the machine's memory."""

    enabled: bool = True
    limit_bytes: int = 0
    every_s: float = 0.25
    shrink_percent: float = 85.0
    drain_percent: float = 92.0
    refuse_percent: float = 95.0
    drain_lag_s: float = 0.5
    refuse_lag_s: float = 1.0


class Log(msgspec.Struct, frozen=True, kw_only=True):
    """The log of ``flatwater gateway``, on standard error: the least severe level shown; one JSON object a line, or
    plain text."""

    level: Level = "warning"
    format: Format = "text"


class Alert(msgspec.Struct, frozen=True, kw_only=True):
    """Rules on the process's own figures (those of ``flatwater record --alert``, and ``overload``: the level of
    [overload], 0 to 3), looked at every ``every_s``. Where alerts go: ``log``, ``exec:COMMAND WORDS``,
    ``webhook:URL``."""

    rules: tuple[str, ...] = ("rss > 90%", "time to limit < 1h", "overload > 1")
    to: tuple[str, ...] = ("log",)
    every_s: float = 5.0


class Admin(msgspec.Struct, frozen=True, kw_only=True):
    """A listener for operators: /livez, /readyz, /metrics, /api/gateway. ``port`` 0: none. Off loopback it needs a
    ``token``, which callers send as ``Authorization: Bearer``. ``tls``: with the certificate of [listen.tls]."""

    host: str = "127.0.0.1"
    port: int = 0
    token: str = ""
    tls: bool = False


class Endpoint(msgspec.Struct, frozen=True):
    """``url`` is ``http(s)://host[:port]``; ``weight`` says how many times as many requests as others it gets."""

    url: str
    weight: int = 1


class Connections(msgspec.Struct, frozen=True, kw_only=True):
    """The pool of each endpoint."""

    max_connections: int = 100
    max_pending: int = 1000
    pending_s: float = 5.0
    keep_s: float = 30.0
    max_head_bytes: int = 64 * 1024


class Tls(msgspec.Struct, frozen=True, kw_only=True):
    """For ``https`` endpoints. ``server_name``: for SNI and verification, else the endpoint's host."""

    verify: bool = True
    ca_file: str = ""
    certificate: str = ""
    key: str = ""
    server_name: str = ""


class BreakerRule(msgspec.Struct, frozen=True, kw_only=True):
    """How many requests and retries of the service may be under way at once."""

    max_requests: int = 2000
    max_retries: int = 50


class CacheRule(msgspec.Struct, frozen=True, kw_only=True):
    """Whether and how the service's answers are cached: see :class:`flatwater.gateway.freshness.Policy`.
    ``single_flight``: of requests that miss the same page at the same time, one asks and the others wait."""

    enabled: bool = False
    single_flight: bool = True
    set_cookie: str = "explicit"
    heuristic_share: float = 0.1
    max_heuristic_s: float = 86_400.0
    default_fresh_s: float = 0.0
    max_fresh_s: float = 31_536_000.0
    max_stale_disconnected_s: float = 300.0
    obey_client: bool = True
    targets: tuple[str, ...] = ("cdn-cache-control",)

    def policy(self) -> Policy:
        return Policy(
            set_cookie=self.set_cookie,
            heuristic_share=self.heuristic_share,
            max_heuristic_s=self.max_heuristic_s,
            default_fresh_s=self.default_fresh_s,
            max_fresh_s=self.max_fresh_s,
            max_stale_disconnected_s=self.max_stale_disconnected_s,
            obey_client=self.obey_client,
            targets=tuple(name.lower().encode() for name in self.targets),
        )


class Service(msgspec.Struct, frozen=True, kw_only=True):
    """A named upstream: where its requests come from (``path`` prefix, ``hosts``), where they go, and the rules.
    ``request_trailers``: whether fields after chunked bodies of requests are passed on."""

    endpoints: tuple[Endpoint, ...]
    path: str = ""
    hosts: tuple[str, ...] = ()
    strip_prefix: bool = True
    host_header: str = "keep"
    balance: str = "least_requests"
    max_body_bytes: int = 2**30
    websockets: bool = True
    request_trailers: bool = False
    timeout: Timeouts = Timeouts()
    connections: Connections = Connections()
    tls: Tls = Tls()
    ejection: Ejection = Ejection()
    check: Check = Check()
    breaker: BreakerRule = BreakerRule()
    retry: RetryRule = RetryRule()
    rate: RateRule = RateRule()
    cache: CacheRule = CacheRule()


class Config(msgspec.Struct, frozen=True, kw_only=True):
    """The whole of it. ``services`` by name; the name is the path prefix unless the service says otherwise."""

    services: dict[str, Service]
    listen: Listen = Listen()
    front: Front = Front()
    cache: Cache = Cache()
    overload: Overload = Overload()
    log: Log = Log()
    alert: Alert = Alert()
    admin: Admin = Admin()
