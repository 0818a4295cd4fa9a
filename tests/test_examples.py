"""Every file in examples/ does what it says, as people call it: a process of its own in an empty folder.

The programs of examples/leaks are run by tests/gallery.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from urllib.request import urlopen

import pytest
import redis

EXAMPLES = Path(__file__).parents[1] / "examples"
FLATWATER = ["-m", "flatwater.cli"]
ELSEWHERE = {"rest_robots.py": "tests/engine/test_driver.py", "gateway.toml": "tests/gateway/test_config.py"}


def call(folder: Path, *words: str | Path) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("FLATWATER_")}
    return subprocess.run(
        [sys.executable, *map(str, words)], cwd=folder, env=environment, capture_output=True, text=True, timeout=90,
        check=False,
    )  # fmt: skip


def printed(folder: Path, *words: str | Path) -> str:
    done = call(folder, *words)
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    return done.stdout


def test_hello(tmp_path: Path) -> None:
    for _ in range(2):  # the second time the runs are there already, or new ones give the same
        alone, within = map(json.loads, printed(tmp_path, EXAMPLES / "hello.py").splitlines())
        assert (alone, within) == ({"kilograms": 812.5}, {"kilograms": 787.5})


def test_parallel(tmp_path: Path) -> None:
    assert printed(tmp_path, EXAMPLES / "parallel.py") == ("SUCCEEDED {'attempts': 3, 'printed': 'bolts, 812.5 kg'}\n")


def test_chunks_and_once_more(tmp_path: Path) -> None:
    for _ in range(2):  # the second time the run has ended already: nothing is copied again
        assert printed(tmp_path, EXAMPLES / "chunks.py") == "SUCCEEDED 20000 rows\n"


def test_embed_twice_is_each_order_once(tmp_path: Path) -> None:
    expected = f"{{'SUCCEEDED': 100}}\nsum of squares: {sum(n * n for n in range(100))}\n"
    assert [printed(tmp_path, EXAMPLES / "embed.py") for _ in range(2)] == [expected] * 2


def test_trigger(tmp_path: Path) -> None:
    lines = printed(tmp_path, EXAMPLES / "trigger.py", "5").splitlines()
    assert "somebody opened north" in lines
    assert "a second has passed" in lines


def test_approval_in_time(tmp_path: Path) -> None:
    lines = printed(tmp_path, EXAMPLES / "approval.py").splitlines()
    assert lines == ["WAITING: the event approved:17", "SUCCEEDED {'by': 'Ann', 'late': False}"]


def test_approval_too_late(tmp_path: Path) -> None:
    words = [*FLATWATER, "run", EXAMPLES / "approval.json", "--input", "order=17", "--input", "patienceMs=100"]
    assert json.loads(printed(tmp_path, *words)) == {"by": None, "late": True}


def test_transport(tmp_path: Path) -> None:
    sites = EXAMPLES / "transport-sites.json"
    words = [*FLATWATER, "run", EXAMPLES / "transport.json", "--sites", sites, "--speed", "100"]
    done = json.loads(printed(tmp_path, *words))
    assert (done["from"], done["to"]) == ("IN-1", "BUF-A-1")
    assert done["robot"] in ("R1", "R2", "R3")


def test_the_settings_are_valid(tmp_path: Path) -> None:
    shown = printed(tmp_path, *FLATWATER, "config", "check", "--config", EXAMPLES / "flatwater.toml")
    assert "flow.example" in shown


class Work:
    """``flatwater guard`` in a folder, around the worker of an example."""

    def __init__(self, folder: Path, *words: str, **variables: str) -> None:
        self.folder = folder
        environment = {name: value for name, value in os.environ.items() if not name.startswith("FLATWATER")}
        self.environment = environment | {"PYTHONPATH": str(EXAMPLES), **variables}
        self.words = [sys.executable, *FLATWATER, "guard", "--", sys.executable, "-m", *words]

    def call(self, *words: str | Path) -> str:
        command = [sys.executable, *map(str, words)]
        done = subprocess.run(
            command, cwd=self.folder, env=self.environment, capture_output=True, text=True, timeout=90, check=False
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    def until(self, done: Callable[[], bool]) -> str:
        """The report of a guard that ran until then."""
        with (self.folder / "log").open("wb") as log:
            guard = subprocess.Popen(self.words, cwd=self.folder, env=self.environment, stdout=log, stderr=log)
        try:
            deadline = time.monotonic() + 90
            while not done():
                assert time.monotonic() < deadline, (self.folder / "log").read_text()[-3000:]
                time.sleep(0.2)
        finally:
            guard.terminate()
            guard.wait(30)
        return self.call(*FLATWATER, "guard", "report")


def growing(report: str) -> str:
    """The first task of the report's table, which grows most, if its growth is sure."""
    lines = report.splitlines()
    row = lines[next(number for number, line in enumerate(lines) if line.startswith("task ")) + 1]
    assert " ± " in row, report
    return re.split(r"\s{2,}", row)[0]


