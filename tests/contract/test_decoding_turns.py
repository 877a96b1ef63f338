"""Decoding takes its time from one consumer: the event loop has turns for all others."""

from __future__ import annotations

import asyncio
import time
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Final

import pytest

from asyncnotify import Channel

if TYPE_CHECKING:
    from asyncnotify import Listener, Notification, Stream
    from tests.contract.conftest import Database, Inbox

    Any_ = Inbox[Any]

pytestmark = pytest.mark.load

NUMBERS: Final = Channel("orders", int)


async def flood_with_bad_ones(database: Database, count: int) -> None:
    """Commit so many payloads, all different, of which none is a number."""
    await database.notify_all(["orders"] * count, [f"x{n}" for n in range(count)])


async def test_a_flood_of_bad_ones_does_not_make_a_stream_too_slow(
    listener: Listener, database: Database, new_inbox: type[Any_]
) -> None:
    """A stream keeps up with what a handler keeps up with: nobody's forgeries cost good ones."""
    inbox = new_inbox()
    subscription = await listener.listen(NUMBERS, inbox)
    async with listener.stream(NUMBERS) as stream:
        reading = asyncio.ensure_future(anext(stream))
        await asyncio.sleep(0)  # the reader waits
        # A portion fits into any buffer, however little of the processor this process has
        for count in range(1, 11):
            await flood_with_bad_ones(database, 10_000)
            while subscription.stats().decode_errors < count * 10_000:  # noqa: ASYNC110 - no event tells
                await asyncio.sleep(0)
        await database.notify("orders", "1")
        assert ((await inbox.next()).payload, (await reading).payload) == (1, 1)
        assert subscription.stats().dropped == 0
        stats = stream.stats()
        assert stats is not None
        assert stats.dropped == 0


@pytest.mark.parametrize(
    "concurrency",
    [1, 3],
)
async def test_a_handler_leaves_others_their_turn_while_it_finds_bad_ones(
    listener: Listener, database: Database, new_inbox: type[Any_], concurrency: int
) -> None:
    """However many wait that cannot be decoded, other tasks run in between."""
    inbox, released = new_inbox(), asyncio.Event()

    async def wait_once(error: BaseException, item: object) -> None:
        await released.wait()

    subscription = await listener.listen(
        NUMBERS, inbox, on_error=wait_once, concurrency=concurrency
    )
    await flood_with_bad_ones(database, 20_000)
    await database.notify("orders", "1")
    await database.fence(listener)  # they wait now
    turns = [subscription.stats().decode_errors]
    released.set()
    while not inbox:
        await asyncio.sleep(0)
        turns.append(subscription.stats().decode_errors)
    assert turns[-1] == 20_000
    assert max(after - before for before, after in pairwise(turns)) < 10_000


async def test_a_batch_leaves_others_their_turn(listener: Listener, database: Database) -> None:
    """However large the limit, decoding does not keep the loop for all of them."""
    decoded, turns = 0, [0]

    def decode(text: str) -> int:
        nonlocal decoded
        decoded += 1
        time.sleep(0.0002)  # stands for a slow decoder: all of them take a second, at least
        return int(text)

    async with listener.stream(Channel("orders", encode=str, decode=decode)) as stream:
        await database.flood("orders", 5_000)
        await database.fence(listener)
        reading = asyncio.ensure_future(taken_in_batches_of(stream, 5_000))
        while not reading.done():
            await asyncio.sleep(0)
            turns.append(decoded)
        assert len(await reading) == 5_000
    assert max(after - before for before, after in pairwise(turns)) < 500


async def taken_in_batches_of(stream: Stream[Notification[Any]], limit: int) -> list[Any]:
    """Return the next so many payloads, by lists that may be as long."""
    found: list[Any] = []
    async for batch in stream.batches(limit):
        found.extend(n.payload for n in batch)
        if len(found) >= limit:
            break
    return found
