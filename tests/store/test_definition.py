"""Definitions, triggers, cached values, retention."""

from __future__ import annotations

import pytest
from tests.store.conftest import new_run, started

from flatwater.errors import ConflictError, LimitError, NotFoundError
from flatwater.store import Store, cache, definition, log, retention, run, site, step, trigger, variable
from flatwater.store.retention import Keep
from flatwater.store.site import Change, SiteSpec
from flatwater.store.trigger import Trigger

NOW = 1_800_000_000.0


async def test_a_version_is_a_content(store: Store) -> None:
    first = await store.writer.call(definition.save, "d", "Demo", '{"a":1}', None, NOW)
    same = await store.writer.call(definition.save, "d", "Renamed", '{"a":1}', "why", NOW + 1)
    other = await store.writer.call(definition.save, "d", "Demo", '{"a":2}', None, NOW + 2)
    assert [one.version for one in (first, same, other)] == [1, 1, 2]
    assert await store.read(definition.get, "d") == other
    assert (other.created_at, other.updated_at, other.enabled) == (NOW, NOW + 2, True)
    assert await store.read(definition.body, first.hash) == '{"a":1}', "runs under way keep their content"
    assert first.hash == definition.digest('{"a":1}') != other.hash


async def test_definitions_in_use_stay(store: Store) -> None:
    for name in ("a", "b", "c"):
        await store.writer.call(definition.save, name, f"L-{name}", "{}", None, NOW)
    await store.writer.put(run.insert(new_run(definition_id="a")))
    await store.writer.call(trigger.save, Trigger(id="t", definition_id="b", kind="cron", spec="* * * * *"))
    with pytest.raises(ConflictError, match="has runs"):
        await store.writer.call(definition.delete, "a")
    with pytest.raises(ConflictError, match="has triggers"):
        await store.writer.call(definition.delete, "b")
    await store.writer.call(definition.delete, "c")
    await store.writer.call(definition.enable, "a", False)
    assert [(one.id, one.enabled) for one in await store.read(definition.page)] == [("a", False), ("b", True)]
    assert [one.id for one in await store.read(definition.page, "a")] == ["b"]
    assert [one.id for one in await store.read(definition.page, "", 9, "L-a")] == ["a"]
    with pytest.raises(NotFoundError, match="'c'"):
        await store.read(definition.get, "c")
    with pytest.raises(NotFoundError):
        await store.writer.call(definition.enable, "c", True)
    with pytest.raises(NotFoundError):
        await store.read(definition.body, "f" * 64)


async def test_triggers_fire_when_due_and_count_their_runs(store: Store) -> None:
    for name, at in (("late", NOW + 9), ("soon", NOW + 1), ("never", None)):
        new = Trigger(id=name, definition_id="d", kind="interval", spec="5", inputs="{}", next_at=at, max_pending=2)
        await store.writer.call(trigger.save, new)
    off = Trigger(id="off", definition_id="d", kind="cron", spec="", next_at=1.0, enabled=False)
    await store.writer.call(trigger.save, off)
    assert await store.read(trigger.next_at) == NOW + 1
    assert await store.read(trigger.due, NOW) == []
    (due,) = await store.read(trigger.due, NOW + 5)
    assert (due.id, due.enabled, due.max_pending) == ("soon", True, 2)
    runs = [await started(store, trigger_id="soon") for _ in range(3)]
    assert await store.read(trigger.pending, "soon") == 3
    assert not await store.writer.call(trigger.fire, due, new_run(trigger_id="soon"), NOW + 5, NOW + 6), "left out"
    await store.writer.put(run.end(runs[0].id, 1, "SUCCEEDED", NOW), run.end(runs[1].id, 1, "SUCCEEDED", NOW))
    assert await store.read(trigger.pending, "soon") == 1
    assert await store.read(trigger.pending, "soon", 1) == 1
    new, again = new_run(trigger_id="soon"), await store.read(trigger.get, "soon")
    assert await store.writer.call(trigger.fire, again, new, NOW + 6, NOW + 11)
    found = await store.read(trigger.get, "soon")
    assert (found.last_run_id, found.last_at, found.next_at) == (new.id, NOW + 6, NOW + 11)
    assert (await store.read(run.get, new.id)).state == "QUEUED"
    assert [one.id for one in await store.read(trigger.page)] == ["late", "never", "off", "soon"]
    await store.writer.call(trigger.delete, "soon")
    with pytest.raises(NotFoundError, match="soon"):
        await store.writer.call(trigger.delete, "soon")


