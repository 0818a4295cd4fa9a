"""Ways to make a container longer. Each function gives the container and what inserts; the line says ``# here``."""

import asyncio
import functools
import heapq
import queue
import weakref
from collections import Counter, OrderedDict, UserDict, defaultdict, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

Form = tuple[Any, Callable[[int], object]]


class Item:
    """What is kept."""

    def __init__(self, number: int) -> None:
        self.number = number


def append() -> Form:
    kept: list[Item] = []

    def insert(number: int) -> None:
        kept.append(Item(number))  # here

    return kept, insert


def append_of_a_call() -> Form:
    kept: list[Item] = []

    def make(number: int) -> Item:
        made = [Item(number)]
        return made[0]

    def insert(number: int) -> None:
        kept.append(make(number))  # here
        make(number)

    return kept, insert


def add_in_place() -> Form:
    kept: list[Item] = []

    def insert(number: int) -> None:
        nonlocal kept
        kept += [Item(number)]  # here

    return kept, insert


def extend() -> Form:
    kept: list[Item] = []

    def insert(number: int) -> None:
        kept.extend(Item(each) for each in range(number, number + 3))  # here

    return kept, insert


def comprehension() -> Form:
    kept: list[Item] = []

    def insert(number: int) -> None:
        [kept.append(Item(each)) for each in range(3)]  # type: ignore[func-returns-value]  # here

    return kept, insert


def slice_assignment() -> Form:
    kept: list[Item] = []

    def insert(number: int) -> None:
        kept[len(kept) :] = [Item(number)]  # here

    return kept, insert


def key() -> Form:
    kept: dict[int, Item] = {}

    def insert(number: int) -> None:
        kept[number] = Item(number)  # here

    return kept, insert


def setdefault() -> Form:
    kept: dict[int, Item] = {}

    def insert(number: int) -> None:
        kept.setdefault(number, Item(number))  # here

    return kept, insert


def update() -> Form:
    kept: dict[int, Item] = {}

    def insert(number: int) -> None:
        kept.update({number: Item(number)})  # here

    return kept, insert


def default() -> Form:
    kept: defaultdict[int, list[int]] = defaultdict(list)

    def insert(number: int) -> None:
        kept[number].append(number)  # here

    return kept, insert


def ordered() -> Form:
    kept: OrderedDict[int, Item] = OrderedDict()

    def insert(number: int) -> None:
        kept[number] = Item(number)  # here

    return kept, insert


def counter() -> Form:
    kept: Counter[str] = Counter()

    def insert(number: int) -> None:
        kept[f"key {number}"] += 1  # here

    return kept, insert


def user_dict() -> Form:
    kept: UserDict[int, Item] = UserDict()

    def insert(number: int) -> None:
        kept[number] = Item(number)  # here

    return kept.data, insert


def weak_values() -> Form:
    kept: weakref.WeakValueDictionary[int, Item] = weakref.WeakValueDictionary()
    alive: deque[Item] = deque()

    def insert(number: int) -> None:
        item = Item(number)
        alive.append(item)
        kept[number] = item  # here

    return kept.data, insert


def add_to_set() -> Form:
    kept: set[Item] = set()

    def insert(number: int) -> None:
        kept.add(Item(number))  # here

    return kept, insert


def deque_left() -> Form:
    kept: deque[Item] = deque()

    def insert(number: int) -> None:
        kept.appendleft(Item(number))  # here

    return kept, insert


def attribute() -> Form:
    class Holder:
        pass

    def insert(number: int) -> None:
        setattr(Holder, f"name_{number}", Item(number))  # here

    table: Any = next(iter([each for each in _referents(Holder) if type(each) is dict]))
    return table, insert


def dataclass_field() -> Form:
    @dataclass(slots=True)
    class Holder:
        items: list[Item] = field(default_factory=list)

    holder = Holder()

    def insert(number: int) -> None:
        holder.items.append(Item(number))  # here

    return holder.items, insert


def partial() -> Form:
    kept: list[int] = []
    put = functools.partial(kept.append)

    def insert(number: int) -> None:
        put(number)  # here

    return kept, insert


def mapped() -> Form:
    kept: list[int] = []

    def insert(number: int) -> None:
        deque(map(kept.append, range(4)), 0)  # here

    return kept, insert


def heap() -> Form:
    kept: list[tuple[int, int]] = []

    def insert(number: int) -> None:
        heapq.heappush(kept, (number % 7, number))  # here

    return kept, insert


def standard_queue() -> Form:
    kept: queue.Queue[Item] = queue.Queue()

    def insert(number: int) -> None:
        kept.put(Item(number))  # here

    return kept.queue, insert


def asyncio_queue() -> Form:
    kept: asyncio.Queue[Item] = asyncio.Queue()

    def insert(number: int) -> None:
        kept.put_nowait(Item(number))  # here

    return kept._queue, insert  # type: ignore[attr-defined]


def cached() -> Form:
    @functools.cache
    def compute(number: int) -> Item:
        return Item(number)

    def insert(number: int) -> None:
        compute(number)  # here

    return next(each for each in _referents(compute) if type(each) is dict and not each), insert


def cached_with_bound() -> Form:
    @functools.lru_cache(maxsize=1_000_000)
    def compute(number: int) -> Item:
        return Item(number)

    def insert(number: int) -> None:
        compute(number)  # here

    return next(each for each in _referents(compute) if type(each) is dict and not each), insert


def _referents(item: object) -> list[Any]:
    import gc

    return gc.get_referents(item)


FORMS: dict[str, Callable[[], Form]] = {
    form.__name__: form
    for form in (
        append, append_of_a_call, add_in_place, extend, comprehension, slice_assignment, key, setdefault, update,
        default, ordered, counter, user_dict, weak_values, add_to_set, deque_left, attribute, dataclass_field,
        partial, mapped, heap, standard_queue, asyncio_queue, cached, cached_with_bound,
    )
}  # fmt: skip
