"""The file of a recording: what is written is read, old samples are merged, clocks may jump, disks may be full."""

from __future__ import annotations

import os
import random
import resource
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from flatwater.errors import ClosedError, ConflictError, NotFoundError, StoreError
from flatwater.memory import scan
from flatwater.memory.recording import Clock, Recording, Sample
from flatwater.memory.recording_read import Reader, label
from flatwater.memory.recording_thin import Retention

MIB = 1024**2
HOUR = 3600


class Hands(Clock):
    """A clock that tests set."""

    def __init__(self) -> None:
        self.s, self.offset = 1000.0, 1_700_000_000.0

    def steady(self) -> float:
        return self.s

    def wall(self) -> float:
        return self.s + self.offset


@pytest.fixture
def clock() -> Hands:
    return Hands()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "recording.sqlite"


def add(recording: Recording, pid: int = 7, command: str = "python -m app") -> int:
    own = scan.read(os.getpid())
    assert own is not None
    process = replace(own, pid=pid, name="app", command=command)
    return recording.add_process(process, recording.now(), started_t=0, chosen=True, parent=None, group=None)


def sample(process: int, t: int, rss: int, **more: int) -> Sample:
    return Sample(process, t, rss, 9 * rss, 10, 5, 3, **more)


def test_what_is_written_is_read(path: Path, clock: Hands) -> None:
    with Recording(path, clock=clock) as recording:
        process = add(recording)
        for second in range(20):
            shares = {"pss": 80, "fds": 12} if second % 10 == 0 else {}
            recording.add_sample(sample(process, second * 1000, 100 + second, **shares))
        recording.end_process(process, 19_500, 9, oom=True)
        recording.add_event(3000, process, "exec", "other")
        assert recording.flush() is None
    assert [file.name for file in path.parent.iterdir()] == [path.name]  # no -wal, no -shm: one file to hand on
    with Reader(path) as reader:
        (line,) = reader.processes()
        assert (line.pid, line.peak_rss, line.oom, line.last, line.ended) == (7, 119, True, 19.0, 19.5)
        assert line.ending == "signal 9 (SIGKILL), killed for memory"
        assert [point.value for point in reader.series(line.id)] == list(range(100, 120))
        assert [point.t for point in reader.series(line.id, "pss")] == [0.0, 10.0]
        assert reader.wall(0) == pytest.approx(1_700_001_000)
        assert ("exec", "other") in [(event.kind, event.detail) for event in reader.events()]


def test_views_for_people_and_for_queries_written_for_procpath(path: Path, clock: Hands) -> None:
    with Recording(path, clock=clock) as recording:
        process = add(recording)
        for second in range(5):
            recording.add_sample(sample(process, second * 1000, 3 * MIB, pss=2 * MIB, uss=MIB, swap=0, fds=5))
        recording.flush()
    with closing(sqlite3.connect(path)) as db:
        total = "SELECT ts, SUM(stat_rss) / 1024.0 / 1024 * (SELECT value FROM meta WHERE key = 'page_size')"
        assert db.execute(f"{total} FROM record GROUP BY ts").fetchall() == [
            (pytest.approx(1_700_001_000 + second), 3.0) for second in range(5)
        ]
        ticks = "(SELECT value FROM meta WHERE key = 'clock_ticks')"
        cpu = f"SELECT stat_pid, stat_comm, cmdline, (stat_utime + stat_stime) * 1000 / {ticks} FROM record"
        assert db.execute(f"{cpu} ORDER BY record_id LIMIT 1").fetchone()[:3] == (7, "app", "python -m app")
        kib = db.execute("SELECT smaps_rollup_pss, smaps_rollup_private_dirty, fd_reg FROM record").fetchone()
        assert kib == (2048, 1024, 5)
        assert db.execute("SELECT at, process, rss_mib FROM memory ORDER BY t").fetchone() == (
            "2023-11-14 22:30:00",
            "app 7",
            3.0,
        )
        assert db.execute("SELECT ending, peak_mib FROM life").fetchone() == ("running", 3.0)
        assert db.execute("SELECT kind FROM happening").fetchall() == []