def test_guard_huey(tmp_path: Path) -> None:
    work = Work(tmp_path, "huey.bin.huey_consumer", "guard_huey.huey", "-w", "2", "-q")
    work.call(EXAMPLES / "guard_huey.py")
    left = "import guard_huey; print(len(guard_huey.huey))"
    report = work.until(lambda: work.call("-c", left) == "0\n")
    assert growing(report) == "read_order"
    assert "given back" in report


def test_guard_celery(tmp_path: Path, redis_url: str) -> None:
    words = ["celery", "-A", "guard_celery", "worker", "-c", "2", "--loglevel", "WARNING", "--without-mingle"]
    work = Work(tmp_path, *words, BROKER=redis_url)
    work.call(EXAMPLES / "guard_celery.py")
    with contextlib.closing(redis.Redis.from_url(redis_url)) as queue:
        report = work.until(lambda: not queue.llen("celery") and not queue.hlen("unacked"))
    assert growing(report) == "shop.read_order"


def test_guard_asgi(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    asked = iter(range(10**6))

    def ask() -> bool:
        """Until the process has left and its successor serves."""
        number = next(asked)
        path = f"orders/{number}" if number * 7919 % 1000 < 600 else "health"
        with contextlib.suppress(OSError), urlopen(f"http://127.0.0.1:{port}/{path}", timeout=10) as answer:
            assert answer.read() in (b"well\n", f"order {number}\n".encode())
            return (tmp_path / "log").read_text().count("Application startup complete") >= 2
        return False

    def enough() -> bool:
        return any(ask() for _ in range(50))

    app = f"{(EXAMPLES / 'guard_asgi.py').stem}:app"
    report = Work(tmp_path, "uvicorn", app, "--port", str(port), "--no-access-log").until(enough)
    assert growing(report) == "GET /orders/{number}"


@pytest.mark.parametrize("file", sorted(EXAMPLES.glob("*.json")), ids=lambda file: file.name)
def test_definitions_are_valid(file: Path, tmp_path: Path) -> None:
    if not file.name.endswith("-sites.json"):
        assert call(tmp_path, *FLATWATER, "definitions", "check", file).stderr == ""


def test_every_example_is_run_by_a_test() -> None:
    here = Path(__file__).read_text("utf-8")
    files = [file.name for file in EXAMPLES.iterdir() if file.is_file()]
    assert [name for name in files if name not in here and name not in ELSEWHERE] == []
    for name, test in ELSEWHERE.items():
        assert Path(name).stem in (EXAMPLES.parent / test).read_text("utf-8")


def test_the_example_of_the_readme(tmp_path: Path) -> None:
    text = (EXAMPLES.parent / "README.md").read_text("utf-8")
    source = text.split("```python\n")[1].split("```")[0]
    assert printed(tmp_path, "-c", source) == "{'kg': 812.5}\n"


def test_links_of_the_documents_lead_somewhere() -> None:
    root = EXAMPLES.parent
    pages = [*root.glob("*.md"), *(root / "docs").rglob("*.md")]
    links = [(page, link) for page in pages for link in re.findall(r"\]\(([^)#:\s]+)(?:#[^)]*)?\)", page.read_text())]
    assert len(links) > 50
    assert [f"{page.name}: {link}" for page, link in links if not (page.parent / link).exists()] == []
