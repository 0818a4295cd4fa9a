"""The tables and views of a recording, as docs/reference/recording.md explains them.

Times ``t`` are milliseconds of the recording's own clock, which never jumps; ``clock`` says what the wall clock was:
wall time in milliseconds since 1970 = t + offset of the latest row at or before t. Sizes are bytes.
"""

# ruff: noqa: S608 (statements are put together from names in this file alone)
from __future__ import annotations

from typing import Final

VERSION: Final = 1

# Each gauge with the least and the largest value where samples were merged; NULL in raw rows.
GAUGES: Final = ("rss", "pss", "uss", "swap", "fds")
# The largest is as good as the last: they only grow (cpu, faults, switches), or the largest is what matters.
LARGEST: Final = (
    *("vms", "user_ms", "system_ms", "threads"),
    *("minor_faults", "major_faults", "voluntary_switches", "involuntary_switches"),
)

TABLES: Final = (
    "CREATE TABLE meta (key TEXT PRIMARY KEY NOT NULL, value TEXT NOT NULL)",
    "CREATE TABLE clock (t INTEGER PRIMARY KEY, offset INTEGER NOT NULL)",
    """CREATE TABLE process (
        id INTEGER PRIMARY KEY, pid INTEGER NOT NULL, start INTEGER NOT NULL, boot TEXT NOT NULL,
        ppid INTEGER NOT NULL, parent INTEGER, name TEXT NOT NULL, command TEXT NOT NULL, chosen INTEGER NOT NULL,
        started_t INTEGER NOT NULL, first_t INTEGER NOT NULL, ended_t INTEGER,
        exit_status INTEGER, oom INTEGER NOT NULL DEFAULT 0, control_group INTEGER)""",
    f"""CREATE TABLE sample (
        process INTEGER NOT NULL, t INTEGER NOT NULL, step INTEGER NOT NULL DEFAULT 0, n INTEGER NOT NULL DEFAULT 1,
        {", ".join(f"{name} INTEGER, {name}_min INTEGER, {name}_max INTEGER" for name in GAUGES)},
        {", ".join(f"{name} INTEGER" for name in LARGEST)},
        PRIMARY KEY (process, t)) WITHOUT ROWID""",
    "CREATE TABLE control_group (id INTEGER PRIMARY KEY, path TEXT NOT NULL UNIQUE)",
    """CREATE TABLE group_sample (
        control_group INTEGER NOT NULL, t INTEGER NOT NULL, step INTEGER NOT NULL DEFAULT 0,
        used INTEGER, file INTEGER, size_limit INTEGER, oom_kills INTEGER NOT NULL, highs INTEGER NOT NULL,
        PRIMARY KEY (control_group, t)) WITHOUT ROWID""",
    """CREATE TABLE agent_sample (
        process INTEGER NOT NULL, figure TEXT NOT NULL, t INTEGER NOT NULL, step INTEGER NOT NULL DEFAULT 0,
        value REAL NOT NULL, PRIMARY KEY (process, figure, t)) WITHOUT ROWID""",
    """CREATE TABLE event (
        id INTEGER PRIMARY KEY, t INTEGER NOT NULL, process INTEGER, kind TEXT NOT NULL, detail TEXT NOT NULL)""",
    "CREATE INDEX event_t ON event (t)",
)

_WALL: Final = "({t} + (SELECT offset FROM clock WHERE clock.t <= {t} ORDER BY clock.t DESC LIMIT 1)) / 1000.0"
_WALL_S: Final = _WALL.format(t="s.t")

