"""Publishing many notifications: one transaction is sent while the next one is encoded."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Any

from asyncnotify._errors import ConnectionLostError
from asyncnotify._notes import note_count
from asyncnotify._publishing.batching import BATCH_COUNT, in_batches

if TYPE_CHECKING:
    from collections.abc import AsyncIterable, Iterable

    from asyncnotify._publishing.publisher import Publisher


async def publish_many(publisher: Publisher, pairs: Iterable[Any] | AsyncIterable[Any]) -> int:
    """
    Publish pairs of channel and payload, in their order; return how many.

    The first failure ends the call; a note on the exception says how many have been sent, and how
    many more may have been.

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
        if isinstance(error, Exception):
            await asyncio.wait({in_flight})
        else:
            in_flight.cancel()  # otherwise its exception would never be retrieved
        _note_outcome(error, in_flight, sent, size)
        raise
    return sent + size


def _note_outcome(
    error: BaseException, in_flight: asyncio.Future[None], sent: int, size: int
) -> None:
    """Note what has been sent, and what may have been: the last transaction is decided."""
    rest = "notifications before it have been sent"
    if in_flight.cancelled() or isinstance(in_flight.exception(), ConnectionLostError):
        rest += f", and up to {size} more may have been" if size else ""
    elif in_flight.exception() is None:
        sent += size
    note_count(error, sent, rest)
