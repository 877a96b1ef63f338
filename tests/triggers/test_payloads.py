"""What arrives may come from anybody: it is a change, "read again", or cannot be decoded."""

from __future__ import annotations

import json
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asyncnotify import PayloadDecodeError, Reread
from asyncnotify.triggers import Change, Table
from asyncnotify.triggers._changes import Decoder

if TYPE_CHECKING:
    from collections.abc import Callable

CHANGES = Table("t", key="id", payload="v").changes
DECODE: Callable[[str], Change | Reread] = Decoder(("id",), ("id", "v"), {})
GOOD: dict[str, Any] = {
    "op": "insert",
    "n": 1,
    "columns": ["id", "v"],
    "types": [23, 1700],
    "rows": [[1, 2]],
}


def test_a_good_one() -> None:
    """A change has its operation, its keys and its rows."""
    assert DECODE(json.dumps(GOOD)) == Change("insert", (1,), ({"id": 1, "v": Decimal(2)},))
    assert CHANGES.decode(json.dumps(GOOD)) == DECODE(json.dumps(GOOD))


@pytest.mark.parametrize(
    "wrong",
    [
        {"op": "select"},
        {"op": None},
        {"columns": None},
        {"columns": ["id"]},
        {"columns": []},
        {"columns": [1, 2]},
        {"types": [23]},
        {"types": None},
        {"types": ["23", "23"]},
        {"rows": None},
        {"rows": [[1]]},
        {"rows": [1, 2]},
        {"reread": -1},
        {"reread": "all"},
        {"reread": True},
    ],
)
def test_wrong_ones(wrong: dict[str, Any]) -> None:
    """Each is an error of the payload, never a change of another shape."""
    with pytest.raises(PayloadDecodeError):
        CHANGES.decode(json.dumps({**GOOD, **wrong}))


@pytest.mark.parametrize(
    ("key", "found"),
    [("id", (1,)), ("v", (2,)), (("v", "id"), ((2, 1),)), ("other", None), (("id", "other"), None)],
)
def test_of_triggers_with_another_key(
    key: str | tuple[str, ...], found: tuple[object, ...] | None
) -> None:
    """The key is found by its columns, not by their place; without them nothing is made up."""
    changes = Table("t", key=key).changes
    if found is None:
        with pytest.raises(PayloadDecodeError):
            changes.decode(json.dumps(GOOD))
        return
    change = changes.decode(json.dumps(GOOD))
    assert isinstance(change, Change)
    assert change.keys == found


@pytest.mark.parametrize("text", ["", "[]", "7", "null", "{", "[" * 7000, '{"op": "truncate"'])
def test_no_json_object(text: str) -> None:
    """Nor anything that is no object."""
    with pytest.raises(PayloadDecodeError):
        CHANGES.decode(text)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda items: st.lists(items, max_size=3) | st.dictionaries(st.text(max_size=3), items),
    max_leaves=8,
)
OIDS = st.sampled_from([0, 17, 23, 25, 700, 701, 1082, 1083, 1114, 1184, 1266, 1700, 2950, 3802])


@given(st.lists(JSON, min_size=2, max_size=2), st.lists(OIDS, min_size=2, max_size=2))
def test_values_of_any_kind(row: list[Any], oids: list[int]) -> None:
    """A value that its type cannot have stays as it is in JSON: a change is never lost by that."""
    change = DECODE(json.dumps({**GOOD, "rows": [row], "types": oids}))
    assert isinstance(change, Change)
    assert list(change.rows[0]) == ["id", "v"]


def test_large_numbers() -> None:
    """A numeric may have more digits than Python makes an int of."""
    digits = "9" * 5_000
    change = DECODE(json.dumps(GOOD).replace("[[1, 2]]", f"[[1, {digits}]]"))
    assert isinstance(change, Change)
    assert change.rows[0]["v"] == Decimal(digits)


def test_json_that_python_cannot_read() -> None:
    """Of a column whose writer may put anything in it: "read again", and a number is a float."""
    deep = f"{'[' * 100_000}{']' * 100_000}"
    payload = '{"op":"insert","n":1,"columns":["id","v"],"types":[23,114],"rows":[[1,%s]]}'
    assert DECODE(payload % deep) == Reread(None)
    change = DECODE(payload % "1e99999999999999999999")
    assert isinstance(change, Change)
    assert change.rows[0]["v"] == float("inf")


def test_read_again() -> None:
    """With the number of rows, or without one."""
    assert DECODE('{"op":"update","n":1,"reread":5}') == Reread(5)
    assert DECODE('{"op":"update","n":1,"reread":null}') == Reread(None)
