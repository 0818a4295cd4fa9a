"""Paths: every kind of holder is named, and every edge is proved on the living objects."""

import asyncio
import contextvars
import ctypes
import functools
import gc
import itertools
import operator
import threading
import types
import weakref
from collections import ChainMap, OrderedDict, UserList, defaultdict, deque, namedtuple
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from dataclasses import dataclass
from datetime import datetime, timedelta, tzinfo
from typing import Any

import pytest
from tests.memory.heap_live import follow

from flatwater.memory import heap

KEPT: list[Any] = []
HELD: list[Any] = []
HERE = __name__


class Target:
    """What is looked for."""


class Plain:
    def __init__(self, **attributes: object) -> None:
        for name, value in attributes.items():
            setattr(self, name, value)


class Slotted:
    __slots__ = ("first", "second")


class SlottedChild(Slotted):
    __slots__ = ("third",)


@dataclass(slots=True)
class Record:
    name: str
    payload: object


@dataclass
class OpenRecord:
    name: str
    payload: object


Pair = namedtuple("Pair", ["left", "right"])


class Zone(tzinfo):
    payload: object

    def utcoffset(self, when: datetime | None) -> timedelta:
        return timedelta(0)


class Deque(deque):  # type: ignore[type-arg]
    pass


def plain(target: Target) -> object:
    return Plain(number=1, payload=target)


def with_dict(target: Target) -> object:
    holder = Plain(payload=target)
    assert holder.__dict__  # from now on a real dict
    return holder


def slotted(target: Target) -> object:
    holder = SlottedChild()
    holder.first, holder.third = 1, target
    return holder


def closure(target: Target) -> object:
    other = 1

    def inner() -> object:
        return other, target

    return inner


def generator(target: Target) -> object:
    def produce() -> Any:
        waiting_with = target
        yield 1
        yield waiting_with

    running = produce()
    next(running)
    return running


class Pause:
    def __await__(self) -> Any:
        yield None


def coroutine(target: Target) -> object:
    async def work() -> object:
        batch = [target]
        await Pause()
        return batch

    running = work()
    running.send(None)
    return running


def asynchronous_generator(target: Target) -> object:
    async def produce() -> Any:
        item = target
        yield 1
        yield item

    running = produce()
    with pytest.raises(StopIteration):
        running.__anext__().send(None)
    return running


def cached(target: Target) -> object:
    @functools.lru_cache(maxsize=10)
    def load(number: int) -> object:
        return target

    load(300)
    return load


def failed(target: Target) -> object:
    def fail() -> None:
        kept_by_traceback = target
        raise ValueError(bool(kept_by_traceback))

    try:
        fail()
    except ValueError as error:
        return error


def context(target: Target) -> object:
    variable: contextvars.ContextVar[object] = contextvars.ContextVar("tenant")
    copy = contextvars.copy_context()
    copy.run(variable.set, target)
    return copy


def thread_local(target: Target) -> object:
    local = threading.local()
    local.payload = target
    return local


def zone(target: Target) -> object:
    kept = Zone()
    kept.payload = target
    return datetime(2024, 1, 1, tzinfo=kept)  # its C struct has no tp_traverse


def class_attribute(target: Target) -> object:
    return type("Registry", (), {"payload": target})


def module(target: Target) -> object:
    made = types.ModuleType("made_here")
    made.payload = target  # type: ignore[attr-defined]
    return made


def callbacks(target: Target) -> object:
    future: Future[object] = Future()
    future.add_done_callback(functools.partial(print, target))
    return future


def iterator_at(target: Target) -> object:
    return iter([target, 1])


