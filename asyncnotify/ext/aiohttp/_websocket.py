"""A WebSocket for each client, on which nothing but what is notified is sent."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Collection
from typing import Any, Final

from aiohttp import WSCloseCode, web

from asyncnotify import Channel, Gap, Notification
from asyncnotify._arguments import check_plain_function, check_seconds
from asyncnotify.ext._items import message_of
from asyncnotify.ext.aiohttp._clients import cut
from asyncnotify.ext.aiohttp._lifecycle import CLIENTS, FANOUT, found
from asyncnotify.ext.aiohttp._refusals import ENDS, refusing
from asyncnotify.ext.fanout import Fanout

HEARTBEAT: Final = 20.0
CLOSE_TIMEOUT: Final = 1.0
"""Seconds in which a client has to answer that the WebSocket is closed, before it is cut."""

LARGEST_MESSAGE: Final = 4_096
"""Bytes of a message from a client, which nobody reads."""


async def websocket(
    request: web.Request,
    channels: Collection[str | Channel[Any]],
    *,
    key: web.AppKey[Fanout[web.Request]] = FANOUT,
    heartbeat: float = HEARTBEAT,
    encode: Callable[[Notification[Any] | Gap], str] = message_of,
) -> web.WebSocketResponse:
    """
    Send a client what is notified on channels, by WebSocket, until one of both closes it.

    Each message is a JSON object: ``{"channel": "orders", "payload": "42"}``. Where the client may
    have missed something, and at the beginning, it is ``{"channel": "orders", "gap": "reconnect",
    …}``: there the client reads its state again. A client that is too slow gets a gap, or is
    closed with 1013, as ``setup()`` was told. When the server stops, the client is closed with
    1001. What clients send is read and not looked at.

    All clients share one LISTEN for each channel. One that has left is forgotten at once, whether
    or not anything is notified.

    Args:
        request: The request that is being handled.
        channels: One at least: names, or Channels, which decode the payloads.
        key: The ``fanout_key`` of ``setup()``.
        heartbeat: Seconds between pings; half of it is the time for the answer.
        encode: Called with each Notification and Gap; returns the text of the message.

    Raises:
        web.HTTPForbidden: ``authorize`` has refused a channel.
        web.HTTPBadRequest: No channel can have such a name; or the request is for no WebSocket.
        web.HTTPServiceUnavailable: There are ``max_channels`` already, or the server is stopping.
        RuntimeError: ``setup()`` has not been called.
        TypeError: ``encode`` is no plain function.
        ValueError: ``heartbeat`` is not a positive number of seconds.
    """
    check_seconds("heartbeat", heartbeat)
    check_plain_function("encode", encode, "the item")
    fanout = found(request, key)
    with refusing():
        await fanout.check(channels, request)
    socket = web.WebSocketResponse(
        heartbeat=heartbeat,
        timeout=CLOSE_TIMEOUT,
        max_msg_size=LARGEST_MESSAGE,
        compress=False,  # each client would have a compressor, and each copy be compressed
    )
    async with found(request, CLIENTS).serving(request):
        await socket.prepare(request)
        async with asyncio.TaskGroup() as group:
            sending = group.create_task(_send(socket, fanout, channels, encode))
            reading = group.create_task(_read(socket))
            await asyncio.wait({sending, reading}, return_when=asyncio.FIRST_COMPLETED)
            if sending.done():
                await _close(request, socket, sending.result())
            sending.cancel()
            reading.cancel()
    return socket


async def _send(
    socket: web.WebSocketResponse,
    fanout: Fanout[web.Request],
    channels: Collection[str | Channel[Any]],
    encode: Callable[[Notification[Any] | Gap], str],
) -> WSCloseCode:
    """Send the items until the stream ends, or the client has left; return how to close."""
    try:
        async with fanout.stream(channels) as stream:
            async for item in stream:
                await socket.send_str(encode(item))
    except ConnectionResetError:
        return WSCloseCode.ABNORMAL_CLOSURE
    except ENDS:
        return WSCloseCode.TRY_AGAIN_LATER
    return WSCloseCode.GOING_AWAY


async def _read(socket: web.WebSocketResponse) -> None:
    async for _ in socket:
        pass


async def _close(request: web.Request, socket: web.WebSocketResponse, code: WSCloseCode) -> None:
    """Close, in bounded time: a client that does not read takes no words of farewell either."""
    with contextlib.suppress(ConnectionResetError):
        try:
            async with asyncio.timeout(CLOSE_TIMEOUT):
                await socket.close(code=code)
        except TimeoutError:
            cut(request)
