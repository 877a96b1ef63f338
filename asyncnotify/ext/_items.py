"""What clients are sent of a stream: events of Server-Sent Events, and messages of WebSockets."""

from __future__ import annotations

import asyncio
import dataclasses
import importlib
import json
import weakref
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
from asyncnotify._arguments import check_plain_function
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

    Cancelling the wait for an event ends the stream: a response that is cancelled has no client any
    more. So nothing of the stream is left then, whoever keeps the response or the error.

    Args:
        stream: The stream.
        make: Makes what the framework sends.
        name: How events are named.
        ends_with_task: End the stream also when the task ends that has taken the first event. For
            an endpoint that yields events: cancelled while one is being sent, it is not closed, but
            left to the garbage collector.

    Raises:
        TypeError: ``stream`` is no stream, or ``name`` cannot name events.
    """

    def __init__(
        self,
        stream: Source,
        make: Callable[[Sent], SentT_co],
        name: Name,
        *,
        ends_with_task: bool = False,
    ) -> None:
        _check_stream(stream)
        check_name(name)
        self._stream: Stream[Any] | LogStream[Any] | None = stream
        self._make = make
        self._name = name
        self._has_begun = not isinstance(stream, LogStream)
        self._is_to_watch = ends_with_task

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> SentT_co:
        """
        Return the next event.

        Raises:
            StopAsyncIteration: The stream has ended.
            Exception: What the stream raised, unless it is said above.
        """
        if self._is_to_watch:
            self._is_to_watch = False
            _end_with_task(weakref.ref(self))
        try:
            sent = await self._next()
        except ENDS:
            self.let_go()
            raise StopAsyncIteration from None
        except BaseException:
            self.let_go()  # a traceback, which others keep, leads to this frame
            raise
        return self._make(sent)

    def let_go(self) -> None:
        """End the stream by referring to it no more."""
        self._stream = None

    async def aclose(self) -> None:
        """End the stream."""
        stream, self._stream = self._stream, None
        if stream is not None:
            await stream.aclose()

    async def _next(self) -> Sent:
        if self._stream is None:
            raise StopAsyncIteration
        if not self._has_begun and isinstance(self._stream, LogStream):
            place = await place_in(self._stream)
            self._has_begun = True
            return Sent("{}", READY, place)
        return self._event_of(await anext(self._stream))

    def _event_of(self, item: Notification[Any] | Event[Any] | Gap) -> Sent:
        if isinstance(item, Gap):
            return Sent(as_json(fields_of(item)), GAP)
        name = self._name(item) if callable(self._name) else self._name
        place = str(item.position) if isinstance(item, Event) else None
        return Sent(as_json(item.payload), name, place)


def _end_with_task(events: weakref.ref[Events[Any]]) -> None:
    """Let a stream end with the present task."""

    def end(_: object) -> None:
        if (found := events()) is not None:
            found.let_go()

    if (task := asyncio.current_task()) is not None:
        task.add_done_callback(end)


async def place_in(stream: LogStream[Any]) -> str | None:
    """Return where a stream of a log begins, once it has taken its place there."""
    await stream.__aenter__()
    return None if stream.position is None else str(stream.position)


def _check_stream(stream: object) -> None:
    if not isinstance(stream, Stream | LogStream):
        kind = type(stream).__name__
        msg = f"stream must be one of listener.stream() or log.read(), not of type {kind}"
        raise TypeError(msg)


def check_name(name: object) -> None:
    """Raise TypeError unless events can be named so."""
    if name is None or isinstance(name, str):
        return
    if not callable(name):
        msg = f"event must be a str, a function or None, not of type {type(name).__name__}"
        raise TypeError(msg)
    check_plain_function("event", name, "the item")


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

    NaN and infinities are null, as in JavaScript: JSON has none, and what a client cannot read
    would be lost. A lone surrogate is escaped, as UTF-8 has none.

    Raises:
        TypeError: JSON cannot hold it.
    """
    try:
        text = _json_of(value, allow_nan=False)
    except ValueError:
        plain = json.loads(_json_of(value, allow_nan=True), parse_constant=lambda _: None)
        text = _json_of(plain, allow_nan=False)
    return text.encode(errors="backslashreplace").decode()


def _json_of(value: object, *, allow_nan: bool) -> str:
    return json.dumps(
        value, ensure_ascii=False, separators=(",", ":"), default=_plain, allow_nan=allow_nan
    )


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
