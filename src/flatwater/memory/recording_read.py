"""Reading a recording, also while it is being written."""

from __future__ import annotations

import sqlite3
import time
from bisect import bisect_right
from collections.abc import Sequence
from itertools import groupby, pairwise
from pathlib import Path
from typing import Final, NamedTuple, Self

import msgspec

from flatwater.errors import InputError, NotFoundError, StoreError
from flatwater.memory import recording_schema as schema
from flatwater.memory.agent_figures import HOLDER
from flatwater.memory.exit_watch import ending

FIGURES: Final = (*schema.GAUGES, "vms", "threads", "cpu")
AGENT_FIGURES: Final = ("blocks", "arenas", "malloc_used", "malloc_free", "tasks", "pool_checked_out", "ledger")
"""What agents tell and a chart can show; ``ledger`` is one line for each bounded holder."""
BYTES: Final = frozenset({"rss", "pss", "uss", "swap", "vms", "arenas", "malloc_used", "malloc_free"})
MAX_POINTS: Final = 20_000


class Point(NamedTuple):
    """A figure at ``t`` (seconds of the recording): the mean, the least and the largest of what was merged."""

    t: float
    value: float
    low: float
    high: float


class ProcessLine(msgspec.Struct, frozen=True, kw_only=True):
    """One process of a recording; times in seconds of the recording, ``started`` may lie before it."""

    id: int
    pid: int
    ppid: int
    parent: int | None
    name: str
    command: str
    chosen: bool
    started: float
    first: float
    last: float
    ended: float | None
    exit_status: int | None
    oom: bool
    group: str | None
    peak_rss: int

    @property
    def label(self) -> str:
        """The command in short: ``celery -A demo worker``."""
        return label(self.command, self.name)

    @property
    def ending(self) -> str:
        """``running``, or how it ended."""
        return "running" if self.ended is None else ending(self.exit_status, oom=self.oom)


class EventLine(NamedTuple):
    t: float
    process: int | None
    kind: str
    detail: str


class GroupPoint(NamedTuple):
    t: float
    used: int | None
    file: int | None
    limit: int | None
    oom_kills: int