HOLDERS: list[tuple[Callable[[Target], object], str]] = [
    (plain, "Plain.payload (Target)"),
    (with_dict, "Plain.payload (Target)"),
    (slotted, "SlottedChild.third (Target)"),
    (lambda t: Record("a", t), "Record.payload (Target)"),
    (lambda t: OpenRecord("a", t), "OpenRecord.payload (Target)"),
    (lambda t: [0, t], "HELD[0][1] (Target)"),
    (lambda t: (0, t), "HELD[0][1] (Target)"),
    (lambda t: Pair(0, t), "HELD[0][1] (Target)"),
    (lambda t: {"payload": t}, "HELD[0]['payload'] (Target)"),
    (lambda t: {"user " + str(id(t)): t}, "HELD[0][str] (Target)"),
    (lambda t: {(1, 2): t}, "HELD[0][tuple] (Target)"),
    (lambda t: {t: 1}, "HELD[0] ⇒ (as a key) (Target)"),
    (lambda t: {t}, "HELD[0]{…} (Target)"),
    (lambda t: frozenset([t]), "HELD[0]{…} (Target)"),
    (lambda t: deque([0] * 100 + [t]), "HELD[0][100] (Target)"),
    (lambda t: Deque([0] * 70 + [t]), "HELD[0][70] (Target)"),
    (lambda t: OrderedDict(payload=t), "HELD[0]['payload'] (Target)"),
    (lambda t: defaultdict(list, payload=t), "HELD[0]['payload'] (Target)"),
    (lambda t: ChainMap({}, {"payload": t}), "ChainMap.maps[1]['payload'] (Target)"),
    (lambda t: UserList([t]), "UserList.data[0] (Target)"),
    (lambda t: types.SimpleNamespace(payload=t), "SimpleNamespace.payload (Target)"),
    (lambda t: types.MappingProxyType({"payload": t}), "['payload'] (Target)"),
    (lambda t: functools.partial(print, t), "partial.args[0] (Target)"),
    (lambda t: functools.partial(print, end=t), "partial.keywords['end'] (Target)"),
    (lambda t: weakref.WeakValueDictionary(payload=HELD.append(t) or t), "HELD[0] (Target)"),
    (lambda t: Plain(payload=t).__init__, "method.__self__ → Plain.payload (Target)"),
    (lambda t: property(t), "property.fget (Target)"),
    (lambda t: staticmethod(t), "staticmethod.__func__ (Target)"),
    (lambda t: itertools.cycle([t]), "(Target)"),
    (lambda t: map(print, [t]), "(Target)"),
    (lambda t: operator.itemgetter(t), "(Target)"),
    (lambda t: {"first": t}.items(), "['first'] (Target)"),
    (closure, "closure target (Target)"),
    (generator, "produce() local waiting_with (Target)"),
    (coroutine, "work() local batch[0] (Target)"),
    (asynchronous_generator, "produce() local item (Target)"),
    (cached, "(Target)"),
    (failed, "local kept_by_traceback (Target)"),
    (context, "HELD[0] → Context contextvar tenant (Target)"),
    (thread_local, "(Target)"),
    (zone, "datetime.tzinfo → Zone.payload (Target)"),
    (class_attribute, "Registry.payload (Target)"),
    (module, "HELD[0].payload (Target)"),
    (callbacks, "partial.args[0] (Target)"),
    (iterator_at, "[0] (Target)"),
]


@pytest.fixture
def kept():
    KEPT.clear()
    yield KEPT
    KEPT.clear()


@pytest.fixture(scope="module")
def holders() -> Iterator[tuple[heap.Graph, list[tuple[int, int]]]]:
    """One snapshot with every holder, and the place in HELD and the address of each target: a reference would hold."""
    targets = []
    for make, _ in HOLDERS:
        target = Target()
        targets.append((len(HELD), id(target)))
        HELD.append(make(target))
    del target
    with heap.graph(nice=0) as graph:
        yield graph, targets
    HELD.clear()


@pytest.mark.parametrize("number", range(len(HOLDERS)))
def test_holder_is_named(holders: tuple[heap.Graph, list[tuple[int, int]]], number: int):
    graph, targets = holders
    (make, expected), (place, address) = HOLDERS[number], targets[number]
    path = graph.path_to(None, address=address)
    found = follow(path)
    assert (type(found[-1]), id(found[-1])) == (Target, address)
    assert str(path).endswith(expected.replace("HELD[0]", f"HELD[{place}]")), str(path)
    assert f"{HERE}.HELD" in str(path) or make is thread_local, str(path)


