"""A leak's signature: the same for the same leak, another for another."""

from hypothesis import given
from hypothesis import strategies as st

from flatwater.memory.signature import shape, signature

FOUND = "main() local app (service.py:39) → App.tables[7]['orders'] → Table.rows (dict, +412/s)"


def test_lines_indexes_keys_and_rates_do_not_count():
    again = "main() local app (service.py:44) → App.tables[9]['carts'] → Table.rows (dict, +9/s)"
    assert shape(FOUND) == shape(again) == "main() local app (service.py) → App.tables[][] → Table.rows"
    assert signature("python-objects", FOUND, "Row", "add") == signature("python-objects", again, "Row", "add")


def test_owner_type_and_function_count():
    one = signature("python-objects", FOUND, "Row", "add")
    assert one != signature("python-objects", FOUND, "Column", "add")
    assert one != signature("python-objects", FOUND, "Row", "merge")
    assert one != signature("native", FOUND, "Row", "add")
    assert one != signature("python-objects", FOUND.replace(".rows", ".index"), "Row", "add")


@given(*[st.text()] * 4)
def test_any_text_has_one(kind: str, path: str, item: str, function: str):
    assert len(signature(kind, path, item, function)) == 12
