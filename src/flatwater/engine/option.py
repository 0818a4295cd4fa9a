"""Limits and periods of an engine. Every one is a plain value with a unit in its name."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineOptions:
    """What an engine may hold and how long it waits.

    Bytes, seconds and counts; a value that makes no sense raises ``ValueError`` at construction.
    """

    max_active: int = 500
    """Runs in memory at once. Pending and waiting runs beyond it live in the store alone."""
    max_parallel: int = 10
    """Branches of one run that *execute* at once; a waiting branch never counts."""
    max_threads: int = 8
    """Threads for blocks written as plain (not ``async``) functions."""
    max_run_depth: int = 50
    """How deep sub-tasks may nest at run time."""
    max_value_bytes: int = 4 * 1024 * 1024
    """Size of one block's outputs, or one variable, as JSON."""
    max_cache_entries: int = 10_000
    """Values that cache blocks keep; the longest unchanged leave."""
    max_cache_bytes: int = 64 * 1024 * 1024
    """Size of these together, as JSON."""
    max_http_connections: int = 100
    """Connections that http blocks have open at once."""
    max_response_bytes: int = 16 * 1024 * 1024
    """Size of one answer that an http block reads."""
    max_database_connections: int = 2
    """Connections to each database that sql blocks use."""
    max_rows: int = 10_000
    """Rows that one query of a sql block gives."""
    max_modbus_connections: int = 1
    """Connections to each Modbus device; many take one only."""
    max_modbus_conditions: int = 1_000
    """Different conditions that runs wait for on Modbus devices."""
    modbus_poll_s: float = 0.5
    """How often each of them is looked at."""
    max_trigger_sources: int = 100
    """Triggers whose sources (of users' packages) are listened to at once; each is a task."""
    max_log_lines: int = 1_000
    """Newest lines kept of one run's log."""
    max_flows: int = 256
    """Compiled definitions kept ready."""
    max_flow_nodes: int = 20_000
    """Blocks of these together; a block costs about 2 KB."""
    max_kept_iterations: int = 100
    """Finished iterations of a loop whose block records stay in the store."""
    ageing_s: float = 60.0
    """Seconds of waiting that weigh as much as one step of priority."""
    park_after_s: float = 1.0
    """A run in which everything waits leaves memory after this long (at once when others queue)."""
    poll_s: float = 0.5
    """How often the store is asked what *other* processes did; one query per process."""
    cleanup_s: float = 30.0
    """For how long the ``catch`` branch of a canceled run may execute."""
    max_branches: int = 20_000
    """Parallel branches of all active runs together."""
    max_events: int = 2_000
    """Latest events kept for subscribers that come back."""
    max_subscribers: int = 100
    """Subscribers of the event stream."""
    dead_context_s: float = 10.0
    """A context still alive this long after its run ended is reported."""

    def __post_init__(self) -> None:
        for name in self.__slots__:
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} must be greater than zero, not {getattr(self, name)!r}")
