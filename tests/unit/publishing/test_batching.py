from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from asyncnotify._channels.channel import Channel
from asyncnotify._errors import ChannelNameError, PayloadError, PayloadTooLargeError
from asyncnotify._publishing.batching import in_batches

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    Batch = tuple[list[str], list[str]]
    Pairs = list[tuple[Any, Any]]

LONG = "p" * 7_999


async def batches(pairs: Any, count: int = 3) -> list[Batch]:
    """Return all portions."""
    return [batch async for batch in in_batches(pairs, count)]


async def asynchronous(pairs: Pairs) -> AsyncIterator[tuple[Any, Any]]:
    """Yield pairs, with a pause before each."""
    for pair in pairs:
        await asyncio.sleep(0)
        yield pair


def numbers(count: int) -> Pairs:
    """Return so many pairs."""
    return [("c", str(n)) for n in range(count)]


@pytest.mark.parametrize("form", [list, iter, asynchronous], ids=["list", "iterator", "async"])
@pytest.mark.parametrize("count", [0, 1, 2, 3, 4, 6, 7])
async def test_portions_hold_so_many_at_most(form: Any, count: int) -> None:
    """All are yielded, in order, three at a time; the last portion holds the rest."""
    found = await batches(form(numbers(count)))
    assert [len(channels) for channels, _ in found] == [
        min(3, count - n) for n in range(0, count, 3)
    ]
    assert [p for _, payloads in found for p in payloads] == [str(n) for n in range(count)]
    assert {c for channels, _ in found for c in channels} <= {"c"}


@pytest.mark.parametrize("form", [list, asynchronous], ids=["list", "async"])
async def test_portions_are_bounded_by_their_characters(form: Any) -> None:
    """The notification that exceeds a million characters is the last one of its portion."""
    found = await batches(form([("c", LONG)] * 300), count=1_000)
    assert [len(channels) for channels, _ in found] == [126, 126, 48]
    assert 125 * len(LONG) < 1_000_000 < 126 * len(LONG)


async def test_channels_encode_their_payloads() -> None:
    """Names and Channels may be mixed."""
    pairs = [("plain", "text"), (Channel("typed", dict[str, int]), {"id": 1})]
    [(channels, payloads)] = await batches(pairs)
    assert channels == ["plain", "typed"]
    assert (payloads[0], payloads[1].replace(" ", "")) == ("text", '{"id":1}')


@pytest.mark.parametrize(
    ("pair", "error"),
    [
        ("ab", TypeError),  # two characters, and no channel with a payload
        (b"ab", TypeError),
        ("a", TypeError),
        (("c",), TypeError),
        (("c", "p", "more"), TypeError),
        (7, TypeError),
        (None, TypeError),
        (("", "p"), ChannelNameError),
        ((7, "p"), ChannelNameError),
        (("c", 7), PayloadError),
        (("c", "p" * 8_000), PayloadTooLargeError),
        ((Channel("c", int), "text"), PayloadError),
    ],
    ids=repr,
)
@pytest.mark.parametrize("form", [list, asynchronous], ids=["list", "async"])
async def test_what_is_wrong_ends_it_after_whole_portions(
    form: Any,
    pair: Any,
    error: type[Exception],
) -> None:
    """Portions before the bad pair are yielded; what was gathered after them is not."""
    portions = in_batches(form([*numbers(4), pair, *numbers(9)]), 3)
    _, payloads = await anext(portions)
    with pytest.raises(error):
        await anext(portions)
    assert payloads == ["0", "1", "2"]


async def test_no_pair_is_named_by_its_type_and_not_shown() -> None:
    """The error says what came instead, without a payload."""
    with pytest.raises(TypeError, match=r"not a list of 3$") as caught:
        await batches([["c", "secret", "more"]])
    assert "secret" not in str(caught.value)
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__


async def test_no_more_is_taken_than_the_portion_needs() -> None:
    """A generator is asked for the next pair when the portion before it has been sent."""
    taken: list[int] = []

    def pairs() -> Iterator[tuple[str, str]]:
        for n in range(10):
            taken.append(n)
            yield "c", str(n)

    portions = in_batches(pairs(), 3)
    await anext(portions)
    assert taken == [0, 1, 2]
    await anext(portions)
    assert taken == [0, 1, 2, 3, 4, 5]
    await portions.aclose()


async def test_what_the_pairs_raise_is_raised() -> None:
    """An error of the caller's iterator passes as it is."""

    def pairs() -> Iterator[tuple[str, str]]:
        yield "c", "1"
        raise LookupError

    with pytest.raises(LookupError):
        await batches(pairs(), 1)
