"""``flatwater guard`` as it is typed: one way to name the record, and clear words for what cannot be."""

from __future__ import annotations

import shlex
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from tests.guard.guarding import GUARD

from flatwater.cli import main
from flatwater.guard.channel import supervised
from flatwater.guard.hint import release_by_worker, release_command
from flatwater.guard.presence import Presence, tell
from flatwater.guard.record import Record


def flatwater(monkeypatch: pytest.MonkeyPatch, line: str) -> int:
    """The exit status of a command."""
    monkeypatch.setattr(sys, "argv", shlex.split(line))
    with pytest.raises(SystemExit) as status:
        main()
    return int(status.value.code or 0)


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A record of another name than the usual one, in a folder whose own is another."""
    (tmp_path / "cwd").mkdir()
    monkeypatch.chdir(tmp_path / "cwd")
    file = tmp_path / "my guard.db"
    with Record(file) as record, Record(Path("flatwater-guard.db")):
        record.kill("GET /x; y", 1)
        record.kill("-n", 1)
    return file


def test_report_and_release_take_the_record_of_the_guard(
    file: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert flatwater(monkeypatch, f"flatwater guard --record {shlex.quote(str(file))} report") == 0
    told = capsys.readouterr().out
    for task in ("GET /x; y", "-n"):
        (line,) = (line for line in told.splitlines() if line.startswith(f"  {task} "))
        command = line.partition("(")[2].removesuffix(")")
        assert flatwater(monkeypatch, command) == 0
        assert flatwater(monkeypatch, command) == 1, "once"
    with Record(file) as record:
        assert record.quarantined() == []


def test_the_ways_that_the_record_was_once_given(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    quoted = shlex.quote(str(file))
    assert flatwater(monkeypatch, f"flatwater guard report {quoted}") == 0
    assert flatwater(monkeypatch, f"flatwater guard release --record {quoted} 'GET /x; y'") == 0


def test_a_worker_tells_the_record_of_its_guard(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLATWATER_GUARD", str(tmp_path / "socket"))
    channel = supervised()
    assert channel is not None
    told = Presence(pid=1, start="1", command=(), record="/srv/my guard.db", since=0.0, soft=None, hard=None)
    tell(channel.folder, told)
    assert release_by_worker("eat", channel.folder) == "flatwater guard --record '/srv/my guard.db' release eat"
    assert release_by_worker("eat", None) == release_command("eat", "") == "flatwater guard release eat"
    channel.close()


@pytest.mark.parametrize("command", ["report", "release x"])
def test_a_file_that_is_no_record(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], command: str
) -> None:
    file = tmp_path / "notes.txt"
    file.write_text("no database" * 100)
    assert flatwater(monkeypatch, f"flatwater guard --record {file} {command}") == 1
    assert "file is not a database" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ("--", "give the worker's command after --"),
        ("--soft 600 -- sleep 99", "--soft is 600 bytes: no worker is so small; write 600MiB"),
        ("--hard 900 -- sleep 99", "--hard is 900 bytes"),
        ("--stop-signal 15 -- sleep 99", "'15' is no signal's name: TERM, INT"),
        ("--stop-signal kill -- sleep 99", "no program can end its work at that"),
        ("--stop-signal SIGSTOP -- sleep 99", "no program can end its work at that"),
    ],
)
def test_wrong_words_are_told_with_the_usage_as_it_is_typed(
    file: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], words: str, told: str
) -> None:
    assert flatwater(monkeypatch, f"flatwater guard {words}") == 2
    shown = capsys.readouterr().err
    assert told in shown
    assert "guard [OPTIONS] -- COMMAND…" in shown


def test_a_guard_that_cannot_begin_says_why_and_leaves_nothing_behind(tmp_path: Path) -> None:
    (tmp_path / "tmp").mkdir()
    (tmp_path / "file").write_text("")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        for words, told in (
            (["--metrics-port", str(port)], f"Address already in use [--metrics-port {port}] — give another one"),
            (["--record", str(tmp_path / "file" / "guard.db")], "unable to open database file"),
        ):
            done = subprocess.run(
                [*GUARD, *words, "--", "sleep", "99"],
                cwd=tmp_path, env={"TMPDIR": str(tmp_path / "tmp")}, capture_output=True, text=True, check=False,
            )  # fmt: skip
            assert (done.returncode, list((tmp_path / "tmp").iterdir())) == (1, [])
            assert told in done.stderr
            assert "Traceback" not in done.stderr
