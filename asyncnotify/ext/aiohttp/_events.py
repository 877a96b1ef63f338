"""Server-sent events, framed by the library aiohttp-sse."""

from __future__ import annotations

import contextlib
from collections.abc import Collection
from typing import TYPE_CHECKING, Any, Final

from aiohttp import web

from asyncnotify import Channel
from asyncnotify._arguments import check_seconds
from asyncnotify.ext._items import Events, Name, check_name
from asyncnotify.ext.aiohttp._lifecycle import CLIENTS, FANOUT, LOG, found
from asyncnotify.ext.aiohttp._refusals import ENDS, refusing
from asyncnotify.ext.fanout import Fanout
from asyncnotify.log import Log, Position

if TYPE_CHECKING:
    from aiohttp_sse import EventSourceResponse

    from asyncnotify.ext._items import Sent
    from asyncnotify.log import After

PING_INTERVAL: Final = 15.0
LAST_EVENT_ID: Final = "Last-Event-ID"


async def events(
    request: web.Request,
    channels: Collection[str | Channel[Any]],
    *,
    key: web.AppKey[Fanout[web.Request]] = FANOUT,
    ping_interval: float = PING_INTERVAL,
    event: Name = None,
) -> web.StreamResponse:
    """
    Send a client what is notified on channels, as server-sent events, until one of both ends it.

    The data of each event is its payload, as JSON. Where the client may have missed something, and
    at the beginning, there is an event ``gap`` with ``reason``, ``channel``, ``since`` and
    ``dropped``: there it reads its state again. A client that is too slow gets a gap, as
    ``setup()`` was told.

    All clients share one LISTEN for each channel. One that has left is forgotten within a second,
    whether or not anything is notified.

    Args:
        request: The request that is being handled.
        channels: One at least: names, or Channels, which decode the payloads.
        key: The ``fanout_key`` of ``setup()``.
        ping_interval: Seconds between comments, by which a half-open connection is found.
        event: The name of each event; or a function of the Notification that returns it, such as
            ``lambda notification: notification.channel``; None: browsers call it ``message``.

    Raises:
        web.HTTPForbidden: ``authorize`` has refused a channel.
        web.HTTPBadRequest: No channel can have such a name, or none is given.
        web.HTTPServiceUnavailable: There are ``max_channels`` already, or the server is stopping.
        RuntimeError: ``setup()`` has not been called.
        ImportError: aiohttp-sse is not installed.
        TypeError: ``event`` cannot name events.
        ValueError: ``ping_interval`` is not a positive number of seconds.
    """
    _check(ping_interval, event)
    fanout = found(request, key)
    with refusing():
        await fanout.check(channels, request)
    response = _new_response(ping_interval)
    async with found(request, CLIENTS).serving(request):
        await response.prepare(request)  # at once: during an outage the stream begins later
        with contextlib.suppress(*ENDS):
            async with fanout.stream(channels) as stream:
                await _send(response, Events(stream, _as_it_is, event))
    return response


async def log_events(
    request: web.Request,
    channels: Collection[str | Channel[Any]] = (),
    *,
    key: web.AppKey[Log] = LOG,
    ping_interval: float = PING_INTERVAL,
    event: Name = None,
) -> web.StreamResponse:
    """
    Send a client the events of a log, as server-sent events that resume.

    The ``id`` of each is its position in the log. A browser that connects again sends the last one
    as ``Last-Event-ID``, and gets what it has missed; one that sends none gets what is new. The
    first event is called ``ready``, and says where that begins. An event ``gap`` says that events
    have been removed in between. The server keeps nothing of a client.

    Args:
        request: The request that is being handled.
        channels: Names or Channels, of which the names must be chosen by the application, not by
            the client; none: all of the log.
        key: The ``key`` of ``setup_log()``.
        ping_interval: Seconds between comments, by which a half-open connection is found.
        event: The name of each event; or a function of the Event that returns it; None: browsers
            call it ``message``.

    Raises:
        web.HTTPBadRequest: ``Last-Event-ID`` is not the id of an event of this log.
        web.HTTPServiceUnavailable: The server is stopping.
        RuntimeError: ``setup_log()`` has not been called.
        ImportError: aiohttp-sse is not installed.
        TypeError: ``event`` cannot name events.
        ValueError: ``ping_interval`` is not a positive number of seconds.
    """
    _check(ping_interval, event)
    source, last = found(request, key), request.headers.get(LAST_EVENT_ID)
    response = _new_response(ping_interval)
    clients = found(request, CLIENTS)
    async with clients.serving(request), contextlib.AsyncExitStack() as stack:
        with refusing():  # before the response begins: a browser does not try again after a 400
            after: After = Position.parse(last) if last else "now"
            stream = source.read(*channels, after=after, gaps=True)
            await stack.enter_async_context(stream)
        await response.prepare(request)
        await _send(response, Events(stream, _as_it_is, event))
    return response


def _check(ping_interval: float, event: Name) -> None:
    """Refuse what is wrong before the response begins."""
    check_seconds("ping_interval", ping_interval)
    check_name(event)


def _new_response(ping_interval: float) -> EventSourceResponse:
    try:
        from aiohttp_sse import EventSourceResponse  # noqa: PLC0415 - WebSockets do not need it
    except ImportError as error:
        msg = "server-sent events need aiohttp-sse: pip install 'asyncnotify-pg[aiohttp]'"
        raise ImportError(msg) from error
    return EventSourceResponse(ping_interval=ping_interval)


def _as_it_is(sent: Sent) -> Sent:
    return sent


async def _send(response: EventSourceResponse, events: Events[Sent]) -> None:
    """Send the events until the stream ends, or the client does not take them."""
    with contextlib.suppress(ConnectionResetError, TimeoutError):
        async with response:
            async for sent in events:
                await response.send(sent.data, id=sent.id, event=sent.event)
