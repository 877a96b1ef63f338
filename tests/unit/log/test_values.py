"""Positions and events, as readers get them."""

from __future__ import annotations

import pickle
from copy import copy, deepcopy
from datetime import UTC, datetime
from typing import TYPE_CHECKING
from uuid import UUID, uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asyncnotify.log import Event, Position, PositionError

if TYPE_CHECKING:
    from collections.abc import Callable

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


AN_EVENT = Event(
    Position("orders", 1, 2, 3), uuid4(), "things", "secret", "42", {"a": "b"}, datetime.now(UTC)
)


def test_an_event_does_not_show_its_payload() -> None:
    """So it can be logged."""
    assert "secret" not in repr(AN_EVENT)
    assert "orders:1.2.3" in repr(AN_EVENT)


def pickled(event: Event[str]) -> Event[str]:
    """Return what another process would make of it."""
    made: Event[str] = pickle.loads(pickle.dumps(event))  # noqa: S301 - of our own making
    return made


@pytest.mark.parametrize("again", [copy, deepcopy, pickled])
def test_a_copy_of_an_event_is_equal_in_all_that_it_has(
    again: Callable[[Event[str]], Event[str]],
) -> None:
    """Also where another process has made it."""
    other = again(AN_EVENT)
    assert other == AN_EVENT
    assert type(other) is Event
    names = Event.__match_args__
    assert [getattr(other, name) for name in names] == [getattr(AN_EVENT, name) for name in names]


@given(
    st.builds(Position, st.just("orders"), NUMBERS, NUMBERS, NUMBERS),
    st.uuids(),
    st.datetimes(datetime(2, 1, 1), datetime(9998, 12, 31), timezones=st.timezones()),  # noqa: DTZ001
)
def test_an_event_gives_back_what_it_was_made_of(
    position: Position, identity: UUID, appended_at: datetime
) -> None:
    """It does not keep these three as they are."""
    event = Event(position, identity, "things", "", None, {}, appended_at)
    # in UTC: a time that a change of the clocks makes ambiguous equals none of another time zone
    expected = (position, identity, appended_at.astimezone(UTC))
    assert (event.position, event.id, event.appended_at) == expected
    assert event.appended_at.tzinfo is UTC
    assert isinstance(event.position, Position)
    assert isinstance(event.id, UUID)


def test_an_event_matches_by_position_and_by_name() -> None:
    """As other values of this package do."""
    match AN_EVENT:
        case Event(Position(log="orders"), _, "things", payload, key=key, headers={"a": header}):
            assert (payload, key, header) == ("secret", "42", "b")
        case _:
            pytest.fail("it does not match")


def test_events_are_ordered_as_their_positions() -> None:
    """Whatever else they have."""
    identities = [UUID(int=number) for number in (9, 5, 1)]
    positions = [Position("orders", *place) for place in [(1, 1, 9), (1, 2, 3), (2, 1, 1)]]
    first, second, third = (
        Event(position, identity, "things", "", None, {}, datetime.now(UTC))
        for position, identity in zip(positions, identities, strict=True)
    )
    assert sorted([second, third, first]) == [first, second, third]


@pytest.mark.parametrize("name", [*Event.__match_args__, "other"])
def test_an_event_cannot_be_changed(name: str) -> None:
    """Several may have the same one."""
    with pytest.raises(AttributeError):
        setattr(AN_EVENT, name, None)
