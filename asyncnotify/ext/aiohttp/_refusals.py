"""What a client is told that is not served, and how one is left that is."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Final

from aiohttp import web

from asyncnotify import BufferOverflowError, ChannelNameError, ClosedError, ListenTimeoutError
from asyncnotify.ext.fanout import ChannelNotAllowedError, TooManyChannelsError
from asyncnotify.log import PositionError

if TYPE_CHECKING:
    from collections.abc import Generator

ENDS: Final = (BufferOverflowError, ClosedError, ListenTimeoutError, TooManyChannelsError)
"""What ends a response that has begun, and is no fault: the client may come again."""

_STATUS: Final[dict[type[Exception], type[web.HTTPException]]] = {
    ChannelNotAllowedError: web.HTTPForbidden,
    ChannelNameError: web.HTTPBadRequest,
    PositionError: web.HTTPBadRequest,
    TooManyChannelsError: web.HTTPServiceUnavailable,
    ClosedError: web.HTTPServiceUnavailable,
}


@contextlib.contextmanager
def refusing() -> Generator[None]:
    """
    Raise for each error that is the client's, or passes, what aiohttp answers it with.

    The answer names no channel and no server: its text is not for clients.
    """
    try:
        yield
    except tuple(_STATUS) as error:
        raise _STATUS[type(error)] from error
