"""Streams as the messages of Litestar's server-sent events."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any, Final

from litestar.connection import ASGIConnection
from litestar.exceptions import ClientException
from litestar.response import ServerSentEventMessage

from asyncnotify import Gap, GapReason
from asyncnotify.ext._items import GAP, Events, Name, Sent, Source, as_json, fields_of
from asyncnotify.log import After, Log, Position, PositionError

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


def sse_messages(source: Source, *, event: Name = None) -> AsyncIterator[ServerSentEventMessage]:
    """
    Return the items of a stream as messages for Litestar's ``ServerSentEvent``.

    A notification, or an event of a log, is a message whose data is its payload as JSON: a text
    stands in quotes. An event of a log has its position as the id, which a browser sends back as
    ``Last-Event-ID``. A log begins with a message ``ready``, so that a browser has an id before the
    first event. A Gap, where the stream has ``gaps=True``, is a message ``gap`` whose data is JSON:
    ``reason``, ``channel``, ``since`` and ``dropped``, as Gap has them.

    The stream ends when the client leaves, and the messages end when the stream does, also where
    its client is too slow for ``overflow="fail"``, or the server has not confirmed in time. If the
    log does not know the place where reading is to begin, there is one message ``gap`` that makes
    a browser start again.

    Args:
        source: As ``listener.stream()`` or ``log.read()`` returns it.
        event: The type of the messages; or a function that returns it for a notification or an
            event; None: browsers call it ``message``.

    Raises:
        TypeError: The source is no stream, or ``event`` cannot name messages.
    """
    return _Messages(source, _framed, event)


class _Messages(Events[ServerSentEventMessage]):
    """Events that end with a gap where the log does not know the place to begin."""

    async def _next(self) -> Sent:
        try:
            return await super()._next()
        except PositionError:
            self.let_go()
            # An empty id makes a browser forget the last one, which it would send for ever
            return Sent(as_json(fields_of(Gap(None, GapReason.EXPIRED))), GAP, "")


def _framed(sent: Sent) -> ServerSentEventMessage:
    return ServerSentEventMessage(sent.data, event=sent.event, id=sent.id)
