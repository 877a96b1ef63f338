"""The trace of a sender, in the headers of the events that it appends."""

from __future__ import annotations

from collections.abc import AsyncIterable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, Final

from opentelemetry import propagate

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

_SHORTEST: Final = 2
_LONGEST: Final = 4
"""What an event of ``append_many()`` has: channel and payload, and then key and headers."""


def current_context() -> dict[str, str]:
    """Return the current trace as headers of an event."""
    carrier: dict[str, str] = {}
    propagate.inject(carrier)
    return carrier


def with_context(headers: Any, context: Mapping[str, str]) -> Any:  # noqa: ANN401 - what is no mapping is refused by the log
    """Return headers of an event with a trace among them; those given are kept."""
    if headers is None:
        return context or None
    return {**context, **headers} if isinstance(headers, Mapping) else headers


def with_contexts(events: Any, context: Mapping[str, str]) -> Any:  # noqa: ANN401 - what holds no events is refused by the log
    """Return events as ``append_many()`` takes them, with a trace among the headers of each."""
    if isinstance(events, Mapping | str | bytes):
        return events
    if isinstance(events, AsyncIterable):
        return _each_soon(events, context)
    return _each(events, context) if isinstance(events, Iterable) else events


async def _each_soon(
    events: AsyncIterable[object], context: Mapping[str, str]
) -> AsyncIterator[object]:
    async for event in events:
        yield _with_context(event, context)


def _each(events: Iterable[object], context: Mapping[str, str]) -> Iterator[object]:
    for event in events:
        yield _with_context(event, context)


def _with_context(event: object, context: Mapping[str, str]) -> object:
    if not isinstance(event, tuple) or not _SHORTEST <= len(event) <= _LONGEST:
        return event
    channel, payload, key, headers = (*event, None, None)[:_LONGEST]
    return channel, payload, key, with_context(headers, context)
