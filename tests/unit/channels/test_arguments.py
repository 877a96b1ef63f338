from __future__ import annotations

import enum
import functools
from typing import Any, Final

import pytest

from asyncnotify._channels.arguments import channel_of, encoded, name_of
from asyncnotify._channels.channel import Channel, bare_decoder
from asyncnotify._errors import ChannelNameError, PayloadError, PayloadTooLargeError

NUMBERS: Final = Channel("numbers", int)
NO_CHANNELS: Final = [None, 7, b"orders", ["orders"], Channel, int, "", "a" * 64, "a\0b", "\ud800"]


class Kind(str, enum.Enum):  # noqa: UP042 - many applications have such
    """Channels as some applications name them: str() of such a member is not its value."""

    ORDERS = "orders"


def test_a_channel_stands_for_itself() -> None:
    """Neither copied nor checked again."""
    assert channel_of(NUMBERS) is NUMBERS
    assert name_of(NUMBERS) == "numbers"


@pytest.mark.parametrize("name", ["orders", "é" * 31, 'or"ders', Kind.ORDERS], ids=ascii)
def test_a_name_is_a_channel_of_text(name: str) -> None:
    """Its payloads are left as they are; of an enumeration's member the value counts."""
    channel = channel_of(name)
    expected = name.value if isinstance(name, Kind) else name
    assert channel.name == name_of(name) == expected
    assert type(name_of(name)) is str
    assert bare_decoder(channel) is None


@pytest.mark.parametrize("thing", NO_CHANNELS, ids=ascii)
def test_r40_what_is_neither_is_refused(thing: object) -> None:
    """By each of the three alike, before a payload is looked at."""
    functions = (channel_of, name_of, functools.partial(encoded, payload=object()))
    for function in functions:
        with pytest.raises(ChannelNameError) as caught:
            function(thing)
        assert caught.value.channel is thing


@pytest.mark.parametrize(
    ("channel", "payload", "pair"),
    [
        ("orders", "", ("orders", "")),
        ("orders", "é", ("orders", "é")),
        (Kind.ORDERS, Kind.ORDERS, ("orders", "orders")),
        (Channel("orders"), "7", ("orders", "7")),
        (NUMBERS, 7, ("numbers", "7")),
        (Channel("rows", dict), {"a": "é"}, ("rows", '{"a":"é"}')),
        (Channel("n", encode=hex, decode=lambda text: int(text, 16)), 255, ("n", "0xff")),
        ("orders", "p" * 7_999, ("orders", "p" * 7_999)),
    ],
    ids=lambda thing: f"{thing!a:.30}",
)
def test_a_payload_becomes_text(channel: Any, payload: object, pair: tuple[str, str]) -> None:
    """Of a name it is the text; of a Channel what that makes of it; always plain strings."""
    assert encoded(channel, payload) == pair
    assert {type(part) for part in encoded(channel, payload)} == {str}


@pytest.mark.parametrize(
    ("channel", "payload", "error"),
    [
        ("orders", 7, PayloadError),
        ("orders", None, PayloadError),
        ("orders", b"7", PayloadError),
        ("orders", "a\0b", PayloadError),
        ("orders", "\ud800", PayloadError),
        ("orders", "p" * 8_000, PayloadTooLargeError),
        ("orders", {"a": 1}, PayloadError),
        (NUMBERS, "7", PayloadError),
        (NUMBERS, True, PayloadError),
        (Channel("rows", list), ["p" * 8_000], PayloadTooLargeError),
    ],
    ids=lambda thing: f"{thing!a:.30}",
)
def test_r40_a_payload_that_cannot_be_sent_is_refused(
    channel: Any,
    payload: object,
    error: type[PayloadError],
) -> None:
    """By its type, its characters or its size; the error names the channel, not the payload."""
    with pytest.raises(error) as caught:
        encoded(channel, payload)
    assert caught.value.channel == name_of(channel)
    assert "p" * 100 not in str(caught.value)