def test_merged_samples_keep_least_mean_and_largest(path: Path, clock: Hands) -> None:
    rng = random.Random(5)
    values = [rng.randrange(100, 1000) for _ in range(7200)]
    with Recording(path, clock=clock, retention=Retention(raw_s=HOUR, tens_s=1.5 * HOUR)) as recording:
        process = add(recording)
        for second, value in enumerate(values):
            recording.add_sample(sample(process, second * 1000, value, pss=value))
        recording.flush()
        recording.thin(7200_000)
        assert recording.statistics().rows == {0: 3600, 10: 180, 60: 30}
        assert recording.thin(7200_000) == 0
    with Reader(path) as reader:
        points = reader.series(process)
        assert [point.value for point in points[-3600:]] == values[3600:]
        for number, point in enumerate(points[:30]):
            chunk = values[60 * number : 60 * number + 60]
            assert (point.low, point.high) == (min(chunk), max(chunk))
            assert point.value == pytest.approx(sum(chunk) / 60, abs=2)
        assert reader.series(process, "pss")[0].high == max(values[:60])
        assert reader.processes()[0].peak_rss == max(values)


MONTH_HOURS = 30 * 24


def test_a_month_of_one_process_stays_small(path: Path, clock: Hands) -> None:
    """What ends as one row a minute is written each 30 s, what ends as one each 10 s each 5: as many rows remain."""
    with Recording(path, clock=clock) as recording:
        process = add(recording)
        for hour in range(MONTH_HOURS):
            begin = hour * HOUR
            left = MONTH_HOURS - hour
            for second in range(begin, begin + HOUR, 1 if left <= 7 else 5 if left <= 54 else 30):
                shares = {"pss": 90 * MIB + second, "uss": 80 * MIB, "swap": 0, "fds": 40} if second % 30 == 0 else {}
                row = Sample(
                    process, second * 1000, 100 * MIB + second * 4096, 900 * MIB, second, second, 12, second, 3
                )
                recording.add_sample(row._replace(**shares))
            assert recording.flush() is None
            recording.thin((begin + HOUR) * 1000)
        found = recording.statistics()
    assert set(found.rows) == {0, 10, 60}
    assert found.rows[0] == pytest.approx(6 * HOUR, rel=0.01)
    assert found.bytes < 12 * MIB  # the promise is 50 MB
    assert path.stat().st_size == found.bytes


def test_the_file_has_a_bound(path: Path, clock: Hands) -> None:
    kept = Retention(raw_s=HOUR, tens_s=2 * HOUR, max_bytes=500_000)
    with Recording(path, clock=clock, retention=kept) as recording:
        process = add(recording)
        sizes = []
        for hour in range(40):
            for second in range(hour * HOUR, (hour + 1) * HOUR):
                recording.add_sample(sample(process, second * 1000, 100 * MIB + second))
            recording.flush()
            for _ in range(20):
                recording.thin((hour + 1) * HOUR * 1000)
            found = recording.statistics()
            sizes.append(found.bytes - found.free_bytes)
    assert max(sizes[5:]) < 700_000
    with Reader(path) as reader:
        assert reader.series(process)[-1].t == 40 * HOUR - 1
        assert reader.wall(40 * HOUR) == pytest.approx(clock.wall() - 1000 + 1000 + 40 * HOUR)


def test_a_clock_that_jumps_moves_stamps_and_nothing_else(path: Path, clock: Hands) -> None:
    with Recording(path, clock=clock) as recording:
        first = recording.now()
        clock.s += 10
        clock.offset -= HOUR
        second = recording.now()
        clock.s += 10
        assert (second - first, recording.now() - second) == (10_000, 10_000)
        recording.flush()
    with Reader(path) as reader:
        assert [event.detail for event in reader.events()] == ["the wall clock was set by -3600.0 s"]
        assert reader.wall(5) == pytest.approx(1_700_001_005)
        assert reader.wall(15) == pytest.approx(1_700_001_015 - HOUR)