VIEWS: Final = (
    # For people and sqliteviz: one row a sample, MiB, local names.
    f"""CREATE VIEW memory AS SELECT
        datetime({_WALL_S}, 'unixepoch') AS at, p.pid AS pid, p.name || ' ' || p.pid AS process, p.command AS command,
        s.rss / 1048576.0 AS rss_mib, s.pss / 1048576.0 AS pss_mib, s.uss / 1048576.0 AS uss_mib,
        s.swap / 1048576.0 AS swap_mib, s.threads AS threads, s.fds AS fds,
        (s.user_ms + s.system_ms) / 1000.0 AS cpu_s, s.process AS process_id, s.t AS t
        FROM sample AS s JOIN process AS p ON p.id = s.process""",
    f"""CREATE VIEW life AS SELECT
        p.id AS process_id, p.pid AS pid, p.name AS name, p.command AS command,
        datetime({_WALL.format(t="p.first_t")}, 'unixepoch') AS seen,
        datetime({_WALL.format(t="p.ended_t")}, 'unixepoch') AS ended,
        CASE WHEN p.ended_t IS NULL THEN 'running' WHEN p.exit_status IS NULL THEN 'ended'
             WHEN p.exit_status & 127 THEN 'signal ' || (p.exit_status & 127)
             ELSE 'exit ' || (p.exit_status >> 8) END
        || CASE WHEN p.oom THEN ', killed for memory' ELSE '' END AS ending,
        (SELECT MAX(COALESCE(rss_max, rss)) FROM sample WHERE process = p.id) / 1048576.0 AS peak_mib
        FROM process AS p""",
    f"""CREATE VIEW happening AS SELECT
        datetime({_WALL.format(t="e.t")}, 'unixepoch') AS at, e.kind AS kind, p.pid AS pid, p.name AS name,
        e.detail AS detail FROM event AS e LEFT JOIN process AS p ON p.id = e.process""",
    # What `procpath record -f stat,cmdline,smaps_rollup,fd,status` makes, in its names and units: pages, ticks, KiB.
    f"""CREATE VIEW record AS SELECT
        s.t * 100000 + s.process AS record_id, {_WALL_S} AS ts, p.command AS cmdline,
        p.pid AS stat_pid, p.name AS stat_comm, p.ppid AS stat_ppid, s.minor_faults AS stat_minflt,
        s.major_faults AS stat_majflt,
        s.user_ms * m.ticks / 1000 AS stat_utime, s.system_ms * m.ticks / 1000 AS stat_stime,
        0 AS stat_cutime, 0 AS stat_cstime, s.threads AS stat_num_threads, p.start AS stat_starttime,
        s.vms AS stat_vsize, s.rss / m.page AS stat_rss,
        s.rss / 1024 AS smaps_rollup_rss, s.pss / 1024 AS smaps_rollup_pss,
        0 AS smaps_rollup_private_clean, s.uss / 1024 AS smaps_rollup_private_dirty, s.swap / 1024 AS smaps_rollup_swap,
        s.fds AS fd_reg, 0 AS fd_anon, 0 AS fd_dir, 0 AS fd_chr, 0 AS fd_blk, 0 AS fd_fifo, 0 AS fd_lnk, 0 AS fd_sock,
        s.voluntary_switches AS status_voluntary_ctxt_switches,
        s.involuntary_switches AS status_nonvoluntary_ctxt_switches
        FROM sample AS s JOIN process AS p ON p.id = s.process
        CROSS JOIN (SELECT (SELECT CAST(value AS INTEGER) FROM meta WHERE key = 'clock_ticks') AS ticks,
                           (SELECT CAST(value AS INTEGER) FROM meta WHERE key = 'page_size') AS page) AS m""",
)


def merged(step_s: int) -> str:
    """The query that merges samples into one each ``step_s``; its parameters: the process, from when, until when."""
    gauges = ", ".join(
        f"CAST(AVG({name}) AS INTEGER), MIN(COALESCE({name}_min, {name})), MAX(COALESCE({name}_max, {name}))"
        if name != "rss"  # the one figure of every row; its mean is weighted
        else "SUM(rss * n) / SUM(n), MIN(COALESCE(rss_min, rss)), MAX(COALESCE(rss_max, rss))"
        for name in GAUGES
    )
    largest = ", ".join(f"MAX({name})" for name in LARGEST)
    return f"""SELECT process, MIN(t), {step_s}, SUM(n), {gauges}, {largest} FROM sample
        WHERE process = ? AND t >= ? AND t < ? AND step < {step_s} GROUP BY t / {step_s * 1000}"""
