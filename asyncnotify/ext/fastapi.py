"""
Listeners and logs in applications of FastAPI's, for the extra ``fastapi``.

::

    from asyncnotify.ext.fastapi import ListenerDep, health, lifespan, sse

    app = FastAPI(lifespan=lifespan("postgresql://localhost/postgres"))
    app.get("/health")(health)


    @app.get("/events", response_class=EventSourceResponse)
    async def events(listener: ListenerDep) -> AsyncIterator[ServerSentEvent]:
        async for event in sse(listener.stream("orders", gaps=True)):
            yield event

In tests, ``app.dependency_overrides[get_listener]`` gives another listener. The module's path is
its API, with the names in ``__all__``.
"""

# FastAPI reads the annotations of dependencies at run time, and needs what they name
from typing import Annotated, TypeAlias

try:
    from fastapi import Depends, Header
    from fastapi.requests import HTTPConnection
    from fastapi.responses import JSONResponse
    from fastapi.sse import ServerSentEvent
except ImportError as _error:
    _MSG = "asyncnotify.ext.fastapi needs FastAPI 0.135.1: pip install 'asyncnotify-pg[fastapi]'"
    raise ImportError(_MSG) from _error

from asyncnotify import Listener
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
    "LastEventId",
    "ListenerDep",
    "LogDep",
    "get_last_event_id",
    "get_listener",
    "get_log",
    "health",
    "lifespan",
    "log_health",
    "sse",
    "websocket",
]


async def get_listener(connection: HTTPConnection) -> Listener:
    """
    Return the application's listener, for a request or a WebSocket.

    Raises:
        NotStartedError: The application runs without the ``lifespan()`` of one.
    """
    return listener_of(connection)


async def get_log(connection: HTTPConnection) -> Log:
    """
    Return the application's log, for a request or a WebSocket.

    Raises:
        NotStartedError: The application runs without the ``lifespan()`` of one.
    """
    return log_of(connection)


ListenerDep: TypeAlias = Annotated[Listener, Depends(get_listener)]
"""The application's listener, for a parameter of an endpoint."""

LogDep: TypeAlias = Annotated[Log, Depends(get_log)]
"""The application's log, for a parameter of an endpoint."""


async def get_last_event_id(
    log: LogDep, last_event_id: Annotated[str | None, Header()] = None
) -> After:
    """
    Return where a client continues reading the application's log: for ``log.read(after=…)``.

    That is behind the event whose id it has sent as Last-Event-ID; a client that has sent none
    begins with what is new.

    Raises:
        HTTPException: 400: it is not the id of an event of this log. Browsers do not try again.
    """
    return await place_of(log, last_event_id)


LastEventId: TypeAlias = Annotated[After, Depends(get_last_event_id)]
"""Where a client continues reading the application's log, for a parameter of an endpoint."""


def sse(stream: Source, *, event: Name = None) -> Events[ServerSentEvent]:
    """
    Return the items of a stream as server-sent events, for an endpoint that yields them.

    The data of an event is the payload as JSON. Over a log, an event has its position as ``id``,
    and the first one is ``ready``, with the position where reading begins: browsers send the last
    one as Last-Event-ID when they come again, see ``LastEventId``. A Gap is an event ``gap``, with
    ``{"reason": …, "channel": …, "since": …, "dropped": …}``: make the stream with ``gaps=True``,
    or clients do not know that they have missed something.

    The events end when the stream does, and when the client is too slow for a stream with
    ``overflow="fail"``. When the client leaves, nothing of the stream is left: it ends with the
    task that iterates it. FastAPI sends comments meanwhile that keep proxies from closing the
    connection.

    Args:
        stream: What ``listener.stream()``, ``log.read()`` or a fan-out returned.
        event: The name of the events: a str, a function that returns one for an item, or None;
            then browsers call them ``message``.

    Raises:
        TypeError: ``stream`` is no stream, or ``event`` cannot name events.
    """
    return Events(stream, _framed, event, ends_with_task=True)


def _framed(sent: Sent) -> ServerSentEvent:
    return ServerSentEvent(raw_data=sent.data, event=sent.event, id=sent.id)


async def health(listener: ListenerDep) -> JSONResponse:
    """
    Answer a health check of the listener: 200 while it delivers, 503 while it misses any.

    An endpoint. The JSON says in words what the state means; ``last_error`` is what the server or
    the system said, without a password: for operators, not for the public.

    Raises:
        WrongLoopError: The call came from another event loop or process.
    """
    return response_of(await health_of(listener))


async def log_health(log: LogDep) -> JSONResponse:
    """
    Answer a health check of the log: 200 while it answers, with its consumers, otherwise 503.

    An endpoint, as ``health()``. It asks the database, for five seconds at most.

    Raises:
        WrongLoopError: The call came from another event loop or process.
    """
    return response_of(await health_of(log))
