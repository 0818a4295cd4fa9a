"""``flatwater diagnose`` on real processes that were not prepared in any way: its text, HTML and JSON."""

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from jsonschema_rs import Draft202012Validator

ROOT = Path(__file__).parents[2]
SCHEMA = json.loads((ROOT / "docs/reference/diagnosis.schema.json").read_text())
FLATWATER = Path(sys.executable).with_name("flatwater")
SECRET = "4111-1111-secret-marker"

LEAK = """
import sys, time

class Order:
    def __init__(self, number):
        self.card = SECRET + str(number)

class Desk:
    def __init__(self):
        self.by_card = {}

    def take(self, number):
        order = Order(number)
        self.by_card[order.card] = order

desk = Desk()
desk.settings = {SECRET: SECRET}

def main():
    print("ready", flush=True)
    number = 0
    while True:
        for _ in range(8):
            desk.take(number)
            number += 1
        time.sleep(0.01)

main()
"""
FLAT = """
import time

class Shop:
    def __init__(self):
        self.stock = {f"{SECRET}{number}": [number] * 20 for number in range(10_000)}
        self.newest = None

class Version:
    __slots__ = ("previous", "text")

shop = Shop()
for number in range(20_000):
    version = Version()
    version.previous, version.text, shop.newest = shop.newest, str(number) * 9, version
del version

def main():
    print("ready", flush=True)
    while True:
        kept = [str(number) for number in range(1000)]
        time.sleep(0.01)

main()
"""

Start = Callable[[str], subprocess.Popen[str]]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    running: list[subprocess.Popen[str]] = []

    def begin(program: str) -> subprocess.Popen[str]:
        file = tmp_path / "program.py"
        file.write_text(program.replace("SECRET", repr(SECRET)))
        one = subprocess.Popen([sys.executable, str(file)], stdout=subprocess.PIPE, text=True, cwd=tmp_path)
        running.append(one)
        assert one.stdout is not None
        assert one.stdout.readline() == "ready\n"
        return one

    yield begin
    for one in running:
        one.kill()
        one.communicate()


def run(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [str(FLATWATER), "diagnose", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=90)


def threads_of(pid: int) -> int:
    return len(list(Path(f"/proc/{pid}/task").iterdir()))


def test_leak_is_named_with_owner_line_and_advice_and_no_value(start: Start, tmp_path: Path):
    leak, page = start(LEAK), tmp_path / "report.html"
    picture, graph = tmp_path / "path.svg", tmp_path / "path.dot"
    done = run(leak.pid, "--for", "5s", "--json", "--html", page, "--svg", picture, "--dot", graph)
    assert done.returncode == 3, done.stderr
    told: dict[str, Any] = json.loads(done.stdout)
    Draft202012Validator(SCHEMA).validate(told)
    assert told["verdict"]["kind"] == "python-objects"
    first = told["suspects"][0]
    assert first["container"]["path"].startswith("__main__.desk → Desk.by_card (dict, +")
    assert first["items"]["type"] == "__main__.Order"
    assert first["container"]["growth_per_s"] > 50
    assert first["advice"]["key"] == "dict-by-id"
    assert first["container"]["retaining_path"]["steps"][-1]["suspect"]
    inserted = first["inserted_at"][0]
    lines = (tmp_path / "program.py").read_text().splitlines()
    assert "self.by_card[order.card] = order" in lines[inserted["line"] - 1]
    assert any("Order(number)" in lines[place["line"] - 1] for place in first["allocated_at"])
    html = page.read_text()
    assert "<svg" in html
    assert "by_card" in html
    text = run(leak.pid, "--for", "3s").stdout
    assert text.startswith("GROWING  python-objects")
    assert ".by_card" in picture.read_text()
    assert ".by_card" in graph.read_text()
    for report in (done.stdout, html, text, picture.read_text(), graph.read_text()):
        assert SECRET not in report
    assert leak.poll() is None


def test_flat_process_is_a_plateau(start: Start):
    flat = start(FLAT)
    picture = Path(f"/proc/{flat.pid}/cwd").readlink() / "none.svg"
    done = run(flat.pid, "--for", "4s", "--json", "--svg", picture)
    assert "no suspect has a retaining path" in done.stderr
    assert not picture.exists()
    told = json.loads(done.stdout)
    Draft202012Validator(SCHEMA).validate(told)
    assert (done.returncode, told["verdict"]["kind"], told["suspects"]) == (0, "plateau", []), told["verdict"]
    stock, chain = told["holders"]
    assert (stock["path"], stock["type"], stock["size"]) == ("__main__.shop → Shop.stock", "dict", 10_000)
    assert stock["retained_bytes"] > 10_000 * 20 * 8
    assert (chain["path"], chain["type"]) == ("__main__.shop → Shop.newest", "__main__.Version")
    assert SECRET not in done.stdout


def test_values_are_shown_when_asked_for(start: Start):
    leak = start(LEAK.replace("desk = Desk()", "desk = Desk()\nholder = {SECRET + '-key': desk}\ndel desk").replace(
        "desk.settings", "holder[SECRET + '-key'].settings"
    ).replace("desk.take", "holder[SECRET + '-key'].take"))  # fmt: skip
    assert SECRET + "-key" in run(leak.pid, "--for", "3s", "--values", "--no-trace").stdout


def test_process_that_ends_meanwhile_is_said_to_be_gone(start: Start):
    leak = start(LEAK)
    command = [str(FLATWATER), "diagnose", str(leak.pid), "--for", "20s"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as watching:
        time.sleep(3)  # somewhere in the window; any moment will do
        leak.kill()
        _, complaint = watching.communicate(timeout=60)
    assert watching.returncode == 1
    assert str(leak.pid) in complaint
    assert "Traceback" not in complaint


def test_interrupted_diagnosis_leaves_the_process_as_it_was(start: Start):
    leak = start(LEAK)
    threads = threads_of(leak.pid)
    command = [str(FLATWATER), "diagnose", str(leak.pid), "--for", "30s"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as watching:
        deadline = time.monotonic() + 90
        while threads_of(leak.pid) == threads and time.monotonic() < deadline:
            time.sleep(0.05)
        watching.send_signal(signal.SIGINT)
        _, complaint = watching.communicate(timeout=60)
    assert watching.returncode == 130
    assert "Traceback" not in complaint
    deadline = time.monotonic() + 90
    while threads_of(leak.pid) != threads:
        assert time.monotonic() < deadline, "the agent's threads are still there"
        time.sleep(0.05)
    assert leak.poll() is None


def test_a_process_is_found_by_its_command_line(start: Start):
    gone = run("no-such-program-" + "anywhere")
    assert gone.returncode == 1
    assert "no process" in gone.stderr
    assert run(1 << 22, "--for", "2s").returncode == 1
