"""What can be set: one struct a section, one field a setting, with its type, unit, bounds, default and meaning."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any, Literal, get_type_hints

import msgspec
from msgspec import Meta, Struct

Count = Annotated[int, Meta(ge=1, le=10**9)]
Bytes = Annotated[int, Meta(ge=1, le=2**50, extra={"unit": "bytes"})]
Seconds = Annotated[float, Meta(gt=0, le=10**9, extra={"unit": "seconds"})]
Port = Annotated[int, Meta(ge=0, le=65535)]
Secret = Annotated[str, Meta(extra={"secret": True})]


class ServerSettings(Struct, frozen=True, kw_only=True):
    """The HTTP server."""

    host: Annotated[
        str, Meta(min_length=1, description="Address to listen on. Any other than loopback needs a token.")
    ] = "127.0.0.1"
    port: Annotated[Port, Meta(description="TCP port; 0 takes a free one.")] = 8350
    token: Annotated[
        Secret,
        Meta(description="Token that callers must send. Empty: none on loopback; elsewhere one is made and printed."),
    ] = ""
    diagnostic_token: Annotated[
        Secret,
        Meta(
            description="Token for the memory instruments, on loopback too. Empty: server.token, or one made at each "
            "start and printed."
        ),
    ] = ""
    allowed_hosts: Annotated[
        tuple[str, ...],
        Meta(description="More host names that requests may carry when listening on loopback (a proxy's name)."),
    ] = ()
    max_body_bytes: Annotated[Bytes, Meta(description="Largest request body.")] = 2 * 1024**2
    body_timeout_s: Annotated[Seconds, Meta(description="Time to receive a request body.")] = 30.0
    compatibility: Annotated[bool, Meta(description="Answer the calls of the known systems, too.")] = True
    head_timeout_s: Annotated[
        Seconds, Meta(description="Time to receive the head of a request, and for the handshake of TLS.")
    ] = 10.0
    request_timeout_s: Annotated[Seconds, Meta(description="A request that takes longer is answered 504.")] = 30.0
    write_timeout_s: Annotated[Seconds, Meta(description="A client that takes nothing for this long is cut off.")] = (
        20.0
    )
    keep_alive_s: Annotated[Seconds, Meta(description="An idle connection is closed after this.")] = 30.0
    max_connections: Annotated[Count, Meta(description="Connections and requests at once; more are answered 503.")] = (
        1000
    )
    tls_certificate: Annotated[
        str, Meta(description="PEM file: the server speaks TLS. It is read again when it changes, and on SIGHUP.")
    ] = ""
    tls_key: Annotated[str, Meta(description="PEM file of its key; empty: the key stands in the same file.")] = ""
    tls_min_version: Annotated[Literal["1.2", "1.3"], Meta(description="Lowest version of TLS that is spoken.")] = "1.2"
    sample_allocations_bytes: Annotated[
        int,
        Meta(
            ge=0,
            le=2**50,
            extra={"unit": "bytes"},
            description="Note one of Python's allocations each so many bytes, always, for `flatwater allocations`; "
            "2MiB is a good value. 0: off.",
        ),
    ] = 0
    drain_s: Annotated[
        Seconds, Meta(description="On SIGTERM, time for running work to end before it is released to the store.")
    ] = 20.0


class StoreSettings(Struct, frozen=True, kw_only=True):
    """The database."""

    url: Annotated[str, Meta(min_length=1, description="SQLAlchemy URL of the database.", extra={"secret": True})] = (
        "sqlite:///flatwater.db"
    )
    max_readers: Annotated[Count, Meta(description="Connections that read.")] = 2
    max_pending_reads: Annotated[Count, Meta(description="Reads that may wait; more are answered 429.")] = 200
    max_pending_ops: Annotated[Count, Meta(description="Writes that may wait before submitters have to.")] = 10_000
    max_pending_bytes: Annotated[Bytes, Meta(description="The same, by size.")] = 64 * 1024**2
    max_batch_rows: Annotated[Count, Meta(description="Rows in one transaction.")] = 2_000
    max_batch_bytes: Annotated[Bytes, Meta(description="The same, by size.")] = 4 * 1024**2
    max_batch_s: Annotated[Seconds, Meta(description="The same, by time.")] = 0.05
    busy_timeout_s: Annotated[Seconds, Meta(description="How long one attempt waits for another process.")] = 5.0
    retry_s: Annotated[Seconds, Meta(description="First pause between attempts while the database is in trouble.")] = (
        0.1
    )
    max_retry_s: Annotated[Seconds, Meta(description="Longest of these pauses.")] = 1.0
    close_s: Annotated[Seconds, Meta(description="How long closing goes on trying then.")] = 10.0
    lease_s: Annotated[Seconds, Meta(description="A process silent for this long has lost its runs.")] = 30.0
    renew_s: Annotated[Seconds, Meta(description="How often a busy process renews its lease.")] = 1.0


class EngineSettings(Struct, frozen=True, kw_only=True):
    """What the engine may hold, and how long it waits."""

    blocks: Annotated[
        tuple[str, ...],
        Meta(
            description="Python modules whose `@block` and `@function` functions definitions may use, and whose "
            "`@trigger` kinds start runs; `ScriptBp` calls by name what their `FUNCTIONS` dictionaries hold."
        ),
    ] = ()
    max_active: Annotated[Count, Meta(description="Runs in memory at once; the others live in the store alone.")] = 500
    max_parallel: Annotated[
        Count, Meta(description="Branches of one run that execute at once; waiting ones never count.")
    ] = 10
    max_threads: Annotated[Count, Meta(description="Threads for blocks written as plain functions.")] = 8
    max_run_depth: Annotated[Count, Meta(description="How deep sub-tasks may nest.")] = 50
    max_branches: Annotated[Count, Meta(description="Parallel branches of all runs in memory together.")] = 20_000
    max_value_bytes: Annotated[Bytes, Meta(description="Size of one block's outputs, or one variable, as JSON.")] = (
        4 * 1024**2
    )
    max_cache_entries: Annotated[
        Count, Meta(description="Values that cache blocks keep; the longest unchanged leave.")
    ] = 10_000
    max_cache_bytes: Annotated[Bytes, Meta(description="Size of these together, as JSON.")] = 64 * 1024**2
    max_http_connections: Annotated[Count, Meta(description="Connections that http blocks have open at once.")] = 100
    max_response_bytes: Annotated[Bytes, Meta(description="Size of one answer that an http block reads.")] = (
        16 * 1024**2
    )
    max_database_connections: Annotated[
        Count, Meta(description="Connections to each database that sql blocks use.")
    ] = 2
    max_rows: Annotated[Count, Meta(description="Rows that one query of a sql block gives.")] = 10_000
    max_modbus_connections: Annotated[
        Count, Meta(description="Connections to each device of [modbus]; many devices take one only.")
    ] = 1
    max_modbus_conditions: Annotated[
        Count, Meta(description="Different conditions that runs wait for on these devices.")
    ] = 1_000
    modbus_poll_s: Annotated[Seconds, Meta(description="How often each of these conditions is looked at.")] = 0.5
    max_trigger_sources: Annotated[
        Count, Meta(description="Triggers whose sources (of users' packages) are listened to at once.")
    ] = 100
    max_log_lines: Annotated[Count, Meta(description="Newest lines kept of one run's log.")] = 1_000
    max_flows: Annotated[Count, Meta(description="Compiled definitions kept ready.")] = 256
    max_flow_nodes: Annotated[Count, Meta(description="Blocks of these together; a block costs about 2 KB.")] = 20_000
    max_kept_iterations: Annotated[
        Count, Meta(description="Finished iterations of a loop whose block records are kept.")
    ] = 100
    max_events: Annotated[Count, Meta(description="Live events kept for slow and returning subscribers.")] = 2_000
    max_subscribers: Annotated[Count, Meta(description="Live event streams open at once.")] = 100
    ageing_s: Annotated[Seconds, Meta(description="Seconds of waiting that weigh as much as one step of priority.")] = (
        60.0
    )
    park_after_s: Annotated[Seconds, Meta(description="A run in which everything waits leaves memory after this.")] = (
        1.0
    )
    poll_s: Annotated[Seconds, Meta(description="How often other processes' changes are looked up.")] = 0.5
    cleanup_s: Annotated[
        Seconds, Meta(description="For how long the `catch` branch of a canceled run may execute.")
    ] = 30.0
    dead_context_s: Annotated[Seconds, Meta(description="A context alive this long after its run is reported.")] = 10.0


class StreamSettings(Struct, frozen=True, kw_only=True):
    """The live event stream."""

    heartbeat_s: Annotated[Seconds, Meta(description="A comment is sent when nothing happened for this long.")] = 15.0
    site_poll_s: Annotated[Seconds, Meta(description="Period of looking for changed sites.")] = 0.25
    status_s: Annotated[Seconds, Meta(description="Period of `status` events.")] = 2.0


class StatusSettings(Struct, frozen=True, kw_only=True):
    """The process's own figures."""

    sample_s: Annotated[Seconds, Meta(description="Period of RSS samples.")] = 5.0
    proportional_s: Annotated[Seconds, Meta(description="Period of PSS and USS samples, which cost more.")] = 30.0
    history_s: Annotated[Seconds, Meta(description="How far back samples are kept.")] = 3600.0


