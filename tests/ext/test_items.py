"""What clients are sent of payloads: JSON, of everything that a Channel decodes."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass
from datetime import UTC, date, datetime
from decimal import Decimal
from enum import Enum
from math import inf, nan
from typing import Any
from uuid import UUID

import msgspec
import pydantic
import pytest

from asyncnotify import Gap, GapReason, Listener, Notification
from asyncnotify.ext._items import Events, Sent, as_json, message_of
from asyncnotify.testing.fake import FakeServer


class Colour(Enum):
    """A value."""

    RED = "red"


class Model(pydantic.BaseModel):
    """A payload of pydantic's."""

    day: date


class Measured(pydantic.BaseModel):
    """A payload of pydantic's, with what JSON does not have."""

    model_config = pydantic.ConfigDict(ser_json_inf_nan="constants")

    value: float


class Struct(msgspec.Struct, rename="camel"):
    """A payload of msgspec's, with names of its own in JSON."""

    first_day: date


@dataclass
class Data:
    """A payload that has others in it."""

    model: Model
    price: Decimal


DAY = date(2026, 1, 2)
NOON = datetime(2026, 1, 2, 12, tzinfo=UTC)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("ß\n", '"ß\\n"'),
        (None, "null"),
        ({"at": NOON}, '{"at":"2026-01-02T12:00:00+00:00"}'),
        (Colour.RED, '"red"'),
        (UUID(int=1), '"00000000-0000-0000-0000-000000000001"'),
        (frozenset({1}), "[1]"),
        (Struct(DAY), '{"firstDay":"2026-01-02"}'),
        (Data(Model(day=DAY), Decimal("1.50")), '{"model":{"day":"2026-01-02"},"price":"1.50"}'),
        (Measured(value=nan), '{"value":null}'),
        ({"a": [inf, -inf, 1.5], "b": "NaN"}, '{"a":[null,null,1.5],"b":"NaN"}'),
        ("\ud800", '"\\ud800"'),
    ],
)
def test_payloads_are_json_in_one_line(value: object, text: str) -> None:
    """Of whichever library their type is; each is one that browsers read."""
    assert as_json(value) == text
    json.loads(text.encode(), parse_constant=pytest.fail)


def test_what_json_cannot_hold_is_refused() -> None:
    """The error names its type, and not the payload."""
    with pytest.raises(TypeError, match="type bytes cannot be sent as JSON"):
        as_json(b"secret")


def test_a_message_says_what_it_is() -> None:
    """A notification or a gap, with all that is known of it."""
    assert json.loads(message_of(Notification("orders", "1", 7))) == {
        "channel": "orders",
        "payload": "1",
    }
    gap = Gap("orders", GapReason.OVERFLOW, NOON, 3)
    assert json.loads(message_of(gap)) == {
        "gap": "overflow",
        "channel": "orders",
        "since": "2026-01-02T12:00:00+00:00",
        "dropped": 3,
    }


def channel_of(item: Notification[Any]) -> str:
    """Name an event by its channel."""
    return item.channel


@pytest.mark.parametrize(
    ("name", "expected"), [(None, None), ("changed", "changed"), (channel_of, "b")]
)
async def test_events_are_named_as_asked(name: Any, expected: str | None) -> None:
    """Not at all, always the same, or by a function; a gap always by its own name."""
    fake = FakeServer()
    async with Listener(fake.dsn) as listener:
        events = Events[Sent](listener.stream("b", gaps=True), lambda sent: sent, name)
        assert (await anext(events)).event == "gap"
        fake.notify("b", "1")
        assert await anext(events) == Sent('"1"', expected, None)
        await events.aclose()
        assert not listener.channels


async def test_events_end_with_the_listener_and_with_a_slow_client() -> None:
    """Normally: a browser comes again by itself."""
    fake = FakeServer()
    async with Listener(fake.dsn) as listener:
        async with listener.stream("b", buffer=1, overflow="fail") as stream:
            slow = Events[Sent](stream, lambda sent: sent, None)
            for number in range(3):
                fake.notify("b", str(number))
            while not listener.stats().dropped:  # noqa: ASYNC110 - a counter is no event
                await asyncio.sleep(0)
            assert len([sent async for sent in slow]) < 3
        late = Events[Sent](listener.stream("b"), lambda sent: sent, None)
    assert [sent async for sent in late] == []


@pytest.mark.parametrize(("stream", "name"), [("orders", None), (None, None), (..., 7)])
def test_wrong_arguments_are_refused_at_once(stream: Any, name: Any) -> None:
    """Not when the response is sent."""
    given = Listener().stream("orders") if stream is ... else stream
    with pytest.raises(TypeError, match=r"^(stream|event) must be"):
        Events[Sent](given, lambda sent: sent, name)
