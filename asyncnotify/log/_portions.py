"""Events as ``append_many()`` takes them, in portions that one statement each takes."""

from __future__ import annotations

from collections.abc import AsyncIterable, Iterable
from typing import TYPE_CHECKING, Any, Final

from asyncnotify._arguments import check_pairs
from asyncnotify.log._appending import PORTION_BYTES, PORTION_COUNT
from asyncnotify.log._entries import Entry, entry_of

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Iterator

_SHORTEST: Final = 2
_LONGEST: Final = 4


class _Portions:
    """Collects entries; each list of them is what one statement takes."""

    def __init__(self) -> None:
        self.entries: list[Entry] = []
        self._size = 0

    def add(self, event: object) -> list[Entry] | None:
        """Add an event; return the portion that was full before it, if it was."""
        entry = _entry(event)
        full: list[Entry] | None = None
        is_full = len(self.entries) == PORTION_COUNT or self._size + entry.size > PORTION_BYTES
        if self.entries and is_full:
            full, self.entries, self._size = self.entries, [], 0
        self.entries.append(entry)
        self._size += entry.size
        return full


def check_events(events: object, *, may_be_async: bool) -> None:
    """Raise TypeError unless it can be iterated over, and may hold events."""
    check_pairs(events, may_be_async=may_be_async, name="events", kind="tuples")


async def in_portions(
    events: Any,  # noqa: ANN401 - what a caller gives
) -> AsyncGenerator[list[Entry]]:
    """
    Yield entries for events, in lists of up to 1,000 entries or about 1 MiB, none empty.

    Raises:
        TypeError: It cannot be iterated over, or an element is not a tuple of 2 to 4.
        Exception: What ``entry_of()`` or the iterable raises.
    """
    check_events(events, may_be_async=True)
    portions = _Portions()
    async for event in _each(events):
        if full := portions.add(event):
            yield full
    if portions.entries:
        yield portions.entries


def portions_of(events: Iterable[object]) -> Iterator[list[Entry]]:
    """Do as ``in_portions()``, in a thread."""
    portions = _Portions()
    for event in events:
        if full := portions.add(event):
            yield full
    if portions.entries:
        yield portions.entries


async def _each(events: Iterable[Any] | AsyncIterable[Any]) -> AsyncIterator[Any]:
    if isinstance(events, AsyncIterable):
        async for event in events:
            yield event
    else:
        for event in events:
            yield event


def _entry(event: object) -> Entry:
    if not isinstance(event, tuple) or not _SHORTEST <= len(event) <= _LONGEST:
        size = f" of {len(event)}" if isinstance(event, tuple | list) else ""
        msg = (
            "an event is a tuple of channel, payload, and key and headers if any, not"
            f" a {type(event).__name__}{size}"
        )
        raise TypeError(msg)
    return entry_of(*event)