class RetentionSettings(Struct, frozen=True, kw_only=True):
    """What is deleted, and when. Runs that have not ended, or that still hold sites, are always kept."""

    max_age_s: Annotated[
        Seconds, Meta(description="Ended runs, events and changes of sites are deleted after this.")
    ] = 30 * 86_400.0
    max_runs: Annotated[Count, Meta(description="Ended runs kept at most; the oldest go first.")] = 100_000
    max_site_changes: Annotated[Count, Meta(description="Changes of sites kept at most.")] = 100_000
    max_events: Annotated[Count, Meta(description="External events kept at most.")] = 100_000
    unused_s: Annotated[Seconds, Meta(description="Old versions of definitions are deleted when unused for this.")] = (
        3600.0
    )
    period_s: Annotated[Seconds, Meta(description="How often the server looks for what is old.")] = 60.0
    max_batch: Annotated[Count, Meta(description="Rows deleted in one transaction.")] = 200


class LogSettings(Struct, frozen=True, kw_only=True):
    """The server's log, on standard error."""

    level: Annotated[Literal["debug", "info", "warning", "error"], Meta(description="Least severe level shown.")] = (
        "info"
    )
    format: Annotated[Literal["json", "text"], Meta(description="One JSON object a line, or plain text.")] = "json"


