"""``--overlap``: the replacement first where there is room, afterwards where there is none."""

from __future__ import annotations

import signal
import time
from pathlib import Path

from tests.guard.guarding import GROW, MIB, SLEEP, Group, guarding, python

from flatwater.guard.flight import started
from flatwater.guard.record import Record

# Holds 70 MiB from the start on, so a second one needs as much.
LARGE = f"kept = [b'x' * (70 << 20)]\n{GROW.replace('kept = []', '').replace('0.05', '0.2')}"
# Holds little when it begins, and 70 MiB when it takes tasks.
SLOW = f"""
import time; from flatwater.guard.channel import supervised
time.sleep(0.6); kept = [b'x' * (70 << 20)]; supervised().send('ready'); time.sleep(0.6)
{GROW.replace("kept = []", "").replace("0.05", "0.1")}
"""
# Grows and heeds the stop after half a second; from the second life on it never takes tasks.
HANGING = """
import os, signal, sys, time; from flatwater.guard.channel import supervised
signal.signal(signal.SIGTERM, lambda *_: (time.sleep(0.5), sys.exit()))
with open('lives', 'a') as file: file.write('.')
if os.path.getsize('lives') > 1: time.sleep(99)
supervised().send('ready'); time.sleep(0.5); kept = [b'x' * (90 << 20)]; time.sleep(99)
"""
FILL = "import os\nfile = open('cache', 'wb')\n[file.write(b'x' * (1 << 20)) for _ in range(120)]\nfile.flush()\n"


def test_the_replacement_is_there_first(tmp_path: Path) -> None:
    with guarding(tmp_path, "--soft", "80MiB", "--overlap", *python(GROW)) as guard:
        guard.wait(lambda: guard.events("end"))
    assert guard.order()[:3] == ["start", "start", "end"]


def test_without_room_the_old_one_ends_first(group: Group, tmp_path: Path) -> None:
    group.limit(200 * MIB)
    words = ["--soft", "130MiB", "--hard", "180MiB", "--overlap", *python(LARGE)]
    with guarding(tmp_path, *words, prefix=group.entering()) as guard:
        guard.wait(lambda: len(guard.events("start")) >= 3)
    assert guard.order()[:4] == ["start", "end", "start", "end"]
    assert {event.body["reason"] for event in guard.events("end")} <= {"recycled", "stopped"}, "none was killed"


def test_what_a_worker_holds_when_it_has_started_is_what_its_replacement_needs(group: Group, tmp_path: Path) -> None:
    group.limit(260 * MIB)
    words = ["--soft", "150MiB", "--hard", "230MiB", "--overlap", *python(SLOW)]
    with guarding(tmp_path, *words, prefix=group.entering()) as guard:
        guard.wait(lambda: len(guard.events("start")) == 2)
    assert guard.order()[:3] == ["start", "end", "start"]
    assert {event.body["reason"] for event in guard.events("end")} <= {"recycled", "stopped"}, "none was killed"
    assert guard.events("end")[0].body["base"] > 70 * MIB


def test_a_replacement_that_never_takes_tasks_does_not_cost_the_worker_that_does(tmp_path: Path) -> None:
    with guarding(tmp_path, "--soft", "80MiB", "--grace", "1s", "--overlap", *python(HANGING)) as guard:
        guard.wait(lambda: len(guard.events("start")) == 2)
        (first, second) = guard.events("start")
        guard.wait(lambda: time.time() > second.at + 2.5)
        assert started(first.pid), "it works on until it is replaced"
    assert not guard.events("kill")


def test_page_cache_is_room(group: Group, tmp_path: Path) -> None:
    group.limit(250 * MIB)
    words = ["--soft", "80MiB", "--hard", "240MiB", "--overlap", *python(FILL + GROW)]
    with guarding(tmp_path, *words, prefix=group.entering()) as guard:
        guard.wait(lambda: guard.events("end"))
    assert guard.order()[:3] == ["start", "start", "end"]


def test_several_places_overlap_one_after_another(tmp_path: Path) -> None:
    with guarding(tmp_path, "-n", "3", "--overlap", *python(SLEEP)) as guard:
        guard.wait(lambda: len(guard.events("start")) == 3)
        guard.process.send_signal(signal.SIGHUP)
        guard.wait(lambda: len(guard.events("end")) == 3)
    living, most = 0, 0
    with Record(guard.file) as record:
        for event in record.events():
            if event.body and event.kind in ("start", "end"):
                living += 1 if event.kind == "start" else -1
                most = max(most, living)
    assert most == 4, "three, and one that replaces"
