"""The server's list of the guards of this machine."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from tests.guard.guarding import SLEEP, Guarded, guarding, python
from tests.server.client import Client
from tests.server.harness import running

from flatwater.guard.presence import present
from flatwater.guard.record import Record
from flatwater.settings.model import ServerSettings


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory for temporary files of this test's processes alone."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setenv("TMPDIR", str(folder))
    monkeypatch.setattr(tempfile, "tempdir", None)
    return folder


@pytest.fixture
def guard(tmp_path: Path, temporary: Path) -> Iterator[Guarded]:
    words = [*python(SLEEP), "-b", "amqp://shop:secret@queue/shop", "redis://:hidden@127.0.0.1/0"]
    with guarding(tmp_path, "-n", "2", "--soft", "90MiB", *words) as guard:
        guard.wait(lambda: any(len(presence.places) == 2 for _, presence in present()))
        yield guard


@pytest.fixture
async def client(tmp_path: Path) -> AsyncIterator[Client]:
    async with running(tmp_path, server=ServerSettings(diagnostic_token="diagnose")) as found:
        found.headers["authorization"] = "Bearer diagnose"
        yield found


def quarantine(guard: Guarded, task: str) -> None:
    with Record(guard.file) as record:
        record.kill(task, 1)


async def test_running_guards_their_workers_and_records(guard: Guarded, client: Client) -> None:
    await asyncio.to_thread(quarantine, guard, "shop.copy")
    (item,) = (await client.get("/api/guard")).json["items"]
    assert (item["guard"]["pid"], item["guard"]["soft"]) == (guard.process.pid, 90 << 20)
    assert item["guard"]["command"][-2:] == ["amqp://shop:…@queue/shop", "redis://:…@127.0.0.1/0"]
    assert item["guard"]["record"] == str(guard.file)
    pids = [worker["worker"]["pid"] for worker in item["workers"]]
    assert pids == [event.pid for event in await asyncio.to_thread(guard.events, "start")]
    assert (item["report"]["starts"], item["report"]["processes"]) == (2, [])
    assert item["report"]["quarantined"] == ["shop.copy"]
    answer = await client.post(f"/api/guard/{guard.process.pid}/release", {"task": "shop.copy"})
    assert (answer.status, answer.json) == (200, {"task": "shop.copy"})
    again = await client.post(f"/api/guard/{guard.process.pid}/release", {"task": "shop.copy"})
    assert (again.status, again.error["hint"]) == (404, "quarantined: none")
    assert (await client.post("/api/guard/1/release", {"task": "x"})).status == 404
    guard.stop()
    assert (await client.get("/api/guard")).json == {"items": []}


async def test_a_record_that_is_damaged_is_told_and_the_workers_are_shown(guard: Guarded, client: Client) -> None:
    for file in guard.file.parent.glob("guard.db*"):
        file.unlink()
    guard.file.write_bytes(b"no database" * 1000)
    (item,) = (await client.get("/api/guard")).json["items"]
    assert (len(item["workers"]), item["report"]) == (2, None)
    assert str(guard.file) in item["trouble"]


def test_the_folder_of_a_guard_that_was_killed_is_removed_by_the_next_one(tmp_path: Path, temporary: Path) -> None:
    waits = "import os, time\nguard = os.getppid()\nwhile os.getppid() == guard: time.sleep(0.05)"
    with guarding(tmp_path, *python(waits)) as killed:
        killed.wait(lambda: list(present()))
        ((folder, _),) = present()
        killed.process.kill()
        killed.process.wait()
        assert folder.exists()
    with guarding(tmp_path, *python(SLEEP)) as guard:
        guard.wait(lambda: list(present()))
        assert not folder.exists()
    assert list(temporary.iterdir()) == []


def test_what_others_may_have_planted_is_not_read(guard: Guarded, temporary: Path) -> None:
    (folder, _), *_ = present()
    for name, mode, owner in (("open", 0o755, os.getuid()), ("theirs", 0o700, 65534)):
        planted = temporary / f"flatwater-guard-{name}"
        shutil.copytree(folder, planted, ignore=shutil.ignore_patterns("socket"))
        planted.chmod(mode)
        if os.getuid() == 0:
            os.chown(planted, owner, -1)
    (temporary / "flatwater-guard-link").symlink_to(folder)
    former = temporary / "flatwater-guard-former"  # its guard was killed, and its number came again
    shutil.copytree(folder, former, ignore=shutil.ignore_patterns("socket"))
    told = json.loads((former / "guard.json").read_text())
    (former / "guard.json").write_text(json.dumps(told | {"pid": os.getpid()}))
    assert [found for found, _ in present()] == [folder]
