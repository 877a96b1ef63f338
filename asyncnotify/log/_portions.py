"""Events as ``append_many()`` takes them, in portions that one statement each takes."""

from __future__ import annotations

from collections.abc import AsyncIterable, Iterable
from typing import TYPE_CHECKING, Any, Final

from asyncnotify.log._appending import PORTION_BYTES, PORTION_COUNT
from asyncnotify.log._entries import Entry, entry_of

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator

_SHORTEST: Final = 2
_LONGEST: Final = 4


async def in_portions(events: object) -> AsyncGenerator[list[Entry]]:
    """
    Yield entries for events, in lists of up to 1,000 entries or about 1 MiB, none empty.

    Raises:
        TypeError: It cannot be iterated over, or an element is not a tuple of 2 to 4.
        Exception: What ``entry_of()`` or the iterable raises.
    """
    if not isinstance(events, Iterable | AsyncIterable):
        msg = f"events must be an iterable of tuples, not of type {type(events).__name__}"
        raise TypeError(msg)
    portion: list[Entry] = []
    size = 0
    async for event in _each(events):
        entry = _entry(event)
        if portion and (len(portion) == PORTION_COUNT or size + entry.size > PORTION_BYTES):
            yield portion
            portion, size = [], 0
        portion.append(entry)
        size += entry.size
    if portion:
        yield portion


async def _each(events: Iterable[Any] | AsyncIterable[Any]) -> AsyncIterator[Any]:
    if isinstance(events, AsyncIterable):
        async for event in events:
            yield event
    else:
        for event in events:
            yield event


def _entry(event: object) -> Entry:
    if not isinstance(event, tuple) or not _SHORTEST <= len(event) <= _LONGEST:
        msg = (
            "an event is a tuple of channel, payload, and key and headers if any, not"
            f" of type {type(event).__name__}"
        )
        raise TypeError(msg)
    return entry_of(*event)