class Reader:
    """Raises NotFoundError when there is no file, StoreError when it is no recording."""

    def __init__(self, path: Path) -> None:
        if not path.is_file():
            raise NotFoundError("no recording", where=str(path), hint="`flatwater record` makes one")
        self.path = path
        self._db = sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True, timeout=5.0)
        try:
            self.meta: dict[str, str] = dict(self._db.execute("SELECT key, value FROM meta"))
            if self.meta.get("flatwater_recording") != str(schema.VERSION):
                raise StoreError("this is no recording of this version", where=str(path))
            self._clock = self._db.execute("SELECT t, offset FROM clock ORDER BY t").fetchall()
            self._groups = dict(self._db.execute("SELECT id, path FROM control_group"))
        except sqlite3.Error as error:
            self._db.close()
            raise StoreError(str(error), where=str(path)) from error
        except BaseException:
            self._db.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._db.close()

    def wall(self, t: float) -> float:
        """Seconds since 1970 at ``t`` seconds of the recording."""
        place = bisect_right(self._clock, t * 1000, key=lambda row: row[0]) - 1
        return t + float(self._clock[max(0, place)][1]) / 1000 if self._clock else t

    def processes(self) -> list[ProcessLine]:
        """In the order in which they were first seen; those without a sample left out."""
        rows = self._db.execute(
            "SELECT p.id, pid, ppid, parent, name, command, chosen, started_t, first_t, ended_t, exit_status, oom,"
            " control_group, (SELECT MAX(t) FROM sample WHERE process = p.id),"
            " (SELECT MAX(MAX(COALESCE(rss_max, 0), rss)) FROM sample WHERE process = p.id)"
            " FROM process AS p ORDER BY p.id"
        )
        return [
            ProcessLine(
                id=row[0],
                pid=row[1],
                ppid=row[2],
                parent=row[3],
                name=row[4],
                command=row[5],
                chosen=bool(row[6]),
                started=row[7] / 1000,
                first=row[8] / 1000,
                ended=None if row[9] is None else row[9] / 1000,
                exit_status=row[10],
                oom=bool(row[11]),
                group=self._groups.get(row[12]),
                last=row[13] / 1000,
                peak_rss=row[14],
            )
            for row in rows
            if row[13] is not None
        ]

    def series(
        self, process: int, figure: str = "rss", *, since: float | None = None, max_points: int = MAX_POINTS
    ) -> list[Point]:
        """A figure of a process over time, from ``since`` on; above ``max_points``, neighbours are merged.

        cpu: percent of one CPU. Also what the process's agent told, by its name in ``agent_sample``.
        """
        begin = -(2**62) if since is None else round(since * 1000)
        if figure in AGENT_FIGURES or figure.startswith(HOLDER):
            query = "SELECT t / 1000.0, value FROM agent_sample WHERE process = ? AND figure = ? AND t >= ? ORDER BY t"
            told = [Point(t, value, value, value) for t, value in self._db.execute(query, (process, figure, begin))]
            return told if len(told) <= max_points else merged(told, max_points)
        if figure == "cpu":
            return self._cpu(process, begin)
        if figure in schema.GAUGES:
            columns = f"{figure}, COALESCE({figure}_min, {figure}), COALESCE({figure}_max, {figure})"
        elif figure in FIGURES:
            columns = f"{figure}, {figure}, {figure}"
        else:
            raise InputError(f"no figure {figure}", hint=f"there are {', '.join(FIGURES)}")
        query = (
            f"SELECT t / 1000.0, {columns} FROM sample WHERE process = ? AND t >= ? AND {figure} IS NOT NULL ORDER BY t"  # noqa: S608
        )
        points = [Point(*row) for row in self._db.execute(query, (process, begin))]
        return points if len(points) <= max_points else merged(points, max_points)

    def _cpu(self, process: int, begin: int) -> list[Point]:
        query = "SELECT t, user_ms + system_ms FROM sample WHERE process = ? AND t >= ? ORDER BY t"
        rows = self._db.execute(query, (process, begin)).fetchall()
        percent = (
            (t / 1000, 100 * (spent - before) / (t - earlier))
            for (earlier, before), (t, spent) in pairwise(rows)
            if t > earlier
        )
        return [Point(t, value, value, value) for t, value in percent]

    def ends(self, process: int, figure: str) -> tuple[int, int] | None:
        """The first and the last known value of a recorded figure; None when there is none."""
        query = f"SELECT {figure} FROM sample WHERE process = ? AND {figure} IS NOT NULL ORDER BY t"  # noqa: S608
        first, last = (self._db.execute(f"{query} {way} LIMIT 1", (process,)).fetchone() for way in ("ASC", "DESC"))
        return (first[0], last[0]) if first and last else None

    def latest(self, process: int) -> dict[str, int | None]:
        """The last known figure of each name."""
        found: dict[str, int | None] = {}
        for figure in (*schema.GAUGES, *schema.LARGEST):
            query = f"SELECT {figure} FROM sample WHERE process = ? AND {figure} IS NOT NULL ORDER BY t DESC LIMIT 1"  # noqa: S608
            row = self._db.execute(query, (process,)).fetchone()
            found[figure] = row[0] if row else None
        return found

    def holders(self, process: int) -> list[str]:
        """The names of the bounded holders of which an agent told, by name."""
        query = "SELECT DISTINCT figure FROM agent_sample WHERE process = ? AND figure GLOB ? ORDER BY figure"
        return [name.removeprefix(HOLDER) for (name,) in self._db.execute(query, (process, f"{HOLDER}*"))]

    def agent_figures(self, process: int) -> dict[str, list[tuple[float, float]]]:
        """What the process's agent told, by name: (t, value); empty where none listened."""
        found: dict[str, list[tuple[float, float]]] = {}
        query = "SELECT figure, t / 1000.0, value FROM agent_sample WHERE process = ? ORDER BY figure, t"
        for name, t, value in self._db.execute(query, (process,)):
            found.setdefault(name, []).append((t, value))
        return found

    def group(self, path: str) -> list[GroupPoint]:
        rows = self._db.execute(
            "SELECT t / 1000.0, used, file, size_limit, oom_kills FROM group_sample JOIN control_group AS c"
            " ON c.id = control_group WHERE c.path = ? ORDER BY t",
            (path,),
        )
        return [GroupPoint(*row) for row in rows]

    def limit(self, path: str | None) -> int | None:
        """The last known limit of a group; None when it has none."""
        rows = self.group(path) if path is not None else []
        return rows[-1].limit if rows else None

    @property
    def machine_bytes(self) -> int:
        """The memory of the machine."""
        return int(self.meta.get("physical_pages", 0)) * int(self.meta.get("page_size", 0))

    def events(self) -> list[EventLine]:
        rows = self._db.execute("SELECT t / 1000.0, process, kind, detail FROM event ORDER BY id")
        return [EventLine(*row) for row in rows]


def merged(points: Sequence[Point], max_points: int) -> list[Point]:
    """At most ``max_points`` of equal times, however dense the rows are: means, with the least and the largest."""
    first, span = points[0].t, points[-1].t - points[0].t
    width = span / max_points or 1.0

    def place(point: Point) -> int:
        return min(int((point.t - first) / width), max_points - 1)

    chunks = (list(chunk) for _, chunk in groupby(points, key=place))
    return [
        Point(
            sum(point.t for point in chunk) / len(chunk),
            sum(point.value for point in chunk) / len(chunk),
            min(point.low for point in chunk),
            max(point.high for point in chunk),
        )
        for chunk in chunks
    ]


_LAUNCHERS: Final = ("python", "pypy")


def label(command: str, name: str, *, max_length: int = 40) -> str:
    """A command line as a person would name it: no interpreter, no directories, ``-m`` gone."""
    words = command.split()
    if words and words[0].rpartition("/")[2].startswith(_LAUNCHERS):
        rest = words[1:]
        while rest and rest[0].startswith("-") and rest[0] not in ("-m", "-c"):
            rest = rest[2 if rest[0] in ("-X", "-W") else 1 :]
        if rest and rest[0] == "-c":
            words = [words[0], "-c"]
        elif rest:
            words = rest[1:] if rest[0] == "-m" else rest
    if not words:
        return name
    words[0] = words[0].rpartition("/")[2] or words[0]
    text = " ".join(words)
    return text if len(text) <= max_length else text[: max_length - 1] + "…"


def stamp(wall: float) -> str:
    """Local time to the second."""
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(wall))