def test_local_variable_of_a_running_function_in_another_thread():
    ready, leave = threading.Event(), threading.Event()
    addresses: list[int] = []

    def work() -> None:
        backlog = {"number": 1}  # untracked, and held by the frame alone
        addresses.append(id(backlog))
        ready.set()
        leave.wait()

    thread = threading.Thread(target=work)
    thread.start()
    ready.wait()
    try:
        with heap.graph() as graph:
            path = graph.path_to(None, address=addresses[0])
            follow(path)
    finally:
        leave.set()
        thread.join()
    assert (path.root.kind, path.root.thread) == ("frame", thread.native_id)
    assert path.root.name.endswith("work")
    assert path.steps[0].edge.name == "backlog"
    assert "local backlog (test_heap_path.py:" in str(path)


def test_lasting_names_come_before_local_variables(kept: list[Any]):
    item = Target()
    deep = [[[item]]]
    kept.append(deep)
    with heap.graph() as graph:
        assert f"{HERE}.KEPT[0][0][0][0] (Target)" == str(graph.path_to(item))


async def test_task_is_reached_from_the_event_loop():
    async def wait_with(batch: list[int]) -> None:
        await asyncio.sleep(60)

    task = asyncio.create_task(wait_with([1, 2, 3]))  # the loop keeps it while it sleeps
    await asyncio.sleep(0)
    reference = weakref.ref(task)
    async with await heap.snapshot() as graph:
        address = id(task.get_coro().cr_frame.f_locals["batch"])
        path = graph.path_to(None, address=address)
        loop = graph.path_to(asyncio.get_running_loop())
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert reference() is task
    assert "wait_with() local batch" in str(path) or str(path).endswith("wait_with.<locals>.batch"), str(path)
    assert str(loop) == "event loop: running (_UnixSelectorEventLoop)"


def test_long_chain_tells_both_ends(kept: list[Any]):
    chain: list[Any] = []
    last = chain
    for _ in range(10_000):
        last.append([])
        last = last[0]
    kept.append(chain)
    with heap.graph() as graph:
        path = graph.path_to(last)
    assert len(path.steps) == 64
    assert path.skipped == 10_004 - 64
    assert path.nodes[-1].address == id(last)
    assert "more …" in str(path)
    while chain:  # a deep list's deallocation is fine, but take it apart anyway
        chain = chain.pop()


def test_no_value_is_told_unless_asked_for(kept: list[Any]):
    secret = "card " + "4111-1111"
    target = Target()
    kept.append({secret: [target], 12345678: 1})
    with heap.graph() as graph:
        told = repr(graph.path_to(target)) + str(graph.path_to(target).to_json()) + repr(graph.referrers(target))
        told += repr(graph.largest(1000)) + repr(graph.census())
    assert secret not in told
    assert str(id(target)) not in told
    with heap.graph(values=True) as graph:
        assert secret in str(graph.path_to(target))


def test_neighbours_have_names(kept: list[Any]):
    target = Target()
    holder = Plain(payload=target)
    kept.append(holder)
    with heap.graph() as graph:
        out = graph.referents(holder)
        back = graph.referrers(target, limit=50)
    assert ("attribute", "payload") in [(link.edge.kind, link.edge.name) for link in out.links]
    assert "tests" in out.links[-1].node.label or out.count >= 2
    kinds = [(link.edge.kind, link.edge.name) for link in back.links]
    assert ("attribute", "payload") in kinds
    assert ("local", "target") in kinds


def test_younger_object_is_unknown():
    with heap.graph() as graph:
        young = Target()
        with pytest.raises(heap.ObjectUnknown, match="younger"):
            graph.path_to(young)
        assert graph.retained(heap) > 0  # the graph still answers


def test_root_of_what_only_c_code_holds():
    marker = Target()
    address = id(marker)
    keep = weakref.finalize(marker, int)  # something that refers to it weakly, and must not be a path
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(marker))
    del marker
    gc.collect()
    with heap.graph() as graph:
        path = graph.path_to(None, address=address)
        assert path.root.kind == "C"
        assert graph.garbage().types[f"{HERE}.Target"].count == 0
    held = ctypes.cast(address, ctypes.py_object).value
    ctypes.pythonapi.Py_DecRef(ctypes.py_object(held))
    del held
    assert not keep.alive