class RobotSettings(Struct, frozen=True, kw_only=True):
    """The robots that definitions may use."""

    driver: Annotated[
        str,
        Meta(
            description="`simulated` (the fleet of the demo plant), `none`, or `module:factory`: a callable that makes "
            "a driver from the open store, see docs/howto/robot-driver.md."
        ),
    ] = "simulated"


class DemoSettings(Struct, frozen=True, kw_only=True):
    """The demo plant."""

    enabled: Annotated[bool, Meta(description='Run the plant "Small Hall" in this server.')] = False
    speed: Annotated[float, Meta(ge=1, le=100, description="How many times faster than life its clock goes.")] = 10.0
    seed: Annotated[int, Meta(ge=0, le=2**31, description="Seed of its random numbers.")] = 1


class AlertSettings(Struct, frozen=True, kw_only=True):
    """Rules on the server's own memory, looked at with each sample of [status]."""

    rules: Annotated[
        tuple[str, ...],
        Meta(
            description="As `flatwater record --alert` takes them: level, slope, time to limit, oom_kill. Percent are "
            "of the tightest cgroup's limit, else of the machine's memory. `overload` is the gateway's level, 0 to 3."
        ),
    ] = ("rss > 90%", "time to limit < 1h")
    to: Annotated[tuple[str, ...], Meta(description="Where alerts go: `log`, `exec:COMMAND WORDS`, `webhook:URL`.")] = (
        "log",
    )


class GatewaySettings(Struct, frozen=True, kw_only=True):
    """The HTTP gateway inside the server."""

    config: Annotated[
        str,
        Meta(
            description="File as `flatwater gateway` takes it; its services answer under /gateway/{service}/; its "
            "[front] holds for the whole server, its [listen] and [admin] do not count. Empty: no gateway."
        ),
    ] = ""


class Settings(Struct, frozen=True, kw_only=True):
    """Everything that can be set. ``databases`` and ``modbus`` name what SQL and Modbus blocks may use."""

    server: ServerSettings = ServerSettings()
    store: StoreSettings = StoreSettings()
    engine: EngineSettings = EngineSettings()
    stream: StreamSettings = StreamSettings()
    status: StatusSettings = StatusSettings()
    retention: RetentionSettings = RetentionSettings()
    log: LogSettings = LogSettings()
    robots: RobotSettings = RobotSettings()
    demo: DemoSettings = DemoSettings()
    gateway: GatewaySettings = GatewaySettings()
    alert: AlertSettings = AlertSettings()
    databases: dict[str, str] = {}
    modbus: dict[str, str] = {}


NAMED = {"databases": "sqlite:///file.db", "modbus": "tcp://10.0.0.7:502"}
"""Sections whose keys are names of the user's choice, with what may stand there."""


class Leaf(Struct, frozen=True):
    """One setting: ``key`` is dotted, ``type`` carries its constraints, ``unit`` is bytes, seconds or empty."""

    key: str
    type: Any
    default: Any
    unit: str
    description: str
    secret: bool


def leaves() -> Iterator[Leaf]:
    """Every setting, in order; without those of `NAMED` sections."""
    for section in msgspec.structs.fields(Settings):
        if section.name in NAMED:
            continue
        hints = get_type_hints(section.type, include_extras=True)
        for field in msgspec.structs.fields(section.type):
            metas = [meta for meta in hints[field.name].__metadata__ if isinstance(meta, Meta)]
            extra: dict[str, Any] = {}
            for meta in metas:
                extra.update(meta.extra or {})
            yield Leaf(
                key=f"{section.name}.{field.name}",
                type=hints[field.name],
                default=field.default,
                unit=str(extra.get("unit", "")),
                description="".join(meta.description or "" for meta in metas),
                secret=bool(extra.get("secret")),
            )
