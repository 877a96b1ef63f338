"""What clients are sent of a stream: events of Server-Sent Events, and messages of WebSockets."""

from __future__ import annotations

import dataclasses
import importlib
import json
from collections.abc import Callable
from datetime import date, time
from decimal import Decimal
from enum import Enum
from pathlib import PurePath
from typing import Any, Final, Generic, NamedTuple, Self, TypeAlias, TypeVar
from uuid import UUID

from asyncnotify import (
    BufferOverflowError,
    ClosedError,
    Gap,
    ListenTimeoutError,
    Notification,
    Stream,
)
from asyncnotify.log import Event, LogStream

SentT_co = TypeVar("SentT_co", covariant=True)

Source: TypeAlias = (
    Stream[Notification[Any]]
    | Stream[Notification[Any] | Gap]
    | LogStream[Event[Any]]
    | LogStream[Event[Any] | Gap]
)
"""What clients are served from."""

Name: TypeAlias = str | Callable[[Notification[Any] | Event[Any]], str | None] | None
"""How an event is named: always the same, by a function, or not at all."""

READY: Final = "ready"
GAP: Final = "gap"

ENDS: Final = (ClosedError, ListenTimeoutError, BufferOverflowError)
"""Errors that end what a client is sent, and are none of the application: a client comes again."""


class Sent(NamedTuple):
    """
    A server-sent event, before a framework has framed it.

    Attributes:
        data: JSON, in one line.
        event: The name of the event; None: browsers call it ``message``.
        id: What a browser sends as Last-Event-ID when it comes again; None: the last one stays.
    """

    data: str
    event: str | None = None
    id: str | None = None


class Events(Generic[SentT_co]):
    """
    The items of a stream as server-sent events: an asynchronous iterator.

    It ends as the stream does, also where that ends because its client is too slow, the listener
    is closed, or the server has not confirmed LISTEN in time. A stream of a log begins with an
    event ``ready`` that bears the place where reading begins, so that a client who leaves before
    the first event misses nothing either.

    When nothing refers to it any more, nothing of the stream is left.
    """

    def __init__(self, stream: Source, make: Callable[[Sent], SentT_co], name: Name) -> None:
        _check_stream(stream)
        _check_name(name)
        self._stream: Stream[Any] | LogStream[Any] = stream
        self._make = make
        self._name = name
        self._has_begun = not isinstance(stream, LogStream)

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> SentT_co:
        """
        Return the next event.

        Raises:
            StopAsyncIteration: The stream has ended.
            Exception: What the stream raised, unless it is said above.
        """
        try:
            if not self._has_begun:
                return self._make(await self._begin())
            return self._make(self._event_of(await anext(self._stream)))
        except ENDS:
            raise StopAsyncIteration from None

    async def aclose(self) -> None:
        """End the stream."""
        await self._stream.aclose()

    async def _begin(self) -> Sent:
        stream = self._stream
        await stream.__aenter__()
        self._has_begun = True
        place = stream.position if isinstance(stream, LogStream) else None
        return Sent("{}", READY, None if place is None else str(place))

    def _event_of(self, item: Notification[Any] | Event[Any] | Gap) -> Sent:
        if isinstance(item, Gap):
            return Sent(as_json(fields_of(item)), GAP)
        name = self._name(item) if callable(self._name) else self._name
        place = str(item.position) if isinstance(item, Event) else None
        return Sent(as_json(item.payload), name, place)


def _check_stream(stream: object) -> None:
    if not isinstance(stream, Stream | LogStream):
        kind = type(stream).__name__
        msg = f"stream must be one of listener.stream() or log.read(), not of type {kind}"
        raise TypeError(msg)


def _check_name(name: object) -> None:
    if not (name is None or isinstance(name, str) or callable(name)):
        msg = f"event must be a str, a function or None, not of type {type(name).__name__}"
        raise TypeError(msg)


def message_of(item: Notification[Any] | Gap) -> str:
    """
    Return the text of a message for a WebSocket: JSON.

    ``{"channel": …, "payload": …}`` for a notification, and for a gap its reason in ``gap``:
    ``{"channel": …, "gap": …, "since": …, "dropped": …}``.
    """
    if isinstance(item, Gap):
        fields = fields_of(item)
        reason = fields.pop("reason")
        return as_json({"gap": reason, **fields})
    return as_json({"channel": item.channel, "payload": item.payload})


def fields_of(gap: Gap) -> dict[str, str | int | None]:
    """Return what clients are told of a gap."""
    since = None if gap.since is None else gap.since.isoformat()
    return {
        "reason": str(gap.reason),
        "channel": gap.channel,
        "since": since,
        "dropped": gap.dropped,
    }


def as_json(value: object) -> str:
    """
    Return JSON in one line: of what a Channel decodes, such as a model of pydantic's.

    Raises:
        TypeError: JSON cannot hold it.
    """
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"), default=_plain)


def _plain(value: Any) -> object:  # noqa: ANN401 - whatever a Channel has decoded
    """Return what JSON can hold instead of this."""
    if hasattr(value, "model_dump"):
        return value.model_dump(mode="json")
    if hasattr(value, "__struct_fields__"):
        return importlib.import_module("msgspec").to_builtins(value)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    return _plain_scalar(value)


def _plain_scalar(value: object) -> object:
    if isinstance(value, date | time):
        return value.isoformat()
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, set | frozenset):
        return list(value)
    if isinstance(value, UUID | PurePath | Decimal):
        return str(value)
    msg = f"a payload of type {type(value).__name__} cannot be sent as JSON"
    raise TypeError(msg)
