"""Streams as the messages of Litestar's server-sent events."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import AsyncGenerator
from typing import Any, Final

from litestar.connection import ASGIConnection
from litestar.exceptions import ClientException
from litestar.response import ServerSentEventMessage
from litestar.serialization import encode_json

from asyncnotify import ClosedError, Gap, GapReason, Notification, Stream
from asyncnotify.log import After, Event, Log, LogStream, Position, PositionError

_HEADER: Final = "Last-Event-ID"


def resume_after(request: ASGIConnection[Any, Any, Any, Any], log: Log) -> After:
    """
    Return where a client of server-sent events has left off, by its ``Last-Event-ID``.

    ``"now"`` for a client that has seen nothing yet.

    Args:
        request: Of the client; a WebSocket as well.
        log: The log that is to be read.

    Raises:
        ClientException: The header is not the id of an event of this log: an answer 400.
    """
    said = request.headers.get(_HEADER)
    if not said:
        return "now"
    try:
        position = Position.parse(said)
    except PositionError as error:
        msg = f"{_HEADER} is not the id of an event"
        raise ClientException(msg) from error
    if position.log != log.name:
        msg = f"{_HEADER} is the id of an event of another log"
        raise ClientException(msg)
    return position


async def sse_messages(
    stream: Stream[Any] | LogStream[Any], *, event: str | None = None
) -> AsyncGenerator[ServerSentEventMessage, None]:
    """
    Yield the items of a stream as messages for Litestar's ``ServerSentEvent``.

    A notification, or an event of a log, is a message with its payload as data: a text as it is,
    and all else as JSON. An event of a log has its position as the id, which a browser sends back
    as ``Last-Event-ID``. A log begins with a message ``ready``, so that a browser has an id before
    the first event. A Gap, where the stream has ``gaps=True``, is a message ``gap`` whose data is
    JSON: ``reason``, ``channel``, ``since`` and ``dropped``, as Gap has them.

    The stream is closed when the client leaves, and the messages end when the stream does. If the
    log does not know the place where reading is to begin, there is one message ``gap`` that makes
    a browser begin anew.

    Args:
        stream: As ``listener.stream()`` or ``log.read()`` returns it.
        event: The type of the messages; None: browsers call it ``message``.

    Raises:
        AsyncNotifyError: As of the stream's ``anext()``, but for a closed listener.
    """
    with contextlib.suppress(ClosedError):
        try:
            async with stream:
                if isinstance(stream, LogStream):
                    yield ServerSentEventMessage("{}", event="ready", id=str(stream.position))
                async for item in stream:
                    yield _message_of(item, event)
        except PositionError:
            # An empty id makes a browser forget the last one, which it would send for ever
            yield _gap_message(Gap(None, GapReason.EXPIRED), position="")


def _message_of(
    item: Notification[Any] | Event[Any] | Gap, event: str | None
) -> ServerSentEventMessage:
    if isinstance(item, Gap):
        return _gap_message(item)
    position = str(item.position) if isinstance(item, Event) else None
    return ServerSentEventMessage(_data_of(item.payload), event=event, id=position)


def _gap_message(gap: Gap, *, position: str | None = None) -> ServerSentEventMessage:
    return ServerSentEventMessage(encode_json(dataclasses.asdict(gap)), event="gap", id=position)


def _data_of(payload: object) -> str | bytes:
    return payload if isinstance(payload, str) else encode_json(payload)
