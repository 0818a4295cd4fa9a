"""Merging keeps the order of each owner's rows and loses none."""

from collections import defaultdict

from hypothesis import given
from hypothesis import strategies as st

from flatwater.store import run, step, variable
from flatwater.store.batch import grouped
from flatwater.store.statement import Op, Statement
from flatwater.store.tx import encode_rows

KINDS = (run.INSERT, step.PUT, variable.PUT, run.END)


@given(st.lists(st.tuples(st.sampled_from(KINDS), st.sampled_from("abc")), max_size=60))
def test_each_owner_keeps_its_order(picked: list[tuple[Statement, str]]) -> None:
    ops: list[Op] = [(kind, (owner, number)) for number, (kind, owner) in enumerate(picked)]
    done = [(kind, row) for kind, rows in grouped(ops) for row in rows]
    assert sorted(row[1] for _, row in done) == list(range(len(ops)))
    of_owner: dict[str, list[tuple[Statement, int]]] = defaultdict(list)
    for kind, (owner, number) in done:
        of_owner[owner].append((kind, number))
    for numbers in of_owner.values():
        assert [number for _, number in numbers] == sorted(number for _, number in numbers)


def test_interleaved_lives_make_one_group_per_statement() -> None:
    lives = [[(kind, (owner,)) for kind in (run.INSERT, step.PUT, run.END)] for owner in "abcdef"]
    interleaved = [op for position in range(3) for life in lives for op in life[position : position + 1]]
    assert [kind for kind, _ in grouped([op for life in lives for op in life])] == [run.INSERT, step.PUT, run.END]
    assert [kind for kind, _ in grouped(interleaved)] == [run.INSERT, step.PUT, run.END]


def test_of_several_rows_for_one_key_the_last_counts() -> None:
    rows = [("r", "x", "1", None), ("r", "y", "2", None), ("r", "x", "3", None)]
    assert variable.PUT.merged(rows) == [("r", "x", "3", None), ("r", "y", "2", None)]


def test_text_that_no_database_keeps_is_replaced() -> None:
    assert encode_rows([("a\0b", "half \ud800 surrogate", 1, None)]) == '[["a\ufffdb","half ? surrogate",1,null]]'
    assert encode_rows([('{"json":"\\u0000"}',)]) == '[["{\\"json\\":\\"\\\\u0000\\"}"]]'
