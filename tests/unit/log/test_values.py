"""Positions and events, as readers get them."""

from __future__ import annotations

import pickle
from datetime import UTC, datetime
from uuid import uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asyncnotify.log import Event, Position, PositionError

NUMBERS = st.integers(0, 10**9 - 1)


@given(NUMBERS, NUMBERS, NUMBERS)
def test_the_text_of_a_position_is_read_again(epoch: int, tick: int, number: int) -> None:
    """And it is short, printable and without white space."""
    position = Position("orders", epoch, tick, number)
    text = str(position)
    assert Position.parse(text) == position
    assert text.isprintable()
    assert " " not in text


@pytest.mark.parametrize(
    "text",
    ["", "orders", "orders:1.2", "orders:1.2.3.4", "orders:1.2.-3", "Orders:1.2.3", " orders:1.2.3",
     "orders:1.2.3\n", "orders:1.2.٣", f"orders:1.2.{10**18}", None, 5, b"orders:1.2.3"],
)  # fmt: skip
def test_all_else_is_no_position(text: str) -> None:
    """What a client sends back may be anything."""
    with pytest.raises(PositionError):
        Position.parse(text)


def test_positions_are_ordered_by_epoch_then_tick_then_id() -> None:
    """As the events of a log are."""
    ascending = [Position("orders", *numbers) for numbers in [(1, 1, 9), (1, 2, 3), (2, 1, 1)]]
    first, second, third = ascending
    assert sorted([second, third, first]) == ascending


def test_an_event_does_not_show_its_payload() -> None:
    """So it can be logged; it can be pickled as well."""
    position = Position("orders", 1, 2, 3)
    event = Event(position, uuid4(), "things", "secret", "42", {}, datetime.now(UTC))
    assert "secret" not in repr(event)
    assert "orders:1.2.3" in repr(event)
    assert pickle.loads(pickle.dumps(event)) == event  # noqa: S301 - of our own making
