"""Publishing many notifications: one transaction is sent while the next one is encoded."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Any

from asyncnotify._publishing.batching import BATCH_COUNT, in_batches

if TYPE_CHECKING:
    from collections.abc import AsyncIterable, Iterable

    from asyncnotify._publishing.publisher import Publisher


async def publish_many(publisher: Publisher, pairs: Iterable[Any] | AsyncIterable[Any]) -> int:
    """
    Publish pairs of channel and payload, in their order; return how many.

    The first failure ends the call; a note on the exception says how many have been sent.

    Raises:
        Exception: What ``in_batches()`` and ``Publisher.publish_all()`` raise.
    """
    sent, size = 0, 0
    in_flight = publisher.publish_all((), ())
    try:
        async with contextlib.aclosing(in_batches(pairs, BATCH_COUNT)) as batches:
            async for channels, payloads in batches:
                await in_flight
                sent, size = sent + size, 0
                in_flight = publisher.publish_all(channels, payloads)
                size = len(channels)
                await asyncio.sleep(0)  # these are sent before the next ones are encoded
        await in_flight
    except BaseException as error:
        if not isinstance(error, Exception):
            in_flight.cancel()  # otherwise its exception would never be retrieved
        elif await _succeeds(in_flight):
            sent += size
        error.add_note(f"{sent} notifications before it have been sent")
        raise
    return sent + size


async def _succeeds(sent: asyncio.Future[None]) -> bool:
    await asyncio.wait({sent})
    return not sent.cancelled() and sent.exception() is None