def test_a_recording_is_continued(path: Path, clock: Hands) -> None:
    own = scan.read(os.getpid())
    assert own is not None
    with Recording(path, clock=clock) as recording:
        here = recording.add_process(own, 0, started_t=-5000, chosen=True, parent=None, group=None)
        gone = add(recording, pid=2**22 - 1)
        for process in (here, gone):
            recording.add_sample(sample(process, 2000, 50))
        recording.flush()
    clock.s += 600
    with Recording(path, clock=clock) as recording:
        assert recording.resumed() == {own.key: here}
        recording.add_sample(sample(here, recording.now(), 60))
        recording.flush()
    with Reader(path) as reader:
        assert [point.t for point in reader.series(here)] == [2.0, 600.0]
        assert reader.wall(600) == pytest.approx(clock.wall())
        assert [(line.id, line.ended) for line in reader.processes()] == [(here, None), (gone, 2.0)]
        assert [event.kind for event in reader.events()] == ["gap"]


def test_one_recorder_at_a_time(path: Path) -> None:
    with Recording(path) as recording:
        recording.note("recorder", f"1 {scan.read(1).start}")  # type: ignore[union-attr]
        recording.flush()
        with pytest.raises(ConflictError, match="the recorder 1 writes it"):
            Recording(path)


def test_files_that_are_no_recordings(tmp_path: Path) -> None:
    text, other = tmp_path / "text", tmp_path / "other.sqlite"
    text.write_text("not a database, but quite long enough to look at " * 50)
    with closing(sqlite3.connect(other)) as db:
        db.execute("CREATE TABLE mine (a)")
    for file in (text, other):
        with pytest.raises(StoreError):
            Recording(file)
        with pytest.raises(StoreError):
            Reader(file)
    with pytest.raises(NotFoundError):
        Reader(tmp_path / "nothing")
    with pytest.raises(StoreError, match="choose a directory that you may write"):
        Recording(Path("/proc/recording.sqlite"))
    assert text.read_text().startswith("not a database")


@contextmanager
def room(size: int) -> Iterator[None]:
    """Files of this process may not grow beyond ``size``: what a full disk is to SQLite."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_on_a_full_disk_rows_wait_and_are_written_when_there_is_room(path: Path, clock: Hands) -> None:
    with Recording(path, clock=clock, max_pending=5000) as recording:
        process = add(recording)
        recording.flush()
        with room(200_000):
            for second in range(4000):
                recording.add_sample(sample(process, second * 1000, second))
            assert recording.flush()
            assert recording.flush()
            for second in range(4000, 6000):
                recording.add_sample(sample(process, second * 1000, second))
            assert recording.flush()
            found = recording.statistics()
            assert (found.failures, found.pending, found.dropped) == (3, 5000, 1000)
        assert recording.flush() is None
        assert recording.statistics().pending == 0
    with Reader(path) as reader:
        assert [point.value for point in reader.series(process)] == list(range(1000, 6000))


def test_closed_twice_is_closed(path: Path) -> None:
    recording = Recording(path)
    assert recording.close() is None
    assert recording.close() is None
    with pytest.raises(ClosedError):
        recording.flush()


@pytest.mark.parametrize(
    ("command", "short"),
    [
        ("/usr/bin/python3 -m celery -A demo worker", "celery -A demo worker"),
        ("/usr/bin/python3.11 -X dev /srv/app/gateway.py --port 80", "gateway.py --port 80"),
        ("python -c import time; time.sleep(1)", "python -c"),
        ("python", "python"),
        ("redis-server *:6379", "redis-server *:6379"),
        ("", "name"),
        ("/opt/x " + "y" * 100, "x " + "y" * 37 + "…"),
    ],
)
def test_labels(command: str, short: str) -> None:
    assert label(command, "name") == short
