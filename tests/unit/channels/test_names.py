from __future__ import annotations

import enum
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asyncnotify._channels.names import check_channel, check_payload, quote_identifier
from asyncnotify._errors import ChannelNameError, PayloadError, PayloadTooLargeError

CHARACTERS = st.integers(0, 0x10FFFF).map(chr) | st.sampled_from("\"\0;'\\é€😀")
NAMES = st.lists(CHARACTERS, max_size=70).map("".join)


class Kind(str, enum.Enum):  # noqa: UP042 - many applications have such
    """Channels as some applications name them: str() of such a member is not its value."""

    ORDERS = "orders"


@pytest.mark.parametrize(
    "name",
    ["a" * 63, "é" * 31 + "a", "€" * 21, "😀" * 15 + "abc", 'or"ders', "; DROP", " ", "\n", "\x7f"],
    ids=ascii,
)
def test_r40_channel_of_63_bytes_is_taken_as_it_is(name: str) -> None:
    """Up to 63 bytes of UTF-8 are a channel, whatever they hold but NUL."""
    assert check_channel(name) == name


@pytest.mark.parametrize("name", ["a" * 64, "é" * 32, "€" * 21 + "a", "😀" * 16], ids=ascii)
def test_r40_channel_of_64_bytes_is_refused(name: str) -> None:
    """Bytes count, not characters: LISTEN would cut the 64th without an error."""
    with pytest.raises(ChannelNameError, match="is 64 bytes; at most 63 are allowed"):
        check_channel(name)


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("", "is empty; 1 to 63 bytes"),
        ("a\0b", "contains a NUL"),
        ("a\ud800b", "contains a lone surrogate"),
        ("\udfff" * 100, "contains a lone surrogate"),
        (b"orders", "is of type bytes, not str: decode it"),
        (None, "is of type NoneType, not str"),
        (7, "is of type int, not str"),
        (["orders"], "is of type list, not str: give one channel for each call; stream"),
        (print, "is of type builtin_function_or_method, not str: the channel comes first"),
    ],
)
def test_r40_what_cannot_be_a_channel_is_refused_with_the_reason(name: object, reason: str) -> None:
    """Empty, NUL, half a character, another type: a ValueError that says which, and keeps it."""
    with pytest.raises(ChannelNameError, match=re.escape(reason)) as caught:
        check_channel(name)
    assert isinstance(caught.value, ValueError)
    assert caught.value.channel is name


@given(NAMES)
def test_r40_a_channel_is_taken_or_refused_as_its_bytes_say(name: str) -> None:
    """For any text: taken unchanged if it is 1 to 63 bytes of UTF-8 without NUL, else refused."""
    try:
        encoded = name.encode()
    except UnicodeEncodeError:
        encoded = b""
    if 1 <= len(encoded) <= 63 and b"\0" not in encoded:
        assert check_channel(name) == name
    else:
        with pytest.raises(ChannelNameError):
            check_channel(name)


def test_a_channel_that_is_a_kind_of_str_is_taken_by_its_text() -> None:
    """A member of a str enumeration names the channel that its text names."""
    channel = check_channel(Kind.ORDERS)
    assert channel == "orders"
    assert type(channel) is str


@pytest.mark.parametrize(
    "payload",
    ["", "a" * 7_999, "é" * 3_999 + "a", "€" * 2_666 + "a", "😀" * 1_999 + "abc", "\n\t'\"\\"],
    ids=range(6),
)
def test_r40_payload_of_7999_bytes_is_taken_as_it_is(payload: str) -> None:
    """Up to 7,999 bytes of UTF-8 are a payload; none is one too."""
    assert check_payload("orders", payload) == payload


@pytest.mark.parametrize(
    "payload", ["a" * 8_000, "é" * 4_000, "€" * 2_666 + "aa", "😀" * 2_000], ids=range(4)
)
def test_r40_payload_of_8000_bytes_is_refused(payload: str) -> None:
    """Bytes count, not characters; the error gives the size and the limit."""
    with pytest.raises(PayloadTooLargeError) as caught:
        check_payload("orders", payload)
    error = caught.value
    assert (error.channel, error.size, error.limit) == ("orders", 8_000, 7_999)
    assert "is 8000 bytes; at most 7999 are allowed" in str(error)


@pytest.mark.parametrize(
    ("payload", "reason"),
    [
        ("secret\0", "contains a NUL"),
        ("secret\ud83d", "contains a lone surrogate"),
        ("secret" * 2_000, "is 12000 bytes"),
        (
            b"secret",
            "is of type bytes, not str: decode it, or use a Channel with encode= and decode=",
        ),
        (None, "is of type NoneType, not str: leave it out, to send none"),
        ({"secret": 1}, "is of type dict, not str: to send it as JSON use Channel('orders', dict)"),
    ],
    ids=range(6),
)
def test_r40_what_cannot_be_a_payload_is_refused_without_its_text(
    payload: object, reason: str
) -> None:
    """A ValueError that names the channel and the reason, and holds nothing of the payload."""
    with pytest.raises(PayloadError, match=re.escape(reason)) as caught:
        check_payload("orders", payload)
    assert isinstance(caught.value, ValueError)
    assert "'orders'" in str(caught.value)
    assert "secret" not in f"{caught.value!s} {caught.value!r} {vars(caught.value)}"
    assert caught.value.__cause__ is caught.value.__context__ is None


@given(NAMES)
def test_r42_a_quoted_name_is_one_identifier(name: str) -> None:
    """Inside the outer quotes every quote is doubled: the name cannot end, and reads back."""
    quoted = quote_identifier(name)
    assert quoted[0] == quoted[-1] == '"'
    assert '"' not in quoted[1:-1].replace('""', "")
    assert quoted[1:-1].replace('""', '"') == name
