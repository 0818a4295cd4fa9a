"""Steps, variables and log lines."""

from __future__ import annotations

from flatwater.store import Store, log, step, variable
from flatwater.store.ident import new_id
from flatwater.store.statement import Op


def leaf(run_id: str, path: str, outputs: str | None = None) -> Op:
    return step.put(run_id, path, 3, "b3", "DelayBp", "SUCCEEDED", 1, 1.5, 2.5, outputs)


async def test_steps_of_many_runs_in_one_query(store: Store) -> None:
    one, other, none = new_id(), new_id(), new_id()
    await store.writer.put(leaf(one, "-1/2", '{"a":1}'), leaf(other, "-1/1"), leaf(one, "-1/1"))
    found = await store.read(step.load, [one, other, none])
    assert [row.path for row in found[one]] == ["-1/1", "-1/2"]
    assert found[one][1].outputs == '{"a":1}'
    assert (len(found[other]), found[none]) == (1, [])


async def test_a_step_is_replaced_whole(store: Store) -> None:
    run_id = new_id()
    store.writer.put(step.put(run_id, "-1", -1, "root", "RootBp", "RUNNING", 1, 1.0, None, None, '{"i":1}', "o", "e"))
    await store.writer.put(leaf(run_id, "-1"))
    (found,) = (await store.read(step.load, [run_id]))[run_id]
    assert (found.state, found.ended_at) == ("SUCCEEDED", 2.5)
    assert (found.progress, found.order_id, found.error) == (None, None, None)


async def test_deleting_below_a_path_spares_its_neighbours(store: Store) -> None:
    run_id, other = new_id(), new_id()
    kept = ["-1", "-1/3", "-1/30", "-1/30[0]/1", "-1/35/1", "-1/4", "-1/2/3"]
    gone = ["-1/3/1", "-1/3/1/9[2]/4", "-1/3[0]/1", "-1/3[10]/1", "-1/3[10]/1[0]/2"]
    for path in kept + gone:
        store.writer.put(leaf(run_id, path), leaf(other, path))
    await store.writer.put(step.delete(run_id, "-1/3"))
    found = await store.read(step.load, [run_id, other])
    assert sorted(row.path for row in found[run_id]) == sorted(kept)
    assert len(found[other]) == len(kept + gone)


async def test_deleting_and_putting_again_in_one_batch(store: Store) -> None:
    run_id = new_id()
    for turn in range(30):
        store.writer.put(step.delete(run_id, "-1/1"), leaf(run_id, f"-1/1[{turn}]/2"))
    await store.writer.flush()
    assert [row.path for row in (await store.read(step.load, [run_id]))[run_id]] == ["-1/1[29]/2"]


async def test_pages_of_steps(store: Store) -> None:
    run_id = new_id()
    for number in range(25):
        store.writer.put(leaf(run_id, f"-1/{number:02}"))
    await store.writer.flush()
    first = await store.read(step.page, run_id, "", 20)
    rest = await store.read(step.page, run_id, first[-1].path, 20)
    assert [row.path for row in first + rest] == [f"-1/{number:02}" for number in range(25)]


async def test_variables(store: Store) -> None:
    one, other = new_id(), new_id()
    store.writer.put(variable.put(one, "a", "1", "-1/1"), variable.put(one, "A", "2"), variable.put(other, "a", "[3]"))
    await store.writer.put(variable.put(one, "a", '"x"', "-1/2"))
    found = await store.read(variable.load, [one, other])
    values = {name: (value.value, value.source) for name, value in found[one].items()}
    assert values == {"a": ('"x"', "-1/2"), "A": ("2", None)}
    assert found[other]["a"].value == "[3]"


async def test_the_log_is_capped_per_run(store: Store) -> None:
    one, other = new_id(), new_id()
    for number in range(40):
        store.writer.put(log.add(one, float(number), "info", "-1/1", f"line {number}"))
    await store.writer.put(log.add(other, 1.0, "error", None, "alone"))
    assert await store.writer.call(log.trim, one, 15) == 25
    assert await store.writer.call(log.trim, one, 15) == 0
    lines = await store.read(log.page, one)
    assert [line.message for line in lines] == [f"line {number}" for number in range(25, 40)]
    assert (await store.read(log.page, one, lines[4].id, 3)) == lines[5:8]
    assert [line.message for line in await store.read(log.page, other)] == ["alone"]
