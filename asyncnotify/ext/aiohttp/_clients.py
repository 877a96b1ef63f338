"""The responses that are open: each ends when its client leaves, or when the server stops."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Final

from aiohttp import web

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

LOOK_INTERVAL: Final = 1.0
"""Seconds between two looks for clients that have left: aiohttp tells no handler of them."""

SHUTDOWN_GRACE: Final = 1.0
"""Seconds in which a client has to take what its stream still holds, once the server stops."""


class Clients:
    """
    Bounds each open response to the time in which its client is there.

    One timer looks after all of them, whose callback takes a fraction of a microsecond for each
    client. There is no timer while there is no client.
    """

    def __init__(self) -> None:
        self._open: dict[asyncio.Timeout, web.BaseRequest] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._is_ending = False

    def __len__(self) -> int:
        return len(self._open)

    @contextlib.asynccontextmanager
    async def serving(self, request: web.BaseRequest) -> AsyncGenerator[None]:
        """
        Run the block until its end, or until the client has left or has to be left.

        In these cases the block is cancelled, the connection is cut, and the code behind the block
        goes on.

        Raises:
            web.HTTPServiceUnavailable: The server is stopping: it waits for no new stream.
        """
        if self._is_ending:
            raise web.HTTPServiceUnavailable
        limit = asyncio.timeout(None)
        try:
            async with limit:
                self._add(limit, request)
                try:
                    yield
                finally:
                    self._discard(limit)
        except TimeoutError:
            if not limit.expired():
                raise
            cut(request)

    def begin(self) -> None:
        """Take clients, also after an ``end()``."""
        self._is_ending = False

    def end(self) -> None:
        """Take no more clients, and leave those that are there after ``SHUTDOWN_GRACE``."""
        self._is_ending = True
        at = asyncio.get_running_loop().time() + SHUTDOWN_GRACE
        for limit in self._open:
            _end(limit, at)

    def _add(self, limit: asyncio.Timeout, request: web.BaseRequest) -> None:
        self._open[limit] = request
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(LOOK_INTERVAL, self._look)

    def _discard(self, limit: asyncio.Timeout) -> None:
        del self._open[limit]
        if not self._open and self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _look(self) -> None:
        loop = asyncio.get_running_loop()
        for limit, request in self._open.items():
            if _has_left(request):
                _end(limit, loop.time())
        self._timer = loop.call_later(LOOK_INTERVAL, self._look)


def _end(limit: asyncio.Timeout, at: float) -> None:
    """Cancel a block at this time, unless an earlier one is set."""
    when = limit.when()
    if when is None or (at < when and not limit.expired()):
        limit.reschedule(at)


def _has_left(request: web.BaseRequest) -> bool:
    transport = request.transport
    return transport is None or transport.is_closing()


def cut(request: web.BaseRequest) -> None:
    """Close a connection without waiting for a client that does not read."""
    if request.transport is not None:
        request.transport.abort()
