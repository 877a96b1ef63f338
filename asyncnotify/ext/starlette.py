"""
Listeners and logs in applications of Starlette's, for the extra ``starlette``.

::

    from asyncnotify.ext.starlette import get_listener, health, lifespan, sse


    async def events(request: Request) -> EventSourceResponse:
        return sse(get_listener(request).stream("orders", gaps=True))


    app = Starlette(
        routes=[Route("/events", events), Route("/health", health)],
        lifespan=lifespan("postgresql://localhost/postgres"),
    )

``sse`` needs the package sse-starlette, which the extra installs. The module's path is its API,
with the names in ``__all__``.
"""

from __future__ import annotations

from collections.abc import Mapping

try:
    from sse_starlette import EventSourceResponse, ServerSentEvent
    from starlette.requests import HTTPConnection, Request
    from starlette.responses import JSONResponse
except ImportError as _error:
    _MSG = (
        "asyncnotify.ext.starlette needs starlette and sse-starlette:"
        " pip install 'asyncnotify-pg[starlette]'"
    )
    raise ImportError(_MSG) from _error

from asyncnotify import Listener
from asyncnotify._arguments import check_mapping, check_seconds
from asyncnotify.ext._health import health_of
from asyncnotify.ext._items import Events, Name, Sent, Source
from asyncnotify.ext._starlette import (
    lifespan,
    listener_of,
    log_of,
    place_of,
    response_of,
    websocket,
)
from asyncnotify.log import After, Log

__all__ = [
    "get_listener",
    "get_log",
    "health",
    "last_event_id",
    "lifespan",
    "log_health",
    "sse",
    "websocket",
]


def get_listener(connection: HTTPConnection) -> Listener:
    """
    Return the application's listener, for a request or a WebSocket.

    Raises:
        NotStartedError: The application runs without the ``lifespan()`` of one.
    """
    return listener_of(connection)


def get_log(connection: HTTPConnection) -> Log:
    """
    Return the application's log, for a request or a WebSocket.

    Raises:
        NotStartedError: The application runs without the ``lifespan()`` of one.
    """
    return log_of(connection)


def sse(
    stream: Source,
    *,
    event: Name = None,
    headers: Mapping[str, str] | None = None,
    ping: float = 15.0,
    send_timeout: float | None = 30.0,
) -> EventSourceResponse:
    """
    Return a response that sends the items of a stream as server-sent events.

    The data of an event is the payload as JSON. Over a log, an event has its position as ``id``,
    and the first one is ``ready``, with the position where reading begins: browsers send the last
    one as Last-Event-ID when they come again, see ``last_event_id()``. A Gap is an event ``gap``,
    with ``{"reason": …, "channel": …, "since": …, "dropped": …}``: make the stream with
    ``gaps=True``, or clients do not know that they have missed something.

    The response ends when the client leaves, when the stream ends, and when the client is too slow
    for a stream with ``overflow="fail"``. The stream is closed then.

    Args:
        stream: What ``listener.stream()``, ``log.read()`` or a fan-out returned.
        event: The name of the events: a str, a function that returns one for an item, or None;
            then browsers call them ``message``.
        headers: Further headers.
        ping: Seconds between comments that keep proxies from closing the connection.
        send_timeout: Seconds in which the client has to take an event; None: forever.

    Raises:
        TypeError: ``stream`` is no stream, ``event`` cannot name events, or ``headers`` is no
            mapping.
        ValueError: ``ping`` or ``send_timeout`` is not a positive number of seconds.
    """
    check_seconds("ping", ping)
    check_seconds("send_timeout", send_timeout, or_none=True)
    check_mapping("headers", headers)
    events = Events(stream, _framed, event)
    return EventSourceResponse(
        events,
        headers=headers,
        ping=ping,  # type: ignore[arg-type,unused-ignore]  # before 3 an int, by its annotation only
        send_timeout=send_timeout,
    )


def _framed(sent: Sent) -> ServerSentEvent:
    return ServerSentEvent(sent.data, event=sent.event, id=sent.id)


async def last_event_id(request: Request) -> After:
    """
    Return where a client continues reading the application's log: for ``log.read(after=…)``.

    That is behind the event whose id it has sent as Last-Event-ID; a client that has sent none
    begins with what is new.

    Raises:
        HTTPException: 400: it is not the id of an event of this log. Browsers do not try again.
        NotStartedError: The application has no log.
    """
    return await place_of(get_log(request), request.headers.get("last-event-id"))


async def health(request: Request) -> JSONResponse:
    """
    Answer a health check of the listener: 200 while it delivers, 503 while it misses any.

    An endpoint. The JSON says in words what the state means; ``last_error`` is what the server or
    the system said, without a password: for operators, not for the public.

    Raises:
        NotStartedError: The application has no listener.
    """
    return response_of(await health_of(get_listener(request)))


async def log_health(request: Request) -> JSONResponse:
    """
    Answer a health check of the log: 200 while it answers, with its consumers, otherwise 503.

    An endpoint, as ``health()``. It asks the database, for five seconds at most.

    Raises:
        NotStartedError: The application has no log.
    """
    return response_of(await health_of(get_log(request)))