async def test_the_cache_is_bounded_in_entries_and_bytes(store: Store) -> None:
    for number in range(5):
        await store.writer.call(cache.put, f"k{number}", f"{number}", NOW + number, 3, 1000)
    assert [await store.read(cache.get, f"k{number}") for number in range(5)] == [None, None, "2", "3", "4"]
    await store.writer.call(cache.put, "k2", '"again"', NOW + 9, 3, 1000)
    assert await store.writer.call(cache.put, "big", "x" * 900, NOW + 10, 3, 912) == 2
    assert await store.read(cache.get, "k2") == '"again"', "what was set again is young again"
    with pytest.raises(LimitError, match="903 bytes"):
        await store.writer.call(cache.put, "huge", "x" * 899, NOW, 3, 900)
    assert await store.writer.call(cache.clear, "nothing") == 0
    assert await store.writer.call(cache.clear) == 2


async def ended(store: Store, at: float, **fields: object) -> str:
    new = await started(store, **fields)
    store.writer.put(
        step.put(new.id, "-1", -1, "r", "RootBp", "SUCCEEDED", 1, 1.0, 2.0), variable.put(new.id, "v", "1"),
        log.add(new.id, at, "info", None, "x"), run.end(new.id, 1, "SUCCEEDED", at),
    )  # fmt: skip
    await store.writer.flush()
    return new.id


async def pruned(store: Store, keep: Keep, limit: int = 200) -> set[str]:
    while not (await store.writer.call(retention.prune, keep, NOW, limit)).done:
        pass
    return {item.id for item in (await store.read(run.page, run.RunFilter(), None, 500)).items}


async def test_ended_runs_are_forgotten_by_age_with_all_that_is_theirs(store: Store) -> None:
    old = [await ended(store, NOW - 100 - n) for n in range(7)]
    young, alive = await ended(store, NOW - 50), (await started(store)).id
    assert await pruned(store, Keep(max_age_s=99.0), limit=3) == {young, alive}
    for load in (step.load, variable.load):
        assert not any((await store.read(load, old)).values())
    assert await store.read(log.page, old[0]) == []
    assert len((await store.read(step.load, [young]))[young]) == 1


async def test_ended_runs_are_forgotten_by_count(store: Store) -> None:
    runs = [await ended(store, NOW - n) for n in range(10)]
    assert await pruned(store, Keep(max_runs=4)) == set(runs[:4])


async def test_what_is_still_needed_is_kept(store: Store) -> None:
    await store.writer.call(site.save, [SiteSpec(id="S")], NOW)
    holder, parent = await started(store), await started(store)
    await store.writer.call(site.lock, "S", holder.id, None, None, NOW)
    await store.writer.put(run.end(holder.id, 1, "SUCCEEDED", NOW - 999))
    child = await ended(store, NOW - 999, parent_id=parent.id)
    keep = Keep(max_age_s=99.0)
    assert await pruned(store, keep) == {holder.id, parent.id, child}
    await store.writer.call(site.release, holder.id, NOW)
    await store.writer.put(run.end(parent.id, 1, "SUCCEEDED", NOW - 999))
    assert await pruned(store, keep) == set()


async def test_contents_go_when_nothing_refers_to_them(store: Store) -> None:
    first = await store.writer.call(definition.save, "d", "D", '{"v":1}', None, NOW - 9999)
    second = await store.writer.call(definition.save, "d", "D", '{"v":2}', None, NOW - 9999)
    third = await store.writer.call(definition.save, "d", "D", '{"v":3}', None, NOW - 9999)
    fresh = await store.writer.call(definition.put_body, '{"v":4}', NOW)
    await started(store, hash=second.hash)
    await pruned(store, Keep())
    for content in (second.hash, third.hash, fresh):
        await store.read(definition.body, content)
    with pytest.raises(NotFoundError):
        await store.read(definition.body, first.hash)


async def test_changes_of_sites_are_forgotten(store: Store) -> None:
    await store.writer.call(site.save, [SiteSpec(id="S", group_name="G")], NOW - 1000)
    for number in range(20):
        await store.writer.call(site.set, "S", Change(filled=bool(number % 2)), NOW - number)
    await pruned(store, Keep(max_age_s=99.0), limit=4)
    assert len(await store.read(site.changes)) == 20
    await pruned(store, Keep(max_site_changes=5), limit=4)
    assert [change.at for change in await store.read(site.changes)] == [NOW - number for number in range(19, 14, -1)]
