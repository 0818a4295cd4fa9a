"""`flatwater record`, `plot` and `report` as people type them; the HTML chart in a real browser."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import pytest
from playwright.sync_api import sync_playwright
from tests.memory.test_record_live import recording_command, wait_rows
from tests.server.browser import ARGUMENTS, CHROMIUM

FLATWATER = [sys.executable, "-m", "flatwater.cli"]
LEAK = "import time\nheld = []\nwhile True:\n held.append(bytearray(300_000)); time.sleep(0.02)  # "


def flatwater(*words: str | Path, status: int = 0) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "COLUMNS": "90", "LINES": "30"}
    done = subprocess.run(
        [*FLATWATER, *map(str, words)], capture_output=True, text=True, timeout=90, check=False, env=environment
    )
    assert done.returncode == status, done.stderr
    return done


@pytest.fixture(scope="module")
def leak() -> Iterator[str]:
    """A word in the command line of two leaking processes."""
    tag = f"tag{uuid4().hex}"
    children = [subprocess.Popen([sys.executable, "-c", LEAK + tag]) for _ in range(2)]
    yield tag
    for child in children:
        child.kill()
        child.wait()


@pytest.fixture(scope="module")
def recording(leak: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("recording") / "celery.sqlite"
    done = flatwater(
        *("record", "-d", path, "-i", "0.1", "--shares", "500ms", "--for", "6s"),
        *(f"$..children[?('{leak}' in @.cmdline)]", "--alert", "rss slope > 1MiB/min for 2s", "--on-alert", "log"),
    )
    assert "of 2 processes" in done.stderr
    assert done.stderr.count("alert: python") == 2
    return path


def test_report(recording: Path) -> None:
    text = flatwater("report", recording).stdout
    assert text.startswith("GROWING: python")
    assert "1 other process too." in text.splitlines()[0]
    found = json.loads(flatwater("report", "--json", "--figure", "uss", recording).stdout)
    assert [one["ending"] for one in found["processes"]] == ["running", "running"]
    assert all(one["trend"]["low"] > 0 and one["time_to_limit_s"] > 0 for one in found["processes"] if one["trend"])
    assert len(found["alerts"]) == 2


def test_plot(recording: Path, tmp_path: Path) -> None:
    for name, begin in (("a.svg", b"<svg"), ("a.png", b"\x89PNG"), ("a.html", b"<!doctype html>")):
        flatwater("plot", recording, "-o", tmp_path / name)
        assert (tmp_path / name).read_bytes().startswith(begin)
    shown = flatwater("plot", recording, "--last", "2s").stdout
    assert "Resident memory (RSS) of python -c" in shown
    assert "MiB ┤" in shown
    assert max(len(line) for line in shown.splitlines()[3:20]) <= 90


def test_the_page_answers_the_mouse(recording: Path, tmp_path: Path) -> None:
    if CHROMIUM is None:
        pytest.skip("no Chromium")
    page_file = tmp_path / "chart.html"
    flatwater("plot", recording, "-o", page_file)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        page = browser.new_page(viewport={"width": 1220, "height": 720})
        complaints: list[str] = []
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("request", lambda request: complaints.append(request.url) if "chart.html" not in request.url else None)
        page.goto(page_file.as_uri())
        page.mouse.move(450, 350)
        tip = page.locator("#tip")
        tip.wait_for(state="visible")
        assert tip.inner_text().count("MiB") == 2
        lines = page.locator("path[data-key]:visible")
        before = lines.count()
        page.locator("text[data-key]").first.click()
        assert 0 < lines.count() < before
        page.locator("text[data-key]").first.click()
        assert lines.count() == before
        browser.close()
    assert complaints == []


def test_wrong_usage_says_what_to_do(tmp_path: Path) -> None:
    there = tmp_path / "r.sqlite"
    for words, what in (
        (("record", "-o", there, "$..children[?('x' in )]"), "position 22"),
        (("record", "-o", there, "-i", "0.01", "x"), "at least 0.05 s"),
        (("record", "-o", there, "-i", "soon", "x"), "250ms"),
        (("record", "-o", there, "x", "--alert", "rss >"), "position 6"),
        (("record", "-o", there, "x", "--alert", "rss > 1", "--on-alert", "mail"), "webhook:"),
        (("record", "-o", "/proc/r.sqlite", "x"), "directory that you may write"),
        (("record", "-o", there, "4194300"), "no process has the pid 4194300"),
        (("report", there), "`flatwater record` makes one"),
        (("plot", there), "`flatwater record` makes one"),
        (("plot", there, "--figure", "weight"), "weight"),
    ):
        status = 2 if what in ("at least 0.05 s", "250ms", "weight") else 1
        assert what in flatwater(*words, status=status).stderr
    assert not there.exists()


def test_alerts_of_a_file(leak: str, tmp_path: Path) -> None:
    out = tmp_path / "told"
    program = f"import sys; open({str(out)!r}, 'a').write(sys.stdin.read())"
    (tmp_path / "alerts.toml").write_text(
        f"[[alert]]\nrule = 'total rss > 1MiB'\non = ['''exec:{sys.executable} -c \"{program}\"''']\ncooldown = '1h'\n"
    )
    path = tmp_path / "r.sqlite"
    flatwater("record", "-o", path, leak, "--for", "0.5s", "-i", "100ms", "--alerts", tmp_path / "alerts.toml", "-q")
    told = json.loads(out.read_text())
    assert (told["source"], told["label"], told["kind"]) == ("total", "2 processes", "raised")
    (tmp_path / "alerts.toml").write_text("[[alert]]\nrules = 1\n")
    done = flatwater("record", "-o", path, leak, "--alerts", tmp_path / "alerts.toml", status=1)
    assert "an alert has rule" in done.stderr


def test_recording_stops_when_the_pid_ends(tmp_path: Path) -> None:
    path = tmp_path / "r.sqlite"
    with subprocess.Popen(["sleep", "600"]) as child:
        with recording_command("-o", str(path), str(child.pid), "-i", "100ms") as recorder:
            wait_rows(path, 1)
            child.kill()  # and nobody waits for it yet: a zombie has ended, too
            assert "of 1 process\n" in recorder.communicate(timeout=60)[1]
        assert recorder.returncode == 0
