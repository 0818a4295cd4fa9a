"""Who is to blame for a kill: by what the processes held, and by when their tasks and the rise began."""

from __future__ import annotations

import os
import time
from pathlib import Path

from tests.guard.guarding import guarding, python

from flatwater.guard.casualty import Casualties, clearly_most, to_blame
from flatwater.guard.flight import Flight, started
from flatwater.guard.instance import Instance
from flatwater.guard.launch import Launch
from flatwater.guard.oom import OomKills
from flatwater.guard.policy import Limits
from flatwater.guard.record import Record


def flights(**since: float) -> list[Flight]:
    return [Flight("test", name, "1", at) for name, at in since.items()]


def test_the_process_that_holds_clearly_most() -> None:
    assert clearly_most({}) is None
    assert clearly_most({1: 10}) == 1
    assert clearly_most({1: 100, 2: 40, 3: 10}) == 1
    assert clearly_most({1: 100, 2: 90}) is None, "a leak that all of a pool have is no task's"


def test_the_task_that_alone_ran_when_the_level_began_to_rise() -> None:
    assert to_blame(flights(eat=10), 5) == "eat", "nobody else is there"
    assert to_blame(flights(eat=10, mail=12), 11) == "eat"
    assert to_blame(flights(report=1, eat=10, mail=12), 11) == "", "it may be either"
    assert to_blame(flights(mail=12, other=13), 11) == ""
    assert to_blame([*flights(eat=10), *flights(eat=11)], 5) == "eat"


def test_why_a_worker_dies_is_known_until_it_is_reaped(tmp_path: Path) -> None:
    """It may die between the look that hears of it and the burial."""
    launch = Launch(["sh", "-c", "kill -9 $$"], tmp_path / "socket", Limits(), os.environ)
    worker, oom = Instance(launch, Limits()), OomKills()
    with Record(tmp_path / "guard.db") as record:
        casualties = Casualties(tmp_path, record, oom, after=3, within_s=60)
        casualties.expect(worker.pid, "hard limit", memory=True)
        deadline = time.monotonic() + 90
        while started(worker.pid):
            assert time.monotonic() < deadline
            time.sleep(0.01)
        casualties.bury([worker], lambda: None)
        assert casualties.reason(worker.pid) == "hard limit"
        worker.process.wait()
        worker.end(oom)
        casualties.bury([worker], lambda: None)
        assert casualties.reason(worker.pid) == "", "another process may have its number"


def test_kills_count_for_a_time(tmp_path: Path) -> None:
    with Record(tmp_path / "guard.db") as record:
        assert not record.kill("eat", 2, within_s=0.01)
        time.sleep(0.02)
        assert not record.kill("eat", 2, within_s=0.01), "the first one is forgotten"
        assert not record.kill("other", 2)
        assert record.kill("other", 2)
        assert not record.kill("other", 2), "once"
        assert record.quarantined() == ["other"]
        record.release("other")
        assert not record.kill("other", 2), "a release forgets what counted"


FLYING = (
    "import os, sys, time; from pathlib import Path; from flatwater.guard.flight import FlightFile\n"
    "folder = Path(os.environ['FLATWATER_GUARD']).parent\n"
    "def fly(name): FlightFile(folder, 'test').put(name, '1')\n"
)
EATING = FLYING + (
    "if os.fork() == 0: fly('sleeper'); open('flies', 'w').close(); time.sleep(99)\n"
    "while not os.path.exists('flies'): time.sleep(0.01)\n"
    "fly('eater'); kept = []\n"
    "while True: kept.append(b'x' * (4 << 20)); time.sleep(0.02)"
)


def test_a_task_in_flight_when_the_worker_crashes_is_not_counted(tmp_path: Path) -> None:
    with guarding(tmp_path, "--quarantine", "1", *python(f"{FLYING}fly('innocent'); sys.exit(1)")) as guard:
        guard.wait(lambda: guard.events("killed"))
        guard.wait(lambda: len(guard.events("start")) == 2)
    with Record(guard.file) as record:
        assert record.quarantined() == []


def test_of_a_pool_the_task_of_the_process_that_held_most_is_quarantined(tmp_path: Path) -> None:
    with guarding(tmp_path, "--hard", "150MiB", "--quarantine", "1", *python(EATING)) as guard:
        guard.wait(lambda: len(guard.events("killed")) >= 2)
    with Record(guard.file) as record:
        assert record.quarantined() == ["eater"]
    counted = {event.body["name"]: event.body["counted"] for event in guard.events("killed")[:2]}
    assert counted == {"eater": True, "sleeper": False}


def test_quarantine_can_be_switched_off(tmp_path: Path) -> None:
    with guarding(tmp_path, "--hard", "150MiB", "--quarantine", "0", *python(EATING)) as guard:
        guard.wait(lambda: len(guard.events("killed")) >= 2)
    with Record(guard.file) as record:
        assert record.quarantined() == []
